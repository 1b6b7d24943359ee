"""The loop: look at the whole pool, ask the judge about what is unsure, refit, stop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from red_ray.config import LoopConfig
from red_ray.core.stopping import LoopState, Phase, StopRule
from red_ray.errors import ForgottenError, JudgeUnavailable
from red_ray.judges.base import question_key
from red_ray.training.ensemble import Ensemble, as_scores, nothing
from red_ray.training.fleet import Validator
from red_ray.training.gold import GoldRows
from red_ray.training.job import Estimate, TrainingJob
from red_ray.training.router_host import CandidateView, PoolView, Scores
from red_ray.types import Candidate, Iteration, Outcome, Progress, Question, Verdict

Ints = NDArray[np.int64]
T = TypeVar("T")

FAILURES = (Outcome.TIMEOUT, Outcome.ERROR)
"""Outcomes that say nothing about a text."""

MAX_FAILURES = 2
"""Tries of a text in a run, each with its own retries, before it is set aside."""

ANSWERS = (Outcome.LABEL, Outcome.NONE)

MANY = 100
"""So many answers of which not one could be read: the next will be no better."""

BUDGETS = ("budget_calls", "budget_tokens", "budget_usd")

FEW = 5
"""So many questions may all fail by themselves; more of them mean that the judge is away."""

N_DESCRIBED = 5
"""Examples from which the judge writes a label's description."""

BACK = "the judge is back"

TOLD_S = 30.0
"""How often a round says that it still waits for a judge that is away."""

POLL_S = 1.0
"""How often a round looks how far the judge is."""


@dataclass(slots=True)
class _Tally:
    """What an iteration's verdicts came to."""

    rows: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    n_gold: int = 0
    n_gold_right: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """The questions of a round, the planted ones last, by their keys."""

    chosen: dict[str, CandidateView]
    gold: dict[str, CandidateView]
    questions: tuple[Question, ...]

    def n_without(self, verdicts: Sequence[Verdict]) -> int:
        """How many have none: the budget did not reach them."""
        return len((self.chosen.keys() | self.gold.keys()) - {one.key for one in verdicts})


