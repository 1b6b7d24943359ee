"""Puts the questions of a round to the judge, and notices where that is of no use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from red_ray.errors import JudgeUnavailable
from red_ray.training.fleet import Validator
from red_ray.training.router_host import CandidateView
from red_ray.types import Candidate, Outcome, Progress, Question, Verdict

FAILURES = (Outcome.TIMEOUT, Outcome.ERROR)
"""Outcomes that say nothing about a text."""

ANSWERS = (Outcome.LABEL, Outcome.NONE)

MAX_FAILURES = 2
"""Tries of a text in a run, each with its own retries, before it is set aside."""

MANY = 100
"""So many answers of which not one could be read: the next will be no better."""

FEW = 5
"""So many questions may all fail by themselves; more of them mean that the judge is away."""

BACK = "the judge is back"

TOLD_S = 30.0
"""How often a round says that it still waits for a judge that is away."""

POLL_S = 1.0
"""How often a round looks how far the judge is."""


class Asking:
    """One run's questions, round by round.

    Attributes:
        verdicts: of the round asked last, in any order.
        judge_s: wall seconds spent waiting for verdicts.
    """

    def __init__(self, validator: Validator, *, clock: Callable[[], float]) -> None:
        self.verdicts: Sequence[Verdict] = ()
        self.judge_s = 0.0
        self._validator = validator
        self._clock = clock
        self._answered = self._was_read = False
        self._n_unread = 0
        self._paused_s: float | None = None

    @property
    def judge_name(self) -> str:
        """Part of every question's key."""
        return self._validator.judge_name

    async def ask(
        self, questions: Sequence[Question], round_number: int
    ) -> AsyncGenerator[Progress, None]:
        """Put the questions of a round, telling how far it is; leaves `verdicts`."""
        start, told = self._clock(), Progress("judge", 0, len(questions))
        yield told
        asking = asyncio.ensure_future(self._validator.validate(questions, round_number))
        try:
            while not (await asyncio.wait({asking}, timeout=POLL_S))[0]:
                step = await self._how_far(len(questions), told)
                if step != told:
                    yield step
                told = step
            self.verdicts = await asking
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        self.judge_s += self._clock() - start

    def check_alive(self) -> None:
        """Stop where a judge is away, or of no use, by more than a few questions.

        Raises:
            JudgeUnavailable: it is.
        """
        verdicts = self.verdicts
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


def question_of(
    view: CandidateView,
    names: Sequence[str],
    texts: Sequence[str],
    descriptions: Mapping[str, str],
    mode: str,
) -> Question:
    """The question about a text, with what is known of its candidates.

    Args:
        view: the text's row, its candidates and their examples' rows.
        names: of the labels.
        texts: of all rows but those that stand for a label's name.
        descriptions: of labels, by name.
        mode: see `Question`.
    """
    options = tuple(
        Candidate(
            label=names[label],
            description=descriptions.get(names[label], ""),
            examples=tuple(texts[row] for row in rows if row < len(texts)),
        )
        for label, rows in zip(view.labels, view.examples, strict=True)
    )
    return Question(texts[view.row], options, mode)
