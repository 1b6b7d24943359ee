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
from red_ray.errors import ForgottenError
from red_ray.judges.base import question_key
from red_ray.training.asking import FAILURES, MAX_FAILURES, Asking, question_of
from red_ray.training.bootstrap import Bootstrap
from red_ray.training.ensemble import Ensemble, as_scores, nothing
from red_ray.training.gold import GoldRows
from red_ray.training.job import Estimate, TrainingJob
from red_ray.training.router_host import CandidateView, PoolView, Scores
from red_ray.types import Candidate, Iteration, Outcome, Progress, Question, Verdict

Ints = NDArray[np.int64]
T = TypeVar("T")

BUDGETS = ("budget_calls", "budget_tokens", "budget_usd")

N_DESCRIBED = 5
"""Examples from which the judge writes a label's description."""


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
        gold: rows with a known label that the judge was asked about.
        descriptions: of the labels, given ones and those that the judge wrote.
    """

    def __init__(
        self,
        job: TrainingJob,
        ensemble: Ensemble,
        asking: Asking,
        *,
        clock: Callable[[], float],
        bootstrap: Bootstrap | None = None,
    ) -> None:
        """Prepare; nobody is asked yet.

        Args:
            job: rows and configuration.
            ensemble: fitted once.
            asking: puts the questions.
            clock: wall seconds.
            bootstrap: what came before, where the run began without labelled rows.
        """
        self.stop_reason = ""
        self._job = job
        self._ensemble = ensemble
        self._asking = asking
        self._clock = clock
        self._names = job.label_names
        self._index = {name: position for position, name in enumerate(self._names)}
        self.descriptions = dict(job.descriptions)
        self.gold = GoldRows(
            ensemble.labels[: ensemble.n_seed],
            job.config.judge.gold_share,
            np.random.default_rng([job.config.seed, 4]),
            ensemble.held_first_rows[: ensemble.n_seed],
        )
        self._n_unasked = 0
        self._texts = (*job.texts, *job.pool)
        self._pool = np.arange(len(job.texts), len(self._texts))
        self._left = np.ones(len(job.pool), dtype=bool) if bootstrap is None else bootstrap.left
        self._n_before = 0 if bootstrap is None else bootstrap.n_rounds
        self._is_cold = ensemble.first.labelled_by != "user"
        self._again = [] if bootstrap is None else list(bootstrap.refused)
        self._refused = {row for row, _ in self._again}
        self._phase: Phase = "informative"
        self._n_done = 0
        self._n_in_phase = 0
        self._likelihoods: list[float] = []
        self._failures: Counter[int] = Counter()
        self._n_calibrated = len(ensemble.rows)
        self._stale = set(range(len(ensemble.subsets)))
        self._scores: list[NDArray[np.float32] | None] = [None] * len(self._stale)
        self._at_once = len(job.pool)
        self._rule = _stop_rule(job.config.loop)

    async def run(self) -> AsyncGenerator[Progress, None]:
        """Iterate to the end; each iteration comes as an event."""
        ensemble, limit = self._ensemble, self._n_before + self._rule.max_iterations
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
                judge_s = self._asking.judge_s
                async with aclosing(self._asking.ask(asked.questions, self._n_all + 1)) as steps:
                    async for step in steps:
                        yield step
                judge_s = self._asking.judge_s - judge_s
                self._n_unasked = asked.n_without(self._asking.verdicts)
                # Not before they are put: what the ledger knows is there without a budget.
                self.stop_reason = "" if self._asking.verdicts else "budget"
            if self.stop_reason:
                yield Progress("loop", self._n_all, limit, f"stopped: {self._why()}")
                return
            iteration, gained = await self._learn(view, asked)
            acquire_s = weigh_s + choose_s
            iteration = replace(iteration, score_s=score_s, acquire_s=acquire_s, judge_s=judge_s)
            yield Progress("loop", iteration.iteration, limit, "", iteration, gained)

    @property
    def _n_all(self) -> int:
        """Rounds asked so far, those before the loop among them."""
        return self._n_before + self._n_done

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
        ensemble = self._ensemble
        for row, label in zip(ensemble.rows, ensemble.labels, strict=True):
            known = examples.get(self._names[label])
            if known is not None and row < len(self._texts) and len(known) < N_DESCRIBED:
                known.append(self._texts[row])
        questions = [
            Question(name, (Candidate(name, "", tuple(examples[name])),), "describe")
            for name in missing
        ]
        async with aclosing(self._asking.ask(questions, 0)) as steps:
            async for step in steps:
                yield step
        written = {verdict.key: verdict.label for verdict in self._asking.verdicts}
        for question in questions:
            description = written.get(question_key(question, self._asking.judge_name))
            if description:
                self.descriptions[question.text] = description

    async def _questions(self, view: PoolView) -> _Asked:
        """Of the chosen texts, and of some rows whose label is known."""
        gold = self.gold.take(len(view.chosen))
        planted = await self._ensemble.crew.router.gold(gold) if len(gold) else ()
        chosen = (*view.chosen, *self._second_questions())
        questions = [self._question(one) for one in (*chosen, *planted)]
        keys = [question_key(one, self._asking.judge_name) for one in questions]
        n_chosen = len(chosen)
        return _Asked(
            chosen=dict(zip(keys, chosen, strict=False)),
            gold=dict(zip(keys[n_chosen:], planted, strict=True)),
            questions=tuple(questions),
        )

    def _second_questions(self) -> list[CandidateView]:
        """Texts that fit none of their likeliest labels, about those that lack examples.

        A name may say little of its texts: Banking77's `get_physical_card` is about PINs. No model
        without such a text would ever offer the label.
        """
        counts = np.bincount(self._ensemble.labels, minlength=len(self._names))
        again, self._again = self._again, []
        if counts.min() >= self._job.config.loop.first_examples:
            return []
        poorest = [int(label) for label in np.argsort(counts, kind="stable")]
        top_k = self._job.config.judge.top_k
        views = []
        for row, refused in again:
            labels = tuple(label for label in poorest if label not in refused)[:top_k]
            views.append(CandidateView(row, labels, tuple(map(self._some_examples, labels))))
        return [view for view in views if view.labels]

    def _some_examples(self, label: int) -> tuple[int, ...]:
        rows = self._ensemble.rows[self._ensemble.labels == label]
        return tuple(rows[: self._job.config.judge.examples_per_candidate].tolist())

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
            # Where no user labelled a row, whether the model agrees with the judge is no measure.
            log_likelihoods=self._likelihoods if self._ensemble.n_seed else (),
        )

    async def _learn(
        self, view: PoolView, asked: _Asked
    ) -> tuple[Iteration, tuple[tuple[int, str], ...]]:
        """Take in the verdicts, and refit; the times of what went before are not filled in."""
        self._asking.check_alive()
        tally = self._apply(asked)
        fit_s, touched = await self._measured(self._refit(tally))
        self._n_done += 1
        self._n_in_phase += 1
        recalibrate_s, estimate = await self._measured(self._recalibrate())
        iteration = Iteration(
            iteration=self._n_all,
            phase=self._phase,
            n_asked=len(asked.chosen.keys() & {verdict.key for verdict in self._asking.verdicts}),
            n_labelled=len(tally.rows),
            n_none=tally.outcomes[Outcome.NONE],
            n_unreadable=tally.outcomes[Outcome.UNREADABLE],
            n_failed=sum(tally.outcomes[outcome] for outcome in FAILURES),
            n_requests=sum(verdict.requests for verdict in self._asking.verdicts),
            n_cached=sum(verdict.requests == 0 for verdict in self._asking.verdicts),
            n_train=len(self._ensemble.rows),
            n_pool=int(self._left.sum()),
            experts_refitted=touched,
            mean_uncertainty=view.mean_uncertainty,
            log_likelihood=estimate.log_likelihood if estimate else None,
            estimated_accuracy=estimate.accuracy if estimate and not self._is_cold else None,
            label_precision=None,
            fit_s=fit_s,
            score_s=0.0,
            acquire_s=0.0,
            judge_s=0.0,
            recalibrate_s=recalibrate_s,
            n_gold=tally.n_gold,
            n_gold_right=tally.n_gold_right,
        )
        n_texts = len(self._job.texts)
        pairs = zip(tally.rows, tally.labels, strict=True)
        return iteration, tuple((row - n_texts, self._names[label]) for row, label in pairs)

    def _question(self, chosen: CandidateView) -> Question:
        mode = self._job.config.judge.question
        return question_of(chosen, self._names, self._texts, self.descriptions, mode)

    def _apply(self, asked: _Asked) -> _Tally:
        """Take in the verdicts in the order of their keys, so that timing changes nothing.

        A failure says nothing about its text, which stays in the pool for another try; a second
        one, or an answer that cannot be read, takes it out without a label.
        """
        tally = _Tally()
        verdicts = {verdict.key: verdict for verdict in self._asking.verdicts}
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
        self._left[chosen.row - len(self._job.texts)] = False
        if verdict.label is not None and verdict.label in self._index:
            tally.rows.append(chosen.row)
            tally.labels.append(self._index[verdict.label])
        elif verdict.outcome in (Outcome.NONE, Outcome.LABEL):
            # A person may name a label that the model does not know: none of ours fits.
            self._ensemble.refuse(chosen.row, chosen.labels)
            if self._is_cold and chosen.row not in self._refused:
                self._again.append((chosen.row, chosen.labels))
            self._refused.add(chosen.row)

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
