"""When a question is asked again, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from red_ray.config import JudgeConfig
from red_ray.errors import JudgeError, JudgeTimeout, JudgeUnavailable, SchemaRefused
from red_ray.judges.ledger import Received
from red_ray.judges.limits import Clock
from red_ray.types import Outcome, Reply

_FIRST_WAIT_S = 1.0  # before the second try; doubles from there
_LONGEST_WAIT_S = 60.0  # a minute is the window of most rate limits
_ASKS_IF_UNREADABLE = 2


@dataclass(slots=True)
class Attempts:
    """What one question has cost so far, and what came of its last request.

    Attributes:
        started_s: when its first request left; None before.
        paused_s: waited since then for a slot, the rate or a judge that is away.
        n_tries: requests that count against `max_attempts`; those that look whether a judge is
            back do not.
        received: what came of each request, not yet in the ledger.
        complaint: what the judge is told about its last answer.
    """

    started_s: float | None = None
    paused_s: float = 0.0
    requests: int = 0
    n_tries: int = 0
    n_unreadable: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    complaint: str = ""
    last: Reply | JudgeError | None = None
    received: list[Received] = field(default_factory=list)

    def busy_s(self, now_s: float) -> float:
        """Seconds from the first request to `now_s`, pauses left out."""
        return 0.0 if self.started_s is None else now_s - self.started_s - self.paused_s

    def add(self, reply: Reply) -> None:
        """Take in a reply and its tokens."""
        self.last = reply
        self.n_unreadable += reply.outcome is Outcome.UNREADABLE
        self.complaint = reply.reason
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens


class RetryPolicy:
    """At most `max_attempts` requests and `total_time_s` for a question, whatever they are for.

    Time-outs and an unavailable judge are tried again after a wait; an answer that cannot be
    read is asked for once more, at once, with the reason.

    Args:
        config: attempts and total time.
        clock: monotonic seconds.
        rng: draws the jitter.
    """

    def __init__(self, config: JudgeConfig, *, clock: Clock, rng: np.random.Generator) -> None:
        self._config = config
        self._clock = clock
        self._rng = rng

    def wait_s(self, attempts: Attempts) -> float | None:
        """How long to wait before the next request of a question; None where there is none."""
        last = attempts.last
        if isinstance(last, Reply):
            unread = last.outcome is Outcome.UNREADABLE
            wait_s = 0.0 if unread and attempts.n_unreadable < _ASKS_IF_UNREADABLE else None
        elif isinstance(last, SchemaRefused):
            wait_s = 0.0
        elif isinstance(last, JudgeTimeout | JudgeUnavailable):
            wait_s = self._backoff_s(attempts, getattr(last, "retry_after_s", None))
        else:
            wait_s = None
        if wait_s is None or attempts.n_tries >= self._config.max_attempts:
            return None
        late = attempts.busy_s(self._clock() + wait_s) >= self._config.total_time_s
        return None if late else wait_s

    def _backoff_s(self, attempts: Attempts, asked_s: float | None) -> float:
        """Doubling, drawn from the upper half so that callers spread; after `Retry-After`."""
        longest_s = min(_FIRST_WAIT_S * 2.0 ** (attempts.requests - 1), _LONGEST_WAIT_S)
        wait_s = float(self._rng.uniform(longest_s / 2, longest_s))
        return wait_s if asked_s is None else max(asked_s, 0.0) + wait_s
