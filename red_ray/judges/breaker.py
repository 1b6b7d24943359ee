"""Notices that a judge is away, and lets one request at a time look whether it is back."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from red_ray.errors import JudgeError, JudgeTimeout, JudgeUnavailable
from red_ray.judges.limits import Clock, Sleep

_log = logging.getLogger(__name__)

_FAILURES = 5
"""So many in a row may be chance where three requests in ten fail: one time in four hundred."""

_FIRST_PROBE_S, _LONGEST_PROBE_S = 1.0, 30.0


NEVER_HEARD_S = 30.0
"""How long a server on this machine that nobody ever reached is waited for."""


RESUME = "`red-ray resume` goes on"
"""What to do after a run that a judge's absence stopped."""


class JudgeAwayError(Exception):
    """Nobody had an answer for too long; stays inside the pool, which stops."""


class Breaker:
    """Pauses all requests to a judge that gives no answer, until it does.

    Opens when several requests in a row failed, with no answer between them; then one request at
    a time is let through, ever more seldom. What the server asks for in `Retry-After` pauses all
    requests: the limit it speaks of is everybody's.

    Attributes:
        notice: one line about a pause, empty while requests pass.
        is_unmet: whether the judge is a server on this machine that never answered anybody: one
            that refuses connections then was not started, and is not waited for as long.

    Args:
        limit_s: how long nobody may have had an answer before the judge is given up.
        concurrency: of the requests; a quarter of them may fail at once.
        sleep: waits between probes.
        clock: monotonic seconds.
        rng: draws the jitter.
        again: what to do when the judge is back.
    """

    def __init__(
        self,
        limit_s: float,
        concurrency: int,
        *,
        sleep: Sleep,
        clock: Clock,
        rng: np.random.Generator,
        again: str = RESUME,
    ) -> None:
        self._again = again
        self.notice = ""
        self.is_unmet = False
        self._limit_s = limit_s
        self._threshold = max(_FAILURES, concurrency // 4)
        self._sleep = sleep
        self._clock = clock
        self._rng = rng
        self._turn = asyncio.Lock()
        self._since_s: float | None = None
        self._heard_s = -math.inf
        self._until_s = 0.0
        self._n_failed = 0
        self._n_probes = 0
        self._witnesses: set[str] = set()  # questions that timed out; "" is any other failure

    @property
    def is_open(self) -> bool:
        """Whether the judge is taken to be away.

        Time-outs need a second witness: one text may be too hard for a model that is there.
        """
        heard = "" in self._witnesses or len(self._witnesses) > 1
        return heard and self._n_failed >= self._threshold

    @asynccontextmanager
    async def passage(self) -> AsyncIterator[bool]:
        """Around one request: waits out a pause; yields whether the request is a probe."""
        await self._pause()
        if not self.is_open:
            yield False
            return
        await self._turn.acquire()
        try:
            await self._pause()
            if self.is_open:
                yield True
                return
        finally:
            self._turn.release()
        yield False

    def answered(self) -> None:
        """The judge answered, if only with an error of its own."""
        if self._n_probes:
            _log.warning("judge_back", extra={"n_probes": self._n_probes})
        self.notice = ""
        self._heard_s = self._clock()
        self._since_s = None
        self._n_failed = self._n_probes = 0
        self._witnesses.clear()

    def failed(self, error: JudgeError, key: str, sent_s: float) -> None:
        """A request about the question `key`, sent at `sent_s`, had no answer.

        Raises:
            JudgeAwayError: nobody has had one for longer than the limit.
        """
        if not isinstance(error, JudgeTimeout | JudgeUnavailable):
            self.answered()
            return
        self._n_failed += 1
        if self._since_s is None:
            self._since_s = max(sent_s, self._heard_s)
        self._witnesses.add(key if isinstance(error, JudgeTimeout) else "")
        asked_s = getattr(error, "retry_after_s", None) or 0.0
        if self.is_open:
            left_s = self._left_s(error, self._since_s, asked_s)
            # One that left before the pause, as many do when a judge goes away, is no probe.
            wait_s = self._next_wait_s(error, left_s) if sent_s >= self._until_s else 0.0
            self._pause_all(error, max(asked_s, wait_s))
        elif 0 < asked_s <= self._limit_s:
            self._pause_all(error, asked_s)

    def _left_s(self, error: JudgeError, since_s: float, asked_s: float) -> float:
        """How long until the judge is given up, if that is not now."""
        silent_s = self._clock() - since_s
        left_s = self._limit_for(error) - silent_s
        if left_s <= 0 and self._is_not_started(error):
            raise JudgeAwayError(
                f"the judge's server on this machine does not answer ({error}): start it, then "
                f"{self._again}"
            )
        if left_s <= 0 or asked_s > left_s:
            raise JudgeAwayError(
                f"no answer from the judge for {silent_s:.0f} s ({error}); all that it "
                f"answered is kept: when it is back, {self._again}"
            )
        return left_s

    def _is_not_started(self, error: JudgeError) -> bool:
        unmet = self.is_unmet and self._heard_s == -math.inf
        return unmet and isinstance(error, JudgeUnavailable) and error.never_left

    def _limit_for(self, error: JudgeError) -> float:
        return min(self._limit_s, NEVER_HEARD_S) if self._is_not_started(error) else self._limit_s

    def _next_wait_s(self, error: JudgeError, left_s: float) -> float:
        """Doubling up to the longest, but not past the moment at which the judge is given up."""
        if not self._n_probes:
            _log.warning("judge_away", extra={"reason": type(error).__name__})
        longest_s = min(_FIRST_PROBE_S * 2.0**self._n_probes, _LONGEST_PROBE_S)
        self._n_probes += 1
        return min(float(self._rng.uniform(longest_s / 2, longest_s)), left_s)

    def _pause_all(self, error: JudgeError, wait_s: float) -> None:
        self._until_s = max(self._until_s, self._clock() + wait_s)
        # The same from the first failure to the next answer: a run prints it when it changes.
        self.notice = self.notice or f"pausing for up to {self._limit_for(error):.0f} s: {error}"

    async def _pause(self) -> None:
        while (wait_s := self._until_s - self._clock()) > 0:
            await self._sleep(wait_s)
