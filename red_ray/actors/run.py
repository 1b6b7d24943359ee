"""A training run on a cluster, from the driver's side."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from red_ray.actors.cluster import cause_of, fetch, on_this_node, start_actor
from red_ray.actors.coordinator import CoordinatorActor
from red_ray.actors.fleet import RayFleet
from red_ray.actors.validator import RayValidator
from red_ray.actors.validator_pool import Account
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.judges import PoolStats
from red_ray.model import TextEncoder
from red_ray.training import Trained, TrainingJob
from red_ray.types import Iteration, Progress

COORDINATORS = 4
"""So many one after the other may lead a run: one that is lost so often will not live."""


@dataclass(frozen=True, slots=True)
class ClusterRun:
    """What a run on a cluster ended with.

    Attributes:
        trained: as `Trainer.result`, the history with the label precision where it is known.
        encoder: still running, so that the test rows need no second model in memory.
        judge: what the validator pool did, or None without a judge.
    """

    trained: Trained
    encoder: TextEncoder
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
            if config.judge.spec is not None and (job.pool or config.judge.paraphrases):
                examples = LabelledRows(job.texts, job.labels)
                account = Account(config.judge, ledger.place, config.seed, run=name)
                known = hidden.joined(examples) if hidden else None
                validator = RayValidator(
                    account, ledger.run_id, ledger.n_done, examples=examples, hidden=known
                )
                on_failure.callback(validator.end)
                validator.open()
            led = _Led(job, fleet, validator, name, on_failure, hidden, on_progress)
            trained = led.to_the_end()
            stats = validator.close() if validator is not None else None
            on_failure.pop_all()
    except RayError as error:
        raise cause_of(error) from error
    return ClusterRun(trained=trained, encoder=fleet.encoder_of(trained.model), judge=stats)


@dataclass
class _Led:
    """A run as its coordinator leads it; one that is lost is replaced.

    A new one finds the verdicts of the one before in the ledger, and comes to the same.
    """

    job: TrainingJob
    fleet: RayFleet
    validator: RayValidator | None
    name: str
    on_failure: ExitStack
    hidden: HiddenLabels | None
    on_progress: Callable[[Progress], None]
    iterations: list[Iteration] = field(default_factory=list)

    def to_the_end(self) -> Trained:
        """What the run came to, its history with the label precision where that is known."""
        for number in range(1, COORDINATORS):
            try:
                return self._trained(number)
            except RayActorError as error:
                if isinstance(error, RayTaskError):  # another actor than the coordinator
                    raise
                self._begin_again()
        return self._trained(COORDINATORS)

    def _trained(self, number: int) -> Trained:
        coordinator = start_actor(
            CoordinatorActor,
            self.job,
            self.fleet,
            self.validator,
            self.name,
            name="coordinator" if number == 1 else f"coordinator ({number})",
            num_cpus=0,
            scheduling_strategy=on_this_node(must=False),
        )
        self.on_failure.callback(ray.kill, coordinator)
        for reference in coordinator.run.remote():
            self._tell(fetch(reference))
        result: Trained = fetch(coordinator.result.remote())
        return replace(result, iterations=tuple(self.iterations))

    def _begin_again(self) -> None:
        n_done, limit = len(self.iterations), self.job.config.loop.max_iterations
        told = "the coordinator was lost; another one goes on from what is in the ledger"
        self.on_progress(Progress("loop", n_done, limit, told))
        self.fleet.begin_again()
        if self.validator is not None:
            self.validator.replay(n_done)

    def _tell(self, event: Progress) -> None:
        iteration = event.iteration
        if iteration is not None and iteration.iteration <= len(self.iterations):
            return  # told by the coordinator before
        if iteration is not None:
            precision = _precision(event, self.job, self.hidden)
            iteration = replace(iteration, label_precision=precision)
            event = replace(event, iteration=iteration)
            self.iterations.append(iteration)
        self.on_progress(event)


def _precision(event: Progress, job: TrainingJob, hidden: HiddenLabels | None) -> float | None:
    """Share of the labels an iteration added that are the hidden ones."""
    if not hidden or not event.gained:
        return None
    right = sum(hidden.of(job.pool[row]) == label for row, label in event.gained)
    return right / len(event.gained)
