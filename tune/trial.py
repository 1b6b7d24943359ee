"""One setting, trained in this process: no Ray is needed, and no text is encoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import cast

import numpy as np
from numpy.typing import NDArray

from red_ray.config import RunConfig
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.partition import Subsets
from red_ray.core.thresholds import CalibrationRows
from red_ray.data.inputs import Inputs, draw_samples
from red_ray.encoding import EncoderSpec
from red_ray.errors import RedRayError, RunError, UserError
from red_ray.experts import ExpertSpec
from red_ray.judges import Ledger, ValidatorPool, make_judge
from red_ray.judges.votes import lexical_votes
from red_ray.training import LocalFleet, PoolValidator, Trainer, TrainingJob
from red_ray.training.fleet import Crew, Validator
from red_ray.types import Progress
from tune.folder import FAILED, FINISHED, RUNNING, UNUSABLE, Place, Record
from tune.points import points_of
from tune.space import Setting, SweepConfig

Floats = NDArray[np.float32]
Report = Callable[[Record], None]
Asking = Callable[[], AbstractAsyncContextManager[Validator]]


@dataclass(frozen=True, slots=True)
class Shared:
    """What all settings of a sweep have in common; sent to every process once.

    Attributes:
        sweep: the sweep.
        inputs: all rows, of which a setting draws its own.
        texts: that are encoded.
        vectors: their embeddings, shape (n_texts, dim).
        encoder: what made them.
        place: where records and ledgers go.
        asking: opens the pool that asks a language model for all settings; None where each has a
            judge of its own.
    """

    sweep: SweepConfig
    inputs: Inputs
    texts: tuple[str, ...]
    vectors: Floats
    encoder: EncoderSpec | None
    place: Place
    asking: Asking | None = None


class KnownTexts:
    """An encoder that looks up what was encoded before the sweep, and computes nothing.

    Args:
        texts: that are known.
        vectors: of them, shape (n_texts, dim).
        spec: what made them.
    """

    def __init__(self, texts: Sequence[str], vectors: Floats, spec: EncoderSpec | None) -> None:
        self._row_of = {text: row for row, text in enumerate(texts)}
        self._vectors = vectors
        self.spec = spec

    def encode(self, texts: Sequence[str]) -> Floats:
        """Vectors of `texts`, shape (n_texts, dim).

        Raises:
            RunError: a text is not known.
        """
        rows = [self._row_of.get(text, -1) for text in texts]
        n_unknown = sum(row < 0 for row in rows)
        if n_unknown:
            raise RunError(f"{n_unknown} texts of a setting were not encoded before the sweep")
        return self._vectors[rows]


class _Watched(LocalFleet):
    """A local fleet that keeps its crew, so that the router can be asked meanwhile."""

    crew: Crew

    async def open(
        self,
        config: RunConfig,
        vectors: Floats,
        texts: Sequence[str],
        subsets: Subsets,
        specs: Sequence[ExpertSpec],
        gate: ExpertSpec | None,
    ) -> Crew:
        """See `LocalFleet.open`."""
        self.crew = await super().open(config, vectors, texts, subsets, specs, gate)
        return self.crew


def run_setting(setting: Setting, shared: Shared, report: Report) -> Record:
    """Train a setting unless its record says that it ended; what it came to.

    Where another process trains the same one, as Optuna may draw it twice, wait for its end.

    Args:
        setting: what to train.
        shared: rows, embeddings and places.
        report: told before the loop and after each of its rounds. It may end this process's work
            by an exception of its own.

    Raises:
        RunError: it failed and is worth another try; its record says so too.
    """
    with shared.place.alone_with(setting.id):
        kept = shared.place.read(setting.id)
        if kept is not None and kept.has_ended:
            return kept
        return _run(setting, shared, report)


def _run(setting: Setting, shared: Shared, report: Report) -> Record:
    use_one_blas_thread()
    record = Record(setting.id, setting.params, RUNNING)
    shared.place.write(record)
    try:
        record = asyncio.run(_trained(setting, shared, record, report))
    except UserError as error:
        record = record.with_state(UNUSABLE, str(error))
    except RedRayError as error:
        shared.place.write(record.with_state(FAILED, str(error)))
        raise
    shared.place.write(record)
    return record


async def _trained(setting: Setting, shared: Shared, record: Record, report: Report) -> Record:
    start = perf_counter()
    inputs = draw_samples(setting.config, shared.inputs)
    job = job_of(inputs, setting.config)
    fleet = _Watched(KnownTexts(shared.texts, shared.vectors, shared.encoder), n_threads=1)
    try:
        async with _asking(setting, shared, inputs) as validator:
            trainer = Trainer(job, fleet, validator)
            async with aclosing(cast("AsyncGenerator[Progress, None]", trainer.run())) as steps:
                async for step in steps:
                    if validator is not None and _is_milestone(step):
                        record = await _so_far(record, step, fleet, shared, setting)
                        record = replace(record, seconds=perf_counter() - start)
                        shared.place.write(record)
                        report(record)
    finally:
        fleet.close()
    trained = trainer.result()
    record = _measured(record, trained.model.calibration, shared.sweep, setting)
    return replace(
        record,
        state=FINISHED,
        estimated_accuracy=trained.estimate.accuracy,
        log_likelihood=trained.estimate.log_likelihood,
        ece=trained.estimate.ece,
        n_train=len(trained.model.example_labels),
        seconds=perf_counter() - start,
    )


def job_of(inputs: Inputs, config: RunConfig) -> TrainingJob:
    """What a setting trains on; without a judge nobody asks about the pool."""
    pool = inputs.pool if config.judge.spec else ()
    rows = inputs.train
    return TrainingJob(rows.texts, rows.labels, pool, dict(inputs.descriptions), config)


def _is_milestone(step: Progress) -> bool:
    """Whether a scheduler may compare what there is now: before the loop, and after each round."""
    return step.stage == "calibrate" or step.iteration is not None


async def _so_far(
    record: Record, step: Progress, fleet: _Watched, shared: Shared, setting: Setting
) -> Record:
    one = step.iteration
    if one is not None:
        calls = record.calls + one.n_requests + one.n_cached
        record = replace(record, rounds=one.iteration, calls=calls, n_train=one.n_train)
        if one.estimated_accuracy is None:  # the router was not refitted in this round
            return record
    parts = await fleet.crew.router.export()
    return _measured(record, parts.calibration, shared.sweep, setting)


def _measured(
    record: Record, rows: CalibrationRows, sweep: SweepConfig, setting: Setting
) -> Record:
    points = points_of(rows, sweep.goals, setting.config.router, sweep.assumed_judge_accuracy)
    return replace(record, points=tuple(points), estimated_accuracy=float(rows.right.mean()))


@asynccontextmanager
async def _asking(
    setting: Setting, shared: Shared, inputs: Inputs
) -> AsyncIterator[Validator | None]:
    """Whom the loop asks: nobody, the judge of all settings, or one of its own."""
    judge_config = setting.config.judge
    if judge_config.spec is None or not inputs.pool:
        yield None
        return
    if shared.asking is not None:
        async with shared.asking() as validator:
            yield validator
        return
    hidden = inputs.hidden.joined(inputs.train).of if inputs.hidden else None
    votes = None
    if judge_config.spec == "neighbours":
        votes = lexical_votes(inputs.train.texts, inputs.train.labels)
    judge = make_judge(judge_config, seed=setting.config.seed, hidden=hidden, votes=votes)
    ledger = Ledger(shared.place.own_ledger(setting.id))
    try:
        pool = ValidatorPool(judge, ledger, judge_config, seed=setting.config.seed)
        try:
            yield PoolValidator(pool, judge.name)
        finally:
            await pool.close()
    finally:
        ledger.close()