class ActiveLoop:
    """Asks about the pool until a rule says stop.

    Attributes:
        stop_reason: why it stopped, empty while it runs.
        judge_s: wall seconds spent waiting for verdicts.
        gold: rows with a known label that the judge was asked about.
        descriptions: of the labels, given ones and those that the judge wrote.
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
        self._index = {name: position for position, name in enumerate(self._names)}
        self.descriptions = dict(job.descriptions)
        self.gold = GoldRows(
            ensemble.labels[: ensemble.n_seed],
            job.config.judge.gold_share,
            np.random.default_rng([job.config.seed, 4]),
            ensemble.held_seed_rows,
        )
        self._verdicts: Sequence[Verdict] = ()
        self._n_unasked = 0
        self._paused_s: float | None = None
        self._texts = (*job.texts, *job.pool)
        self._pool = np.arange(len(job.texts), len(self._texts))
        self._left = np.ones(len(job.pool), dtype=bool)
        self._phase: Phase = "informative"
        self._n_done = 0
        self._n_in_phase = 0
        self._likelihoods: list[float] = []
        self._answered = self._was_read = False
        self._n_unread = 0
        self._failures: Counter[int] = Counter()
        self._n_calibrated = len(ensemble.rows)
        self._stale = set(range(len(ensemble.subsets)))
        self._scores: list[NDArray[np.float32] | None] = [None] * len(self._stale)
        self._at_once = len(job.pool)
        self._rule = _stop_rule(job.config.loop)

    async def run(self) -> AsyncGenerator[Progress, None]:
        """Iterate to the end; each iteration comes as an event."""
        ensemble, limit = self._ensemble, self._rule.max_iterations
        if ensemble.estimate is None:
            raise RuntimeError("fit the ensemble before the loop starts")
        self._likelihoods.append(ensemble.estimate.log_likelihood)
        router = ensemble.crew.router
        self._at_once = await router.follow_pool(self._pool, ensemble.rows, ensemble.labels)
        async with aclosing(self._describe()) as steps:
            async for step in steps:
                yield step
        while True:
            score_s, weigh_s = await self._weigh_pool()
            choose_s, view = await self._measured(self._view())
            self.stop_reason = self._rule.reason(self._state(view)) or ""
            if self.stop_reason and self._n_unasked:
                self.stop_reason = "budget"  # with more of it the rule had seen another model
            if not self.stop_reason:
                asked = await self._questions(view)
                judge_s = self.judge_s
                async with aclosing(self._ask(asked.questions, self._n_done + 1)) as steps:
                    async for step in steps:
                        yield step
                judge_s = self.judge_s - judge_s
                self._n_unasked = asked.n_without(self._verdicts)
                # Not before they are put: what the ledger knows is there without a budget.
                self.stop_reason = "" if self._verdicts else "budget"
            if self.stop_reason:
                yield Progress("loop", self._n_done, limit, f"stopped: {self._why()}")
                return
            iteration, gained = await self._learn(view, asked)
            acquire_s = weigh_s + choose_s
            iteration = replace(iteration, score_s=score_s, acquire_s=acquire_s, judge_s=judge_s)
            yield Progress("loop", iteration.iteration, limit, "", iteration, gained)

    def _why(self) -> str:
        """The reason, and what to do about it."""
        if self.stop_reason != "budget":
            return self.stop_reason
        config = self._job.config.judge
        limits = ((name, getattr(config, name)) for name in BUDGETS)
        told = " or ".join(f"judge.{name}={limit!r}" for name, limit in limits if limit is not None)
        left = f", {self._n_unasked} questions of the round left unasked" if self._n_unasked else ""
        if not told:
            return f"budget{left}"
        return f"budget{left}; raise {told} for more: `red-ray resume` takes it by --set"

    async def _describe(self) -> AsyncGenerator[Progress, None]:
        """Have the judge describe the labels that nobody described; once, by the ledger."""
        missing = [name for name in self._names if name not in self.descriptions]
        if not self._job.config.judge.describe_labels or not missing:
            return
        examples: dict[str, list[str]] = {name: [] for name in missing}
        for text, label in zip(self._job.texts, self._job.labels, strict=True):
            if label in examples and len(examples[label]) < N_DESCRIBED:
                examples[label].append(text)
        questions = [
            Question(name, (Candidate(name, "", tuple(examples[name])),), "describe")
            for name in missing
        ]
        async with aclosing(self._ask(questions, 0)) as steps:
            async for step in steps:
                yield step
        written = {verdict.key: verdict.label for verdict in self._verdicts}
        for question in questions:
            description = written.get(question_key(question, self._validator.judge_name))
            if description:
                self.descriptions[question.text] = description

    async def _ask(
        self, questions: Sequence[Question], round_number: int
    ) -> AsyncGenerator[Progress, None]:
        """Put the questions of a round, telling how far it is; leaves `_verdicts`."""
        start, told = self._clock(), Progress("judge", 0, len(questions))
        yield told
        asking = asyncio.ensure_future(self._validator.validate(questions, round_number))
        try:
            while not (await asyncio.wait({asking}, timeout=POLL_S))[0]:
                step = await self._how_far(len(questions), told)
                if step != told:
                    yield step
                told = step
            self._verdicts = await asking
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        self.judge_s += self._clock() - start

    async def _how_far(self, n_asked: int, told: Progress) -> Progress:
        stats = await self._validator.stats()
        if stats is None:
            return told
        n_done = max(0, n_asked - stats.waiting - stats.in_flight)
        if stats.notice:
            return Progress("judge", n_done, n_asked, self._waiting(stats.notice))
        self._paused_s = None
        return Progress("judge", n_done, n_asked, BACK if told.message not in ("", BACK) else "")

    def _waiting(self, notice: str) -> str:
        """A pause as it is told: anew now and then."""
        now_s = self._clock()
        self._paused_s = now_s if self._paused_s is None else self._paused_s
        times = int((now_s - self._paused_s) / TOLD_S)
        if not times:
            return notice
        return (
            f"{notice}; for {times * TOLD_S:.0f} s now. Ctrl-C stops the run, and `red-ray resume` "
            "goes on with it"
        )

    async def _questions(self, view: PoolView) -> _Asked:
        """Of the chosen texts, and of some rows whose label is known."""
        gold = self.gold.take(len(view.chosen))
        planted = await self._ensemble.crew.router.gold(gold) if len(gold) else ()
        questions = [self._question(one) for one in (*view.chosen, *planted)]
        keys = [question_key(one, self._validator.judge_name) for one in questions]
        n_chosen = len(view.chosen)
        return _Asked(
            chosen=dict(zip(keys, view.chosen, strict=False)),
            gold=dict(zip(keys[n_chosen:], planted, strict=True)),
            questions=tuple(questions),
        )

    async def _weigh_pool(self) -> tuple[float, float]:
        """Have the whole pool scored and weighed, some texts at a time; the seconds of each."""
        score_s = weigh_s = 0.0
        for first in range(0, len(self._pool), self._at_once):
            scoring = self._score(self._pool[first : first + self._at_once])
            seconds, scores = await self._measured(scoring)
            score_s += seconds
            weighing = self._ensemble.crew.router.weigh(first, scores)
            weigh_s += (await self._measured(weighing))[0]
        self._stale.clear()
        return score_s, weigh_s

    async def _score(self, rows: Ints) -> Scores:
        """Scores of some of the pool; where they are all, only the experts that changed are asked.

        Those of a pool that is weighed in parts are not kept: they would fill the memory.
        """
        crew, whole = self._ensemble.crew, len(rows) == len(self._pool)
        asked = sorted(self._stale) if whole else range(len(crew.experts))
        gate, *scored = await asyncio.gather(
            crew.gate.score(rows) if crew.gate is not None else nothing(),
            *(crew.experts[position].score(rows) for position in asked),
        )
        if not whole:
            return as_scores([gate, *scored])
        for position, scores in zip(asked, scored, strict=True):
            self._scores[position] = scores
        return as_scores([gate, *self._scores])

    async def _view(self) -> PoolView:
        view = await self._viewed(self._phase)
        phase = self._rule.next_phase(self._state(view))
        if phase == self._phase:
            return view
        self._phase, self._n_in_phase = phase, 0
        return await self._viewed(phase)

    async def _viewed(self, phase: Phase) -> PoolView:
        router = self._ensemble.crew.router
        try:
            return await router.view_pool(self._left, phase, self._n_done)
        except ForgottenError:  # the router was lost since the pool was weighed
            await self._weigh_pool()
        return await router.view_pool(self._left, phase, self._n_done)

    def _state(self, view: PoolView) -> LoopState:
        return LoopState(
            iteration=self._n_done,
            phase=self._phase,
            iterations_in_phase=self._n_in_phase,
            n_informative=view.n_informative,
            n_predicted=view.n_predicted,
            log_likelihoods=self._likelihoods,
        )

    async def _learn(
        self, view: PoolView, asked: _Asked
    ) -> tuple[Iteration, tuple[tuple[int, str], ...]]:
        """Take in the verdicts, and refit; the times of what went before are not filled in."""
        self._check_alive(self._verdicts)
        tally = self._apply(asked)
        fit_s, touched = await self._measured(self._refit(tally))
        self._n_done += 1
        self._n_in_phase += 1
        recalibrate_s, estimate = await self._measured(self._recalibrate())
        iteration = Iteration(
            iteration=self._n_done,
            phase=self._phase,
            n_asked=len(asked.chosen.keys() & {verdict.key for verdict in self._verdicts}),
            n_labelled=len(tally.rows),
            n_none=tally.outcomes[Outcome.NONE],
            n_unreadable=tally.outcomes[Outcome.UNREADABLE],
            n_failed=sum(tally.outcomes[outcome] for outcome in FAILURES),
            n_requests=sum(verdict.requests for verdict in self._verdicts),
            n_cached=sum(verdict.requests == 0 for verdict in self._verdicts),
            n_train=len(self._ensemble.rows),
            n_pool=int(self._left.sum()),
            experts_refitted=touched,
            mean_uncertainty=view.mean_uncertainty,
            log_likelihood=estimate.log_likelihood if estimate else None,
            estimated_accuracy=estimate.accuracy if estimate else None,
            label_precision=None,
            fit_s=fit_s,
            score_s=0.0,
            acquire_s=0.0,
            judge_s=0.0,
            recalibrate_s=recalibrate_s,
            n_gold=tally.n_gold,
            n_gold_right=tally.n_gold_right,
        )
        n_seed = self._ensemble.n_seed
        pairs = zip(tally.rows, tally.labels, strict=True)
        return iteration, tuple((row - n_seed, self._names[label]) for row, label in pairs)

    def _check_alive(self, verdicts: Sequence[Verdict]) -> None:
        """Stop where a judge is away, or of no use, by more than a few questions."""
        failed = [one for one in verdicts if one.outcome in FAILURES]
        unread = [one for one in verdicts if one.outcome is Outcome.UNREADABLE]
        self._n_unread += len(unread)
        self._was_read = self._was_read or any(one.outcome in ANSWERS for one in verdicts)
        self._answered = self._answered or len(failed) < len(verdicts)
        if unread and self._n_unread >= MANY and not self._was_read:
            raise JudgeUnavailable(
                f"none of the judge's {self._n_unread} answers could be read ({unread[0].error}); "
                "ask another model, or raise judge.max_answer_tokens, and train again "
                "with --overwrite"
            )
        if not failed or len(failed) < len(verdicts):
            return
        if not self._answered or len(failed) > FEW:
            raise JudgeUnavailable(
                f"the judge gave no answer to any of {len(failed)} questions ({failed[0].error}); "
                "what it answered before is kept: `red-ray resume` goes on when it is back"
            )

    def _question(self, chosen: CandidateView) -> Question:
        candidates = tuple(
            Candidate(
                label=self._names[label],
                description=self.descriptions.get(self._names[label], ""),
                examples=tuple(self._texts[row] for row in rows),
            )
            for label, rows in zip(chosen.labels, chosen.examples, strict=True)
        )
        return Question(self._texts[chosen.row], candidates, self._job.config.judge.question)

    def _apply(self, asked: _Asked) -> _Tally:
        """Take in the verdicts in the order of their keys, so that timing changes nothing.

        A failure says nothing about its text, which stays in the pool for another try; a second
        one, or an answer that cannot be read, takes it out without a label.
        """
        tally = _Tally()
        verdicts = {verdict.key: verdict for verdict in self._verdicts}
        tally.n_gold, tally.n_gold_right = self.gold.count(
            list(asked.gold.values()), [verdicts.get(key) for key in asked.gold], self._index
        )
        for key in sorted(verdicts.keys() & asked.chosen.keys()):
            self._take_in(verdicts[key], asked.chosen[key], tally)
        return tally

    def _take_in(self, verdict: Verdict, chosen: CandidateView, tally: _Tally) -> None:
        tally.outcomes[verdict.outcome] += 1
        if verdict.outcome in FAILURES:
            self._failures[chosen.row] += 1
            if self._failures[chosen.row] < MAX_FAILURES:
                return
        self._left[chosen.row - self._ensemble.n_seed] = False
        if verdict.label is not None and verdict.label in self._index:
            tally.rows.append(chosen.row)
            tally.labels.append(self._index[verdict.label])
        elif verdict.outcome in (Outcome.NONE, Outcome.LABEL):
            # A person may name a label that the model does not know: none of ours fits.
            self._ensemble.refuse(chosen.row, chosen.labels)

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
