"""How often, how long and after what wait a call is tried."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from tenacity import RetryCallState, retry_if_exception_type

from red_ray.errors import ConfigError, EndpointUnavailable

_FIRST_WAIT_S = 0.5  # before the second try; doubles from there
_LONGEST_WAIT_S = 8.0  # an endpoint that is started anew is back in such a time
_LEAST_TIMEOUT_S = 1.0  # of a last try that begins just before the total time is over


@dataclass(frozen=True, slots=True)
class Patience:
    """Bounds of one call.

    Attributes:
        timeout_s: for one try.
        attempts: tries at most.
        total_time_s: no try begins after it, and none lasts much longer.
    """

    timeout_s: float
    attempts: int
    total_time_s: float

    def __post_init__(self) -> None:
        for name in ("timeout_s", "attempts", "total_time_s"):
            check_positive(name, getattr(self, name))


def check_positive(name: str, value: float | None) -> None:
    """Refuse a setting of 0 or less; None stands for a default.

    Raises:
        ConfigError: naming it.
    """
    if value is not None and not value > 0:
        raise ConfigError(f"{name} is {value!r}; give a number above 0")


class Tries:
    """The tries of one call, which begins now.

    Args:
        patience: its bounds.
        clock: monotonic seconds.
    """

    def __init__(self, patience: Patience, clock: Callable[[], float]) -> None:
        self._patience = patience
        self._clock = clock
        self._start_s = clock()

    def timeout_s(self) -> float:
        """For the next try: it ends with the total time."""
        left_s = self._patience.total_time_s - self._elapsed_s()
        return min(self._patience.timeout_s, max(left_s, _LEAST_TIMEOUT_S))

    def options(self) -> dict[str, Any]:
        """Arguments of tenacity's `Retrying` and `AsyncRetrying`."""
        return {
            "retry": retry_if_exception_type(EndpointUnavailable),
            "wait": _wait_s,
            "stop": self._is_over,
            "retry_error_callback": self._give_up,
        }

    def _is_over(self, state: RetryCallState) -> bool:
        """Whether that was the last try; one that would begin too late is not waited for."""
        late = self._elapsed_s() + state.upcoming_sleep >= self._patience.total_time_s
        return late or state.attempt_number >= self._patience.attempts

    def _give_up(self, state: RetryCallState) -> NoReturn:
        last = _error(state)
        tried = f"gave up after {state.attempt_number} tries in {self._elapsed_s():.1f} s"
        raise EndpointUnavailable(f"{last}; {tried}", last.status, last.retry_after_s) from last

    def _elapsed_s(self) -> float:
        return self._clock() - self._start_s


def _wait_s(state: RetryCallState) -> float:
    """Doubling, drawn from the upper half so that clients spread; after `Retry-After`."""
    longest_s = min(_FIRST_WAIT_S * 2.0 ** (state.attempt_number - 1), _LONGEST_WAIT_S)
    return (_error(state).retry_after_s or 0.0) + random.uniform(longest_s / 2, longest_s)


def _error(state: RetryCallState) -> EndpointUnavailable:
    error = state.outcome.exception() if state.outcome else None
    if not isinstance(error, EndpointUnavailable):
        raise AssertionError(f"a try is repeated only after one error, not {error!r}")
    return error
