"""Drives a run from rows to a model: encode, partition, fit, loop, final refit.

A plain async class that holds no model. Its workers may be threads of this process or actors of
a cluster: it only awaits what they are asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from time import perf_counter
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from red_ray.config import ExpertKind
from red_ray.core.partition import (
    enough_labels_for_umap,
    label_embeddings,
    partition,
    unit_rows,
)
from red_ray.errors import DataError
from red_ray.experts import ExpertSpec
from red_ray.model import RedModel, expert_name
from red_ray.training.asking import Asking
from red_ray.training.bootstrap import Bootstrap
from red_ray.training.disputes import disputed
from red_ray.training.ensemble import Ensemble, FirstRows
from red_ray.training.fleet import Fleet, Validator
from red_ray.training.job import Estimate, Paraphrase, Trained, TrainingJob
from red_ray.training.loop import ActiveLoop
from red_ray.training.paraphrases import Paraphrasing, Written
from red_ray.training.tuned import TunedEncoders
from red_ray.types import Iteration, Progress

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Strategy = Literal["similar", "dissimilar", "random"]
T = TypeVar("T")

POLL_S = 1.0
"""How often it is looked how far a fit is."""

_AUTO: tuple[Strategy, ...] = ("similar", "dissimilar")

logger = logging.getLogger(__name__)


class Trainer:
    """One run over one job."""

    def __init__(
        self,
        job: TrainingJob,
        fleet: Fleet,
        validator: Validator | None = None,
        *,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """Prepare a run; nothing is computed yet.

        Args:
            job: rows and configuration.
            fleet: where the workers live.
            validator: asks the judge; None trains on the labelled rows alone.
            clock: wall seconds.
        """
        self._job = job
        self._config = job.config
        self._fleet = fleet
        self._asking = None if validator is None else Asking(validator, clock=clock)
        self._clock = clock
        self._names = job.label_names
        self._texts = (*job.texts, *job.pool)
        self._tuned: TunedEncoders | None = None
        self._writing: Paraphrasing | None = None
        self._written: Written | None = None
        self._timing: dict[str, float] = {}
        self._iterations: list[Iteration] = []
        self._trained: Trained | None = None

    async def run(self) -> AsyncIterator[Progress]:
        """Run to the end; the steps come as events, the result is in `result` afterwards.

        Raises:
            DataError: the judge found no examples to begin with.
        """
        yield Progress("encode", 0, len(self._texts), f"{len(self._texts):,} texts")
        vectors, names, labels = await self._timed("encode", self._encode())
        bootstrap = self._bootstrap(vectors, names)
        if bootstrap is not None:
            async with aclosing(bootstrap.run()) as steps:
                async for event in steps:
                    yield self._kept(event)
            vectors = np.concatenate([vectors, names])
            self._texts += tuple(self._job.described())
        first = self._first_rows(labels, bootstrap)
        async with aclosing(self._write(first, bootstrap)) as steps:
            async for event in steps:
                yield event
        vectors = await self._with_written(vectors)
        self._tuned = self._tuning()
        yield Progress("partition", 0, 1, self._about_labels(first))
        ensemble, strategy = await self._timed("start", self._open(vectors, names, first))
        if bootstrap is not None:
            ensemble.refuse_all(bootstrap.refused)
        yield Progress("fit", 0, 1, self._about_experts(ensemble, strategy))
        async with aclosing(self._full_fit(ensemble)) as steps:
            async for event in steps:
                yield event
        before = estimate = ensemble.known_estimate
        yield Progress("calibrate", 1, 1, _about(ensemble, estimate))
        loop = self._loop(ensemble, bootstrap)
        if loop is not None:
            async with aclosing(loop.run()) as steps:
                async for event in steps:
                    yield self._kept(event)
            yield Progress("final", 0, 1, "full refit with new noise")
            async with aclosing(self._full_fit(ensemble)) as steps:
                async for event in steps:
                    yield event
            estimate = ensemble.known_estimate
        if self._asking is not None:
            self._timing["judge_wait"] = self._asking.judge_s
        self._trained = await self._export(ensemble, (before, estimate), strategy, loop)
        yield Progress("final", 1, 1, _about(ensemble, estimate))

    async def _full_fit(self, ensemble: Ensemble) -> AsyncGenerator[Progress, None]:
        """Fit everything, telling of the fine-tunings, which take minutes."""
        fitting = asyncio.ensure_future(self._timed("fit", ensemble.full_fit()))
        total, told = self._config.router.folds + 1, 0
        try:
            while not (await asyncio.wait({fitting}, timeout=POLL_S))[0]:
                n_done = 0 if self._tuned is None else self._tuned.n_done
                if n_done not in (0, told):
                    yield Progress("fit", n_done, total, f"{n_done} of {total} fine-tunings done")
                told = n_done
            await fitting
        finally:
            fitting.cancel()
            await asyncio.gather(fitting, return_exceptions=True)

    def _bootstrap(self, vectors: Floats, names: Floats) -> Bootstrap | None:
        """What finds the first examples, where labels are known by their names alone."""
        if self._asking is None or set(self._names) <= set(self._job.labels):
            return None
        return Bootstrap(self._job, vectors, names, self._asking, clock=self._clock)

    async def _write(
        self, first: FirstRows, bootstrap: Bootstrap | None
    ) -> AsyncGenerator[Progress, None]:
        """Have the judge say examples in other words, where it shall."""
        if self._asking is None or not self._config.judge.paraphrases:
            return
        n_texts = len(first.rows) - first.n_named
        rows, labels = first.rows[:n_texts], first.labels[:n_texts]
        n_before = 0 if bootstrap is None else bootstrap.n_rounds
        writing = Paraphrasing(self._job, rows, labels, self._asking, round_number=n_before + 1)
        async with aclosing(writing.run()) as steps:
            async for event in steps:
                yield event
        self._writing = writing if writing.texts else None

    async def _with_written(self, vectors: Floats) -> Floats:
        """The vectors with those of what the judge wrote, behind the ones of all texts."""
        writing = self._writing
        if writing is None:
            return vectors
        encoded = await self._timed("encode", self._fleet.encode(writing.texts))
        self._written = Written(
            rows=len(vectors) + np.arange(len(encoded)),
            labels=writing.labels,
            sources=writing.sources,
            weight=self._config.judge.paraphrase_weight,
        )
        return np.concatenate([vectors, encoded])

    def _tuning(self) -> TunedEncoders | None:
        """What SetFit experts look at the texts with, and at what the judge wrote."""
        if self._config.expert.kind != "setfit":
            return None
        written = () if self._writing is None else self._writing.texts
        texts, described = (*self._texts, *written), self._job.described()
        return TunedEncoders(self._config, self._fleet, texts, described)

    def _loop(self, ensemble: Ensemble, bootstrap: Bootstrap | None) -> ActiveLoop | None:
        if self._asking is None or not self._job.pool:
            return None
        return ActiveLoop(self._job, ensemble, self._asking, clock=self._clock, bootstrap=bootstrap)

    def _kept(self, event: Progress) -> Progress:
        if event.iteration is not None:
            self._iterations.append(event.iteration)
        return event

    def _first_rows(self, labels: Ints, bootstrap: Bootstrap | None) -> FirstRows:
        """The rows of the job, those that the judge found, and names where it found none."""
        rows = np.arange(len(labels))
        if bootstrap is None:
            missing = set(self._names) - set(self._job.labels)
            if missing:
                raise DataError(f"{len(missing)} labels have no row, and no judge finds them any")
            return FirstRows(rows, labels, self._job.n_seed)
        rows = np.concatenate([rows, bootstrap.rows])
        labels = np.concatenate([labels, bootstrap.labels])
        if not len(labels) or np.bincount(labels).max() < 2:
            raise DataError(
                f"the judge found {len(labels)} examples and none of the {len(self._names)} labels "
                "has two, so nothing can be held back to fit the router; raise judge.budget_calls, "
                "or describe the labels"
            )
        named = np.setdiff1d(np.arange(len(self._names)), labels)
        first_name = len(self._job.texts) + len(self._job.pool)
        return FirstRows(
            np.concatenate([rows, first_name + named]),
            np.concatenate([labels, named]),
            self._job.n_seed,
            len(named),
        )

    def result(self) -> Trained:
        """What the run ended with.

        Raises:
            RuntimeError: the run has not ended.
        """
        if self._trained is None:
            raise RuntimeError("the run has not ended")
        return self._trained

    def _about_labels(self, first: FirstRows) -> str:
        told = self._about_partition()
        if not first.n_named:
            return told
        names = [self._names[label] for label in first.labels[len(first.labels) - first.n_named :]]
        words = "label has" if len(names) == 1 else "labels have"
        return f"{told}; {len(names)} {words} no example but the name: {', '.join(names)}"

    def _about_partition(self) -> str:
        n_labels, n_dims = len(self._names), self._config.partition.umap_dim
        if n_dims is None or self._config.partition.strategy == "random":
            return f"{n_labels} labels"
        fits = enough_labels_for_umap(n_labels, n_dims)
        return f"{n_labels} labels, {'reduced by' if fits else 'too few for'} UMAP to {n_dims}"

    def _about_experts(self, ensemble: Ensemble, strategy: str) -> str:
        told = f"{len(ensemble.subsets)} experts, {strategy} labels together"
        if self._tuned is None:
            return told
        return f"{told}; {self._config.router.folds + 1} fine-tunings first, minutes each"

    async def _encode(self) -> tuple[Floats, Floats, Ints]:
        """Vectors of all texts, vectors of the labels' descriptions, labels of the seed rows."""
        vectors = await self._fleet.encode([*self._texts, *self._job.described()])
        index = {name: position for position, name in enumerate(self._names)}
        labels = np.array([index[label] for label in self._job.labels], dtype=np.int64)
        n_texts = len(self._texts)
        return vectors[:n_texts], vectors[n_texts:], labels

    async def _open(self, vectors: Floats, names: Floats, first: FirstRows) -> tuple[Ensemble, str]:
        """Place the workers of the chosen partition; `auto` tries two by their likelihood."""
        points = label_embeddings(vectors[first.rows], first.labels, names)
        wanted = self._config.partition.strategy
        if wanted != "auto":
            return await self._open_partition(wanted, points, vectors, first), wanted
        tried: dict[Strategy, float] = {}
        for strategy in _AUTO:
            ensemble = await self._open_partition(strategy, points, vectors, first)
            tried[strategy] = (await ensemble.full_fit()).log_likelihood
        best = max(_AUTO, key=lambda strategy: tried[strategy])
        logger.info("partition_chosen", extra={"strategy": best, "log_likelihoods": tried})
        if best != _AUTO[-1]:
            ensemble = await self._open_partition(best, points, vectors, first)
        return ensemble, f"auto ({best})"

    async def _open_partition(
        self, strategy: Strategy, points: Floats, vectors: Floats, first: FirstRows
    ) -> Ensemble:
        config = self._config.partition
        if config.umap_dim and strategy != "random":
            points = await self._reduced(points, config.umap_dim)
        subsets = partition(
            points,
            subset_size=config.subset_size,
            strategy=strategy,
            rng=np.random.default_rng([self._config.seed, 0]),
        )
        crew = await self._fleet.open(
            self._config, vectors, self._texts, subsets, self._expert_specs(subsets), self._gate()
        )
        return Ensemble(self._config, crew, subsets, vectors, first, self._tuned, self._written)

    async def _reduced(self, points: Floats, n_dims: int) -> Floats:
        if not enough_labels_for_umap(len(points), n_dims):
            logger.info("umap_skipped", extra={"n_labels": len(points), "n_dims": n_dims})
            return points
        reduced = await self._fleet.reduce(points, n_dims, self._config.seed)
        return unit_rows(reduced - reduced.mean(axis=0))

    def _expert_specs(self, subsets: tuple[tuple[int, ...], ...]) -> list[ExpertSpec]:
        return [
            ExpertSpec(
                name=f"{expert_name(position)}: {', '.join(self._names[i] for i in subset)}",
                labels=subset,
                kind=self._config.expert.kind,
                seed=self._config.seed + position,
            )
            for position, subset in enumerate(subsets)
        ]

    def _gate(self) -> ExpertSpec | None:
        if not self._config.router.gate:
            return None
        n_labels = len(self._names)
        everything = tuple(range(n_labels))
        name = f"gate: {n_labels} labels"
        # A forest over all labels would be no better, and slow; a fine-tuned encoder is: on
        # Banking77 at 10 per label 86.8 % instead of 86.2 with a gate over the plain vectors.
        kind: ExpertKind = "logistic_regression" if self._tuned is None else "setfit"
        return ExpertSpec(name, everything, kind=kind, seed=self._config.seed)

    async def _export(
        self,
        ensemble: Ensemble,
        estimates: tuple[Estimate, Estimate],
        strategy: str,
        loop: ActiveLoop | None,
    ) -> Trained:
        crew = ensemble.crew
        parts = await crew.router.export()
        experts = await asyncio.gather(*(expert.export() for expert in crew.experts))
        model = RedModel(
            config=self._config,
            labels=self._names,
            descriptions=tuple(self._job.descriptions.get(name, "") for name in self._names),
            subsets=ensemble.subsets,
            experts=tuple(experts),
            noise_counts=ensemble.noise_counts,
            gate=await crew.gate.export() if crew.gate is not None else None,
            router=parts.router,
            risk=parts.risk,
            calibration=parts.calibration,
            example_texts=tuple(self._texts[row] for row in ensemble.rows),
            example_vectors=ensemble.vectors[ensemble.rows],
            example_labels=ensemble.labels,
            n_seed=ensemble.n_seed,
            labelled_by=ensemble.first.labelled_by,
            unseen=tuple(self._names[label] for label in ensemble.unseen),
            written_counts=ensemble.written_counts if ensemble.taught else (),
            space=parts.space,
            encoder_spec=await self._fleet.encoder_spec(),
            tuned=None if self._tuned is None else self._tuned.whole,
        )
        trained = Trained(
            model=model,
            estimate=estimates[1],
            first_estimate=estimates[0],
            iterations=tuple(self._iterations),
            stop_reason="" if loop is None else loop.stop_reason,
            timing_s=self._timing,
            strategy=strategy,
            crossfit=ensemble.crossfit(self._texts),
            n_first=len(ensemble.first.rows),
            paraphrases=self._paraphrases(ensemble),
        )
        if loop is None:
            return trained
        return await self._with_what_the_loop_found(trained, ensemble, loop)

    def _paraphrases(self, ensemble: Ensemble) -> tuple[Paraphrase, ...]:
        writing = self._writing
        if writing is None:
            return ()
        learned = {label for position in ensemble.taught for label in ensemble.subsets[position]}
        rows = zip(writing.texts, writing.labels.tolist(), writing.sources, strict=True)
        return tuple(
            Paraphrase(text, self._names[label], self._texts[source], writing.by, label in learned)
            for text, label, source in rows
        )

    async def _with_what_the_loop_found(
        self, trained: Trained, ensemble: Ensemble, loop: ActiveLoop
    ) -> Trained:
        """Add the descriptions that the judge wrote, and the labels that a person should see."""
        described = tuple(loop.descriptions.get(name, "") for name in self._names)
        model = replace(trained.model, descriptions=described)
        contradicted = await ensemble.crew.router.contradicted()
        disputes = disputed(contradicted, loop.gold.answers, ensemble, self._names, self._texts)
        return replace(trained, model=model, disputes=disputes)

    async def _timed(self, stage: str, work: Awaitable[T]) -> T:
        start = self._clock()
        result = await work
        self._timing[stage] = self._timing.get(stage, 0.0) + self._clock() - start
        return result


def _about(ensemble: Ensemble, estimate: Estimate) -> str:
    told = _about_taught(ensemble)
    if ensemble.first.labelled_by == "user":
        return f"estimated accuracy {estimate.accuracy:.1%}{told}"
    return (
        f"agrees with {estimate.accuracy:.1%} of the judge's labels, those of hard texts among "
        f"them{told}"
    )


def _about_taught(ensemble: Ensemble) -> str:
    """Which experts learn what the judge wrote; empty where it wrote nothing."""
    if not ensemble.has_written:
        return ""
    names = [expert_name(position) for position in sorted(ensemble.taught)]
    n_experts = "1 expert" if len(ensemble.subsets) == 1 else f"{len(ensemble.subsets)} experts"
    named = f" ({', '.join(names)})" if names else ""
    return f"; paraphrases kept by {len(names)} of {n_experts}{named}"
