"""The loop: look at the whole pool, ask the judge about what is unsure, refit, stop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from red_ray.config import LoopConfig
from red_ray.core.stopping import LoopState, Phase, StopRule
from red_ray.errors import JudgeUnavailable
from red_ray.judges.base import question_key
from red_ray.training.ensemble import Ensemble, as_scores, nothing
from red_ray.training.fleet import Validator
from red_ray.training.job import Estimate, TrainingJob
from red_ray.training.router_host import CandidateView, PoolView, Scores
from red_ray.types import Candidate, Iteration, Outcome, Progress, Question, Verdict

T = TypeVar("T")

FAILURES = (Outcome.TIMEOUT, Outcome.ERROR)
"""Outcomes that say nothing about a text."""

MAX_FAILURES = 2
"""Tries of a text in a run, each with its own retries, before it is set aside."""

FEW = 5
"""So many questions may all fail by themselves; more of them mean that the judge is away."""


@dataclass(slots=True)
class _Tally:
    """What an iteration's verdicts came to."""

    rows: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    outcomes: Counter[Outcome] = field(default_factory=Counter)


class ActiveLoop:
    """Asks about the pool until a rule says stop.

    Attributes:
        stop_reason: why it stopped, empty while it runs.
        judge_s: wall seconds spent waiting for verdicts.
    """

    def __init__(
        self,
        job: TrainingJob,
        ensemble: Ensemble,
        validator: Validator,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.stop_reason = ""
        self.judge_s = 0.0
        self._job = job
        self._ensemble = ensemble
        self._validator = validator
        self._clock = clock
        self._names = job.label_names
        self._texts = (*job.texts, *job.pool)
        self._pool = np.arange(len(job.texts), len(self._texts))
        self._left = np.ones(len(job.pool), dtype=bool)
        self._phase: Phase = "informative"
        self._n_done = 0
        self._n_in_phase = 0
        self._likelihoods: list[float] = []
        self._answered = False
        self._failures: Counter[int] = Counter()
        self._n_calibrated = len(ensemble.rows)
        self._stale = set(range(len(ensemble.subsets)))
        self._scores: list[NDArray[np.float32] | None] = [None] * len(self._stale)
        self._rule = _stop_rule(job.config.loop)

    async def run(self) -> AsyncIterator[Progress]:
        """Iterate to the end; each iteration comes as an event."""
        ensemble, limit = self._ensemble, self._rule.max_iterations
        if ensemble.estimate is None:
            raise RuntimeError("fit the ensemble before the loop starts")
        self._likelihoods.append(ensemble.estimate.log_likelihood)
        await ensemble.crew.router.follow_pool(self._pool, ensemble.rows, ensemble.labels)
        while True:
            score_s, scores = await self._measured(self._score_pool())
            acquire_s, view = await self._measured(self._view(scores))
            self.stop_reason = await self._stop_before_next(view) or ""
            if self.stop_reason:
                yield Progress("loop", self._n_done, limit, f"stopped: {self.stop_reason}")
                return
            yield Progress("judge", 0, len(view.chosen))
            iteration, gained = await self._iterate(view, score_s, acquire_s)
            yield Progress("loop", iteration.iteration, limit, "", iteration, gained)

    async def _score_pool(self) -> Scores:
        """Scores of the whole pool; of the experts, only those that changed are asked again."""
        stale, crew = sorted(self._stale), self._ensemble.crew
        scored = await asyncio.gather(
            crew.gate.score(self._pool) if crew.gate is not None else nothing(),
            *(crew.experts[position].score(self._pool) for position in stale),
        )
        for position, scores in zip(stale, scored[1:], strict=True):
            self._scores[position] = scores
        self._stale.clear()
        return as_scores([scored[0], *self._scores])

    async def _view(self, scores: Scores) -> PoolView:
        router = self._ensemble.crew.router
        view = await router.view_pool(self._left, scores, self._phase, self._n_done)
        phase = self._rule.next_phase(self._state(view, budget_left=True))
        if phase == self._phase:
            return view
        self._phase, self._n_in_phase = phase, 0
        return await router.view_pool(self._left, scores, phase, self._n_done)

    def _state(self, view: PoolView, *, budget_left: bool) -> LoopState:
        return LoopState(
            iteration=self._n_done,
            phase=self._phase,
            iterations_in_phase=self._n_in_phase,
            n_informative=view.n_informative,
            n_predicted=view.n_predicted,
            budget_left=budget_left,
            log_likelihoods=self._likelihoods,
        )

    async def _stop_before_next(self, view: PoolView) -> str | None:
        exhausted = await self._validator.exhausted()
        return self._rule.reason(self._state(view, budget_left=not exhausted))

    async def _iterate(
        self, view: PoolView, score_s: float, acquire_s: float
    ) -> tuple[Iteration, tuple[tuple[int, str], ...]]:
        questions = [self._question(chosen) for chosen in view.chosen]
        judge_s, verdicts = await self._measured(self._validator.validate(questions))
        self._check_alive(verdicts)
        self.judge_s += judge_s
        tally = self._apply(view, questions, verdicts)
        fit_s, touched = await self._measured(self._refit(tally))
        self._n_done += 1
        self._n_in_phase += 1
        recalibrate_s, estimate = await self._measured(self._recalibrate())
        iteration = Iteration(
            iteration=self._n_done,
            phase=self._phase,
            n_asked=len(questions),
            n_labelled=len(tally.rows),
            n_none=tally.outcomes[Outcome.NONE],
            n_unreadable=tally.outcomes[Outcome.UNREADABLE],
            n_failed=sum(tally.outcomes[outcome] for outcome in FAILURES),
            n_requests=sum(verdict.requests for verdict in verdicts),
            n_cached=sum(verdict.requests == 0 for verdict in verdicts),
            n_train=len(self._ensemble.rows),
            n_pool=int(self._left.sum()),
            experts_refitted=touched,
            mean_uncertainty=view.mean_uncertainty,
            log_likelihood=estimate.log_likelihood if estimate else None,
            estimated_accuracy=estimate.accuracy if estimate else None,
            label_precision=None,
            fit_s=fit_s,
            score_s=score_s,
            acquire_s=acquire_s,
            judge_s=judge_s,
            recalibrate_s=recalibrate_s,
        )
        n_seed = self._ensemble.n_seed
        pairs = zip(tally.rows, tally.labels, strict=True)
        return iteration, tuple((row - n_seed, self._names[label]) for row, label in pairs)

    def _check_alive(self, verdicts: Sequence[Verdict]) -> None:
        """Stop where a judge is away: it failed on every question, and on more than a few."""
        failed = [one for one in verdicts if one.outcome in FAILURES]
        self._answered = self._answered or len(failed) < len(verdicts)
        if not failed or len(failed) < len(verdicts):
            return
        if not self._answered or len(failed) > FEW:
            raise JudgeUnavailable(
                f"the judge gave no answer to any of {len(failed)} questions ({failed[0].error}); "
                "what it answered before is kept: run the same command again when it is back"
            )

    def _question(self, chosen: CandidateView) -> Question:
        descriptions = self._job.descriptions
        candidates = tuple(
            Candidate(
                label=self._names[label],
                description=descriptions.get(self._names[label], ""),
                examples=tuple(self._texts[row] for row in rows),
            )
            for label, rows in zip(chosen.labels, chosen.examples, strict=True)
        )
        return Question(self._texts[chosen.row], candidates, self._job.config.judge.question)

    def _apply(
        self, view: PoolView, questions: Sequence[Question], verdicts: Sequence[Verdict]
    ) -> _Tally:
        """Take in the verdicts in the order of their keys, so that timing changes nothing.

        A failure says nothing about its text, which stays in the pool for another try; a second
        one, or an answer that cannot be read, takes it out without a label.
        """
        judge_name = self._validator.judge_name
        keys = [question_key(question, judge_name) for question in questions]
        asked = dict(zip(keys, view.chosen, strict=True))
        index = {name: position for position, name in enumerate(self._names)}
        tally = _Tally()
        for verdict in sorted(verdicts, key=lambda verdict: verdict.key):
            chosen = asked[verdict.key]
            tally.outcomes[verdict.outcome] += 1
            if verdict.outcome in FAILURES:
                self._failures[chosen.row] += 1
                if self._failures[chosen.row] < MAX_FAILURES:
                    continue
            self._left[chosen.row - self._ensemble.n_seed] = False
            if verdict.outcome is Outcome.LABEL and verdict.label is not None:
                tally.rows.append(chosen.row)
                tally.labels.append(index[verdict.label])
            elif verdict.outcome is Outcome.NONE:
                self._ensemble.refuse(chosen.row, chosen.labels)
        return tally

    async def _refit(self, tally: _Tally) -> tuple[int, ...]:
        """Refit the gate and only the experts whose own labels gained a row."""
        if not tally.rows:
            return ()
        rows = np.array(tally.rows, dtype=np.int64)
        labels = np.array(tally.labels, dtype=np.int64)
        touched = self._ensemble.add(rows, labels)
        self._stale.update(touched)
        router = self._ensemble.crew.router
        await asyncio.gather(self._ensemble.fit(touched), router.learn(rows, labels))
        return touched

    async def _recalibrate(self) -> Estimate | None:
        """Refit the router every few iterations: its few weights move slowly.

        Not where no row was gained since: the same model measured again would be a plateau.
        """
        n_rows = len(self._ensemble.rows)
        due = self._n_done % self._job.config.loop.recalibrate_every == 0
        if not due or n_rows == self._n_calibrated:
            return None
        self._n_calibrated = n_rows
        estimate = await self._ensemble.calibrate()
        self._likelihoods.append(estimate.log_likelihood)
        return estimate

    async def _measured(self, work: Awaitable[T]) -> tuple[float, T]:
        start = self._clock()
        result = await work
        return self._clock() - start, result


def _stop_rule(config: LoopConfig) -> StopRule:
    return StopRule(
        stop_mode=config.stop_mode,
        max_iterations=config.max_iterations,
        all_predicted_iterations=config.all_predicted_iterations,
        plateau_patience=config.plateau_patience,
        plateau_min_gain=config.plateau_min_gain,
    )
