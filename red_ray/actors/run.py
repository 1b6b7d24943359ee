"""A training run on a cluster, from the driver's side."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError

from red_ray.actors.cluster import cause_of, fetch, start_actor
from red_ray.actors.coordinator import CoordinatorActor
from red_ray.actors.fleet import RayEncoder, RayFleet
from red_ray.actors.validator import RayValidator
from red_ray.actors.validator_pool import Account
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.judges import PoolStats
from red_ray.training import Trained, TrainingJob
from red_ray.types import Iteration, Progress


@dataclass(frozen=True, slots=True)
class ClusterRun:
    """What a run on a cluster ended with.

    Attributes:
        trained: as `Trainer.result`, the history with the label precision where it is known.
        encoder: still running, so that the test rows need no second model in memory.
        judge: what the validator pool did, or None without a judge.
    """

    trained: Trained
    encoder: RayEncoder
    judge: PoolStats | None


@dataclass(frozen=True, slots=True)
class LedgerOfRun:
    """Where a run's verdicts are, and what it has done of them.

    Attributes:
        place: file or URL.
        run_id: names the run in it; empty where none is resumed.
        n_done: iterations that it finished before it was cut short.
    """

    place: str
    run_id: str = ""
    n_done: int = 0


def train_on_cluster(
    job: TrainingJob,
    *,
    ledger: LedgerOfRun,
    hidden: HiddenLabels | None,
    on_progress: Callable[[Progress], None],
    name: str = "",
) -> ClusterRun:
    """Train on the cluster that this process is connected to.

    Args:
        job: rows and configuration.
        ledger: where the verdicts are.
        hidden: the pool's hidden labels: they reach the simulated judge and, here in the driver,
            the history's label precision, and nothing else.
        on_progress: called with each step.
        name: of the run, in metrics and logs.

    Raises:
        RedRayError: whatever stopped the run, as the worker raised it.
        RunError: an actor died.
    """
    config = job.config
    try:
        # A failed run ends its actors: Ray keeps them while the error's traceback holds a handle.
        with ExitStack() as on_failure:
            fleet = RayFleet(config, name)
            on_failure.callback(fleet.end)
            validator = None
            if config.judge.spec is not None and job.pool:
                examples = LabelledRows(job.texts, job.labels)
                account = Account(config.judge, ledger.place, config.seed, run=name)
                known = hidden.joined(examples) if hidden else None
                validator = RayValidator(
                    account, ledger.run_id, ledger.n_done, examples=examples, hidden=known
                )
                on_failure.callback(validator.end)
                validator.open()
            coordinator = start_actor(
                CoordinatorActor, job, fleet, validator, name, name="coordinator", num_cpus=0
            )
            on_failure.callback(ray.kill, coordinator)
            iterations = _follow(coordinator, job, hidden, on_progress)
            result: Trained = fetch(coordinator.result.remote())
            trained = replace(result, iterations=tuple(iterations))
            stats = validator.close() if validator is not None else None
            on_failure.pop_all()
    except RayError as error:
        raise cause_of(error) from error
    return ClusterRun(trained=trained, encoder=fleet.encoder, judge=stats)


def _follow(
    coordinator: Any,
    job: TrainingJob,
    hidden: HiddenLabels | None,
    on_progress: Callable[[Progress], None],
) -> list[Iteration]:
    iterations = []
    for reference in coordinator.run.remote():
        event: Progress = fetch(reference)
        if event.iteration is not None:
            precision = _precision(event, job, hidden)
            iteration = replace(event.iteration, label_precision=precision)
            event = replace(event, iteration=iteration)
            iterations.append(iteration)
        on_progress(event)
    return iterations


def _precision(event: Progress, job: TrainingJob, hidden: HiddenLabels | None) -> float | None:
    """Share of the labels an iteration added that are the hidden ones."""
    if not hidden or not event.gained:
        return None
    right = sum(hidden.of(job.pool[row]) == label for row, label in event.gained)
    return right / len(event.gained)
