"""A judge that is away: all requests pause, one at a time looks, and the run goes on or stops."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from red_ray.errors import JudgeError, JudgeRefused, JudgeTimeout, JudgeUnavailable
from red_ray.judges.breaker import Breaker, JudgeAwayError
from tests.unit.judges.fakes import FakeTime

DOWN, LATE = JudgeUnavailable("HTTP 503"), JudgeTimeout("no answer in 5 s")


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def breaker(time: FakeTime) -> Breaker:
    return make(time)


def make(time: FakeTime, limit_s: float = 600.0, concurrency: int = 4) -> Breaker:
    rng = np.random.default_rng(0)
    return Breaker(limit_s, concurrency, sleep=time.sleep, clock=time.clock, rng=rng)


def fail(breaker: Breaker, time: FakeTime, n: int, error: JudgeError = DOWN, key: str = "") -> None:
    """`n` requests that left now fail; time-outs are of questions of their own without a `key`."""
    for number in range(n):
        breaker.failed(error, key or f"question {number}", time.now_s)


async def probe(breaker: Breaker, time: FakeTime, error: JudgeError | None = DOWN) -> bool:
    """One request: waits its turn, then fails, or is answered where `error` is None."""
    async with breaker.passage() as is_probe:
        sent_s = time.now_s
    if error is None:
        breaker.answered()
    else:
        breaker.failed(error, "question", sent_s)
    return is_probe


async def test_requests_pass_while_few_fail(breaker: Breaker, time: FakeTime) -> None:
    fail(breaker, time, 4)
    assert not breaker.is_open
    async with breaker.passage() as is_probe:
        assert not is_probe
    assert (breaker.notice, time.slept_s) == ("", [])


@pytest.mark.parametrize(("concurrency", "n"), [(1, 5), (16, 5), (64, 16)])
def test_it_opens_when_a_quarter_of_the_requests_failed_in_a_row(
    time: FakeTime, concurrency: int, n: int
) -> None:
    breaker = make(time, concurrency=concurrency)
    fail(breaker, time, n - 1)
    assert not breaker.is_open
    fail(breaker, time, 1)
    assert breaker.is_open


def test_an_answer_between_failures_begins_the_count_anew(breaker: Breaker, time: FakeTime) -> None:
    for _ in range(5):
        fail(breaker, time, 4)
        breaker.answered()
    assert not breaker.is_open


@pytest.mark.parametrize("error", [JudgeError("too long"), JudgeRefused("check the key")])
def test_an_error_of_the_judge_s_own_is_a_sign_of_life(
    breaker: Breaker, time: FakeTime, error: JudgeError
) -> None:
    fail(breaker, time, 4)
    breaker.failed(error, "question", time.now_s)
    fail(breaker, time, 4)
    assert not breaker.is_open


def test_time_outs_of_one_question_say_nothing_of_the_judge(
    breaker: Breaker, time: FakeTime
) -> None:
    fail(breaker, time, 20, LATE, key="too hard")
    assert not breaker.is_open
    fail(breaker, time, 1, LATE, key="another")
    assert breaker.is_open


def test_another_failure_is_a_second_witness(breaker: Breaker, time: FakeTime) -> None:
    fail(breaker, time, 4, LATE, key="too hard")
    fail(breaker, time, 1, DOWN)
    assert breaker.is_open


async def test_one_request_at_a_time_looks_whether_it_is_back(
    breaker: Breaker, time: FakeTime
) -> None:
    fail(breaker, time, 5)
    inside = most = 0
    probes: list[bool] = []

    async def ask() -> None:
        nonlocal inside, most
        async with breaker.passage() as is_probe:
            probes.append(is_probe)
            sent_s, inside = time.now_s, inside + is_probe
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= is_probe
        if len(probes) <= 3:
            breaker.failed(DOWN, "question", sent_s)
        else:
            breaker.answered()

    await asyncio.gather(*(ask() for _ in range(8)))
    assert most == 1
    assert probes == [True] * 4 + [False] * 4, "what waited passes when it is back"


async def test_probes_come_ever_more_seldom(breaker: Breaker, time: FakeTime) -> None:
    fail(breaker, time, 5)
    assert all([await probe(breaker, time) for _ in range(8)])
    expected = [1, 2, 4, 8, 16, 30, 30, 30]
    for slept_s, longest_s in zip(time.slept_s, expected, strict=True):
        assert longest_s / 2 <= slept_s <= longest_s


def test_what_fails_with_it_at_once_does_not_make_the_first_pause_longer(
    breaker: Breaker, time: FakeTime
) -> None:
    """Sixty requests in flight when a server goes down are one sign, not sixty probes."""
    fail(breaker, time, 60)
    assert breaker._until_s - time.now_s <= 1.0


async def test_it_goes_on_when_the_judge_is_back(breaker: Breaker, time: FakeTime) -> None:
    fail(breaker, time, 5)
    assert await probe(breaker, time, None)
    assert not breaker.is_open
    assert breaker.notice == ""
    slept = len(time.slept_s)
    assert not await probe(breaker, time, None)
    assert len(time.slept_s) == slept


async def test_a_second_outage_begins_with_short_pauses_again(
    breaker: Breaker, time: FakeTime
) -> None:
    fail(breaker, time, 5)
    for _ in range(6):
        await probe(breaker, time)
    await probe(breaker, time, None)
    fail(breaker, time, 5)
    await probe(breaker, time)
    assert time.slept_s[-1] <= 1.0


async def test_it_gives_the_judge_up_at_the_limit(time: FakeTime) -> None:
    breaker, start_s = make(time, limit_s=100.0), time.now_s
    fail(breaker, time, 5)

    async def go_on() -> None:
        while True:
            await probe(breaker, time)

    with pytest.raises(JudgeAwayError, match=r"no answer from the judge for 100 s \(HTTP 503\)"):
        await go_on()
    assert time.now_s - start_s == pytest.approx(100.0)


def test_the_silence_begins_with_the_request_that_first_had_no_answer(time: FakeTime) -> None:
    """A time-out was silent all the while it was waited for."""
    breaker = make(time, limit_s=100.0)
    sent_s, time.now_s = time.now_s, time.now_s + 99.0
    for key in "abcde":
        breaker.failed(LATE, key, sent_s)
    time.now_s += 1.0
    with pytest.raises(JudgeAwayError):
        breaker.failed(LATE, "f", time.now_s)


def test_an_answer_meanwhile_was_no_silence(time: FakeTime) -> None:
    breaker = make(time, limit_s=100.0)
    sent_s, time.now_s = time.now_s, time.now_s + 99.0
    breaker.answered()
    time.now_s += 1.0
    for key in "abcde":
        breaker.failed(LATE, key, sent_s)
    assert breaker.is_open


def test_a_judge_that_asks_for_more_time_than_is_left_is_given_up(time: FakeTime) -> None:
    breaker = make(time, limit_s=100.0)
    fail(breaker, time, 4)
    with pytest.raises(JudgeAwayError):
        fail(breaker, time, 1, JudgeUnavailable("HTTP 429", 101.0))


async def test_what_one_is_asked_to_wait_everybody_waits(breaker: Breaker, time: FakeTime) -> None:
    fail(breaker, time, 1, JudgeUnavailable("HTTP 429", 30.0))
    async with breaker.passage() as is_probe:
        assert not is_probe
    assert time.slept_s == [30.0]


async def test_a_shorter_wait_does_not_shorten_the_pause(breaker: Breaker, time: FakeTime) -> None:
    fail(breaker, time, 1, JudgeUnavailable("HTTP 429", 30.0))
    fail(breaker, time, 1, JudgeUnavailable("HTTP 429", 2.0))
    await probe(breaker, time)
    assert time.slept_s == [30.0]


async def test_a_probe_waits_as_long_as_the_judge_asks(breaker: Breaker, time: FakeTime) -> None:
    fail(breaker, time, 5)
    await probe(breaker, time, JudgeUnavailable("HTTP 429", 45.0))
    await probe(breaker, time)
    assert time.slept_s[-1] == pytest.approx(45.0)


async def test_the_notice_is_one_line_and_the_same_all_through(
    breaker: Breaker, time: FakeTime
) -> None:
    """The run prints it whenever it changes."""
    assert breaker.notice == ""
    fail(breaker, time, 1, JudgeUnavailable("HTTP 429", 3.0))
    notices = {breaker.notice}
    for error in (DOWN, LATE, JudgeUnavailable("HTTP 429", 9.0)) * 4:
        await probe(breaker, time, error)
        notices.add(breaker.notice)
    assert notices == {"pausing for up to 600 s: HTTP 429"}
    await probe(breaker, time, None)
    assert breaker.notice == ""


async def test_a_probe_that_is_cancelled_lets_the_next_look(
    breaker: Breaker, time: FakeTime
) -> None:
    fail(breaker, time, 5)
    inside, never = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        async with breaker.passage():
            inside.set()
            await never.wait()

    hanging = asyncio.create_task(hang())
    await inside.wait()
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    assert await asyncio.wait_for(probe(breaker, time), 1)


async def test_an_error_inside_passes_through(breaker: Breaker, time: FakeTime) -> None:
    fail(breaker, time, 5)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            async with breaker.passage():
                raise ZeroDivisionError


REFUSED = JudgeUnavailable("connection refused", never_left=True)


async def refused_for_ever(breaker: Breaker, time: FakeTime) -> None:
    while True:
        await probe(breaker, time, REFUSED)


async def test_a_server_here_that_nobody_ever_reached_is_not_waited_for_long(
    breaker: Breaker, time: FakeTime
) -> None:
    breaker.is_unmet = True
    start_s = time.now_s
    fail(breaker, time, 5, REFUSED)
    assert breaker.notice == "pausing for up to 30 s: connection refused"
    with pytest.raises(
        JudgeAwayError, match=r"on this machine .*: start it, then `red-ray resume`"
    ):
        await refused_for_ever(breaker, time)
    assert time.now_s - start_s == pytest.approx(30.0)


@pytest.mark.parametrize("error", [REFUSED, DOWN])
async def test_one_that_was_up_or_is_there_is_waited_for(
    breaker: Breaker, time: FakeTime, error: JudgeError
) -> None:
    breaker.is_unmet = True
    if error is REFUSED:
        breaker.answered()
    fail(breaker, time, 5, error)
    while time.now_s < 1500.0:
        await probe(breaker, time, error)
