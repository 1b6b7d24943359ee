"""When a question is asked again: for what, how often, how soon, and for how long."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from red_ray.config import JudgeConfig
from red_ray.errors import (
    JudgeError,
    JudgeRefused,
    JudgeTimeout,
    JudgeUnavailable,
    SchemaRefused,
)
from red_ray.judges.retries import Attempts, RetryPolicy
from red_ray.types import Outcome, Reply
from tests.unit.judges.fakes import UNREADABLE, FakeTime, label

DOWN, LATE = JudgeUnavailable("down"), JudgeTimeout("late")


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def policy(time: FakeTime, **settings: Any) -> RetryPolicy:
    return RetryPolicy(JudgeConfig(**settings), clock=time.clock, rng=np.random.default_rng(0))


def after(time: FakeTime, *came: Reply | JudgeError) -> Attempts:
    """A question whose requests came to this."""
    attempts = Attempts(started_s=time.now_s)
    for one in came:
        attempts.requests += 1
        attempts.n_tries += 1
        if isinstance(one, Reply):
            attempts.add(one)
        attempts.last = one
    return attempts


@pytest.mark.parametrize(
    "last", [label(), Reply(Outcome.NONE), JudgeError("too long"), JudgeRefused("check the key")]
)
def test_what_no_other_try_can_change_is_not_tried_again(
    time: FakeTime, last: Reply | JudgeError
) -> None:
    assert policy(time).wait_s(after(time, last)) is None


@pytest.mark.parametrize("last", [UNREADABLE, SchemaRefused("no schema")])
def test_a_judge_that_is_there_is_asked_again_at_once(
    time: FakeTime, last: Reply | JudgeError
) -> None:
    assert policy(time).wait_s(after(time, last)) == 0.0


def test_an_answer_that_cannot_be_read_is_asked_for_once_more(time: FakeTime) -> None:
    asked = after(time, UNREADABLE, DOWN, UNREADABLE)
    assert policy(time, max_attempts=9).wait_s(asked) is None


def test_the_judge_is_told_why_its_last_answer_could_not_be_read(time: FakeTime) -> None:
    assert after(time, UNREADABLE).complaint == "it was empty"
    assert after(time, UNREADABLE, label()).complaint == ""


@pytest.mark.parametrize("error", [DOWN, LATE])
def test_waits_double_up_to_a_minute(time: FakeTime, error: JudgeError) -> None:
    retries = policy(time, max_attempts=99, total_time_s=9999)
    for n_failed, longest_s in enumerate([1, 2, 4, 8, 16, 32, 60, 60], start=1):
        wait_s = retries.wait_s(after(time, *[error] * n_failed))
        assert wait_s is not None
        assert longest_s / 2 <= wait_s <= longest_s


def test_it_waits_longer_than_it_is_asked_to(time: FakeTime) -> None:
    wait_s = policy(time).wait_s(after(time, JudgeUnavailable("busy", 30.0)))
    assert wait_s is not None
    assert 30.5 <= wait_s <= 31.0


def test_a_wait_that_ends_after_the_total_time_is_not_begun(time: FakeTime) -> None:
    asked = after(time, JudgeUnavailable("busy", 30.0))
    assert policy(time, total_time_s=30.0).wait_s(asked) is None


def test_a_pause_does_not_count_towards_the_total_time(time: FakeTime) -> None:
    """Nor did the question have its time while it waited for a slot or the rate."""
    asked, retries = after(time, DOWN), policy(time, total_time_s=10.0)
    time.now_s += 100.0
    assert retries.wait_s(asked) is None
    asked.paused_s = 100.0
    assert retries.wait_s(asked) is not None


@pytest.mark.parametrize("error", [DOWN, LATE, SchemaRefused("no schema")])
def test_all_tries_count(time: FakeTime, error: JudgeError) -> None:
    assert policy(time, max_attempts=3).wait_s(after(time, *[error] * 2)) is not None
    assert policy(time, max_attempts=3).wait_s(after(time, *[error] * 3)) is None


def test_a_look_whether_the_judge_is_back_is_no_try(time: FakeTime) -> None:
    asked = after(time, *[DOWN] * 9)
    asked.n_tries = 2
    assert policy(time, max_attempts=3, total_time_s=9999).wait_s(asked) is not None


def test_a_question_that_never_left_was_not_busy(time: FakeTime) -> None:
    assert Attempts().busy_s(time.now_s) == 0.0
