"""When a question is asked again, how long it waits, and when nobody should ask any more."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, retry_if_result

from red_ray.config import JudgeConfig
from red_ray.errors import JudgeError, JudgeTimeout, JudgeUnavailable
from red_ray.types import Outcome, Reply

_log = logging.getLogger(__name__)

_FIRST_WAIT_S = 1.0  # before the second try; doubles from there
_LONGEST_WAIT_S = 60.0  # a minute is the window of most rate limits
_ASKS_IF_UNREADABLE = 2

Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]


@dataclass(slots=True)
class Attempts:
    """What one question has cost so far, and what came of its last request.

    `gave_up_s`: when its next request would have left, on the clock of `started_s`.
    """

    started_s: float
    requests: int = 0
    unreadable: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    last: Reply | JudgeError | None = None
    gave_up_s: float = 0.0

    def add(self, reply: Reply) -> None:
        """Take in a reply and its tokens."""
        self.last = reply
        self.unreadable += reply.outcome is Outcome.UNREADABLE
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens


class RetryPolicy:
    """At most `max_attempts` requests and `total_time_s` for a question, whatever they are for.

    Time-outs and an unavailable judge are tried again after a wait; an answer that cannot be
    read is asked for once more, at once.

    Args:
        config: attempts and total time.
        sleep: waits between attempts.
        clock: monotonic seconds.
        rng: draws the jitter.
    """

    def __init__(
        self, config: JudgeConfig, *, sleep: Sleep, clock: Clock, rng: np.random.Generator
    ) -> None:
        self._config = config
        self._sleep = sleep
        self._clock = clock
        self._rng = rng

    def loop(self, attempts: Attempts) -> AsyncRetrying:
        """The retry loop of one question; it returns the last reply or raises the last error."""

        def asks_again(reply: Reply) -> bool:
            unread = reply.outcome is Outcome.UNREADABLE
            return unread and attempts.unreadable < _ASKS_IF_UNREADABLE

        def stops(state: RetryCallState) -> bool:
            attempts.gave_up_s = self._clock() + state.upcoming_sleep
            late = attempts.gave_up_s - attempts.started_s >= self._config.total_time_s
            return late or state.attempt_number >= self._config.max_attempts

        return AsyncRetrying(
            retry=retry_if_exception_type((JudgeTimeout, JudgeUnavailable))
            | retry_if_result(asks_again),
            wait=self._wait_s,
            stop=stops,
            sleep=self._sleep,
            before_sleep=_log_retry,
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )

    def _wait_s(self, state: RetryCallState) -> float:
        """Doubling, drawn from the upper half so that callers spread; after `Retry-After`."""
        error = state.outcome.exception() if state.outcome else None
        if error is None:
            return 0.0  # unreadable: the judge is there
        longest_s = min(_FIRST_WAIT_S * 2.0 ** (state.attempt_number - 1), _LONGEST_WAIT_S)
        wait_s = float(self._rng.uniform(longest_s / 2, longest_s))
        asked_s = error.retry_after_s if isinstance(error, JudgeUnavailable) else None
        return wait_s if asked_s is None else max(asked_s, 0.0) + wait_s


class Silence:
    """How long no question at all has had an answer.

    Args:
        limit_s: when to stop asking.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._since_s: float | None = None
        self._n_given_up = 0

    def end(self) -> None:
        """The judge answered."""
        self._since_s = None
        self._n_given_up = 0

    def note(self, error: JudgeError, sent_s: float) -> None:
        """A request that was sent at `sent_s` failed; not every error is a silence."""
        if not isinstance(error, JudgeTimeout | JudgeUnavailable):
            self.end()
        elif self._since_s is None:
            self._since_s = sent_s

    def check(self, attempts: Attempts) -> None:
        """Take note of a question that was given up.

        Raises:
            JudgeUnavailable: nobody has had an answer for longer than the limit.
        """
        last = attempts.last
        if self._since_s is None or not isinstance(last, JudgeTimeout | JudgeUnavailable):
            return
        self._n_given_up += 1
        # One text may be too hard for a model that is there: a time-out needs a second witness.
        heard = isinstance(last, JudgeUnavailable) or self._n_given_up > 1
        if heard and attempts.gave_up_s - self._since_s >= self._limit_s:
            raise JudgeUnavailable(
                f"no answer from the judge for {self._limit_s!r} s ({last}); "
                "what it answered before is kept: mend it, then run the same command again"
            )


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    reason = type(error).__name__ if error else "unreadable"
    fields = {"reason": reason, "attempt": state.attempt_number, "wait_s": state.upcoming_sleep}
    _log.info("judge_retry", extra=fields)
