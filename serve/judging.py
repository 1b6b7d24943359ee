"""The judge tier: what is asked about escalated texts, and what becomes of the answers."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from red_ray.errors import JudgeUnavailable, RedRayError, RunError
from red_ray.escalation import Escalator, part_of
from red_ray.types import Decision, Outcome, Question, Verdict
from serve.explain import judge_said
from serve.loaded import Loaded
from serve.schemas import Escalate, JudgeSaid
from serve.scoring import Scored
from serve.settings import JudgeTier

_log = logging.getLogger(__name__)

AWAY_WAIT_S = 0.2
"""How long a call waits for a judge that is away: the ledger may know the answer all the same."""

REOPEN_S = 5.0
"""Between two attempts to open a judge."""


class AsksDesk(Protocol):
    """The desk's side of the judge; see `serve.desk.Desk`."""

    async def open(self, run: str) -> str:
        """Open the judge of a run; its name."""

    async def validate(self, run: str, questions: Sequence[Question]) -> list[Verdict]:
        """The verdicts on some questions."""


class _Through:
    """The judge of one run, asked through the desk; see `red_ray.escalation.Asks`."""

    def __init__(self, desk: AsksDesk, run: str) -> None:
        self._desk = desk
        self._run = run
        self._opening = asyncio.Lock()
        self._failed: RedRayError | None = None
        self._failed_at = 0.0
        self.judge_name = ""

    async def open(self) -> None:
        """Open the judge where that was not done; a failure stands for some seconds.

        Raises:
            RedRayError: it cannot be asked.
        """
        clock = asyncio.get_running_loop().time
        async with self._opening:
            if self.judge_name:
                return
            if self._failed is not None and clock() - self._failed_at < REOPEN_S:
                raise self._failed.with_traceback(None)  # else each raise would lengthen it
            try:
                self.judge_name = await self._desk.open(self._run)
            except RedRayError as error:
                self._failed, self._failed_at = error, clock()
                raise

    async def validate(self, questions: Sequence[Question], round_number: int) -> Sequence[Verdict]:
        """See `Asks.validate`; all questions of an endpoint are of one round."""
        del round_number
        return await self._desk.validate(self._run, questions)


@dataclass(frozen=True, slots=True)
class Settled:
    """A decision after the judge was asked, or was not.

    `said` is None where nobody was to be asked.
    """

    decision: Decision
    said: JudgeSaid | None = None


class Judging:
    """Asks the judge about the texts of many calls, and lets none of them wait too long.

    What a call does not wait for goes on: its answer goes into the ledger, where the next call
    about the text finds it.

    Args:
        desk: holds judge and ledger.
        settings: limits.

    Attributes:
        notice: why the judge is paused, empty while it is not; set by who knows.
    """

    def __init__(self, desk: AsksDesk, settings: JudgeTier) -> None:
        self._desk = desk
        self._settings = settings
        self._asking: set[asyncio.Task[Verdict | None]] = set()
        self._of: tuple[Loaded, Escalator, _Through] | None = None
        self.notice = ""

    async def settle(
        self,
        loaded: Loaded,
        texts: Sequence[str],
        scored: Scored,
        decisions: Sequence[Decision],
        *,
        escalate: Escalate,
    ) -> list[Settled]:
        """The decisions after the judge was asked about those that are to be.

        Args:
            loaded: whose texts they are.
            texts: what was decided on.
            scored: what is known of them.
            decisions: the model's.
            escalate: which of them to ask about.
        """
        rows = [
            row
            for row, one in enumerate(decisions)
            if escalate == "always" or (escalate == "auto" and one.decision == "escalate")
        ]
        settled = [Settled(decision) for decision in decisions]
        if not rows or loaded.judge is None:
            return settled
        escalator, through = self._escalator(loaded)
        calls = {row: self._ask(escalator, through, texts[row], scored, row) for row in rows}
        open_calls = [call for call in calls.values() if call is not None]
        if open_calls:
            wait_s = AWAY_WAIT_S if self.notice else self._settings.wait_s
            await asyncio.wait(open_calls, timeout=wait_s)
        distribution = part_of(scored.assessment, np.array(rows)).distribution
        for proba, (row, call) in zip(distribution, calls.items(), strict=True):
            verdict, is_pending = self._verdict(call, loaded.judge)
            question = escalator.question_about(texts[row])
            settled[row] = Settled(
                escalator.settle(decisions[row], proba, verdict),
                judge_said(
                    loaded.judge,
                    question,
                    verdict,
                    mode=loaded.config.judge.question,
                    pending=is_pending,
                ),
            )
        return settled

    async def close(self) -> None:
        """Cancel what is under way."""
        for call in self._asking:
            call.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    @property
    def n_open(self) -> int:
        """Questions under way, those that nobody waits for among them."""
        return len(self._asking)

    def _escalator(self, loaded: Loaded) -> tuple[Escalator, _Through]:
        if self._of is None or self._of[0] is not loaded:
            config, through = loaded.config, _Through(self._desk, loaded.place)
            escalator = Escalator(loaded.model, through, config.judge, config.router.on_failure)
            self._of = loaded, escalator, through
        return self._of[1], self._of[2]

    def _ask(
        self, escalator: Escalator, through: _Through, text: str, scored: Scored, row: int
    ) -> asyncio.Task[Verdict | None] | None:
        """Begin to ask about one text; None where too many questions are open."""
        if len(self._asking) >= self._settings.open_questions:
            return None
        alone = scored.cut(row, row + 1)

        async def ask() -> Verdict | None:
            await through.open()
            return (await escalator.ask([text], alone.vectors, alone.assessment))[0]

        # In a context of its own: Serve ends all that was begun in that of a caller who went away.
        task = asyncio.create_task(ask(), context=contextvars.Context())
        self._asking.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Verdict | None]) -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be left who would look at it

    def _verdict(
        self, call: asyncio.Task[Verdict | None] | None, judge: str
    ) -> tuple[Verdict | None, bool]:
        """What came of a question, and whether it may still come."""
        if call is None or not call.done() or call.cancelled():
            if self.notice:
                return _failed(judge, JudgeUnavailable(self.notice)), False
            return None, call is not None
        error = call.exception()
        if error is None:
            return call.result(), False
        if not isinstance(error, RedRayError):
            # The model's answers must not fail with the judge, whatever it was.
            _log.error("judge_failed", exc_info=error)
            error = RunError("asking the judge failed; the endpoint's log says why")
        return _failed(judge, error), False


def _failed(judge: str, error: RedRayError) -> Verdict:
    return Verdict("", Outcome.ERROR, None, judge, requests=0, latency_ms=0.0, error=str(error))
