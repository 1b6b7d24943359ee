"""Rate and budget: never one request or token too many, and none held back for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from red_ray.config import JudgeConfig, Price
from red_ray.judges.limits import Budget, BudgetUsedUpError, Estimate, RateLimit, Spent, Ticket
from tests.unit.judges.fakes import FakeTime, question

LATE_S = 1.0  # one request may take so much longer to the server than another


def rate(time: FakeTime, requests: int | None, tokens: int | None = None) -> RateLimit:
    return RateLimit(requests, tokens, sleep=time.sleep, clock=time.clock)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


async def admitted_s(limit: RateLimit, time: FakeTime, *tokens: int) -> list[float]:
    """How long after the start each request left, one asked for after the other."""
    start_s = time.now_s
    return [(await leave(limit, n)).sent_s - start_s for n in tokens]


async def leave(limit: RateLimit, tokens: int) -> Ticket:
    """Admitted, and gone at once."""
    ticket = await limit.admit(tokens)
    limit.leaves(ticket)
    return ticket


def fullest(arrivals: list[tuple[float, int]]) -> tuple[int, int]:
    """Most requests and most tokens that arrived in any 60 s."""
    arrivals = sorted(arrivals)
    windows = [[n for at, n in arrivals if start <= at < start + 60.0] for start, _ in arrivals]
    return max(map(len, windows)), max(map(sum, windows))


@pytest.mark.parametrize("seed", range(8))
async def test_no_minute_at_the_server_has_too_much(time: FakeTime, seed: int) -> None:
    """Whatever the arrivals, and with each request up to 1 s on its way."""
    rng = np.random.default_rng(seed)
    max_requests, max_tokens = int(rng.integers(3, 20)), int(rng.integers(500, 3000))
    limit, sent = rate(time, max_requests, max_tokens), []
    for _ in range(200):
        if rng.random() < 0.3:
            await time.sleep(float(rng.exponential(8.0)))
        ticket = await leave(limit, int(rng.integers(1, 500)))
        took = int(rng.integers(0, ticket.tokens + 1))
        if rng.random() < 0.5:
            limit.correct(ticket, took)
        sent.append((ticket.sent_s + rng.uniform(0, LATE_S), ticket.tokens))
    requests, tokens = fullest(sent)
    assert requests <= max_requests
    assert tokens <= max_tokens
    assert requests == max_requests or tokens > max_tokens - 500, "the limit is made use of"


async def test_a_burst_passes_at_once_and_the_next_after_the_window(time: FakeTime) -> None:
    assert await admitted_s(rate(time, 3), time, *[0] * 7) == [0, 0, 0, 61, 61, 61, 122]


async def test_tokens_bound_as_requests_do(time: FakeTime) -> None:
    assert await admitted_s(rate(time, None, 100), time, 60, 40, 1, 99, 50) == [0, 0, 61, 61, 122]


async def test_without_limits_nothing_waits(time: FakeTime) -> None:
    limit = rate(time, None)
    for _ in range(50):
        limit.correct(await leave(limit, 10**9), 5)
    assert time.slept_s == []


async def test_who_came_first_leaves_first(time: FakeTime) -> None:
    """A small request does not overtake a large one that waits for room."""
    limit, order = rate(time, None, 100), []

    async def send(name: str, tokens: int) -> None:
        await leave(limit, tokens)
        order.append(name)

    await asyncio.gather(send("first", 90), send("large", 80), send("small", 5))
    assert order == ["first", "large", "small"]


async def test_a_request_that_is_cancelled_while_it_waits_leaves_its_place(time: FakeTime) -> None:
    limit = rate(time, 1)
    await leave(limit, 0)
    stuck = asyncio.Event()
    limit._sleep = lambda _: stuck.wait()  # type: ignore[assignment]
    waits = asyncio.create_task(leave(limit, 0))
    await asyncio.sleep(0)
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    limit._sleep = time.sleep
    assert await admitted_s(limit, time, 0) == [61]


async def test_an_answer_shorter_than_reserved_makes_room_at_once(time: FakeTime) -> None:
    """Also for one that waits already: it does not sit out the minute."""
    limit = rate(time, None, 100)
    first = await leave(limit, 90)
    waits = asyncio.create_task(leave(limit, 50))
    await asyncio.sleep(0)
    limit.correct(first, 40)
    assert (await waits).sent_s - first.sent_s <= 1.0


async def test_an_answer_longer_than_reserved_takes_room(time: FakeTime) -> None:
    limit = rate(time, None, 100)
    limit.correct(await leave(limit, 10), 90)
    assert await admitted_s(limit, time, 10, 1) == [0, 61]


async def test_a_correction_after_the_window_changes_nothing(time: FakeTime) -> None:
    limit = rate(time, None, 100)
    old = await leave(limit, 100)
    await time.sleep(61.0)
    await leave(limit, 100)
    limit.correct(old, 0)
    assert await admitted_s(limit, time, 100) == [61]


async def test_what_an_earlier_process_sent_counts(time: FakeTime) -> None:
    limit = rate(time, 3, 100)
    limit.restore([(10.0, 30), (50.0, 30)])
    assert await admitted_s(limit, time, 40, 0) == [0, 11]


async def test_a_send_from_the_future_counts_as_one_of_now(time: FakeTime) -> None:
    """The system's clock was set back by an hour."""
    limit = rate(time, 1)
    limit.restore([(-3600.0, 0)])
    assert await admitted_s(limit, time, 0) == [61]


async def test_a_request_larger_than_a_minute_leaves_when_nothing_else_counts(
    time: FakeTime,
) -> None:
    """What was learned from one runaway answer must not hold everything back for ever."""
    assert await admitted_s(rate(time, None, 100), time, 10, 500, 500) == [0, 61, 122]


@pytest.mark.parametrize(("requests", "tokens"), [(3, None), (None, 100), (3, 100)])
async def test_a_rest_lets_a_minute_pass_first(
    time: FakeTime, requests: int | None, tokens: int | None
) -> None:
    limit = rate(time, requests, tokens)
    limit.rest()
    assert await admitted_s(limit, time, 1) == [61]


def budget(spent: Spent | None = None, **limits: float) -> Budget:
    return Budget(JudgeConfig(**limits), spent or Spent())


async def taken(budget: Budget, tokens: int = 0, usd: float = 0.0) -> int:
    """How many requests the budget lets leave, each settled as reserved."""
    for n in range(1_000):
        try:
            await budget.take(tokens, usd)
        except BudgetUsedUpError:
            return n
        budget.settle(0, 0.0)
    return -1


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"budget_calls": 7}, 7),
        ({"budget_tokens": 100}, 10),
        ({"budget_tokens": 109}, 10),
        ({"budget_usd": 0.3}, 3),
        ({"budget_usd": 0.7}, 7),
        ({"budget_usd": 0.69}, 6),
        ({"budget_calls": 5, "budget_tokens": 40, "budget_usd": 9.0}, 4),
        ({}, -1),
    ],
)
async def test_the_budget_is_exact(limits: dict[str, float], expected: int) -> None:
    """0.3 USD are three requests of 0.1, whose sum is a little more in binary."""
    assert await taken(budget(**limits), 10, 0.1) == expected


@pytest.mark.parametrize(
    ("limits", "spent"),
    [
        ({"budget_calls": 7}, Spent(7)),
        ({"budget_tokens": 100}, Spent(0, 100)),
        ({"budget_usd": 0.3}, Spent(0, 0, 0.1 + 0.1 + 0.1)),
        ({"budget_usd": 0.3}, Spent(0, 0, 0.3 - 1e-12)),
    ],
)
async def test_what_earlier_processes_spent_counts(limits: dict[str, float], spent: Spent) -> None:
    assert budget(spent, **limits).is_used_up
    assert await taken(budget(spent, **limits), 10, 0.1) == 0


async def test_a_budget_with_a_request_open_is_not_used_up() -> None:
    one = budget(budget_tokens=100)
    await one.take(100, 0.0)
    assert not one.is_used_up
    one.settle(0, 0.0)
    assert one.is_used_up


async def waiting(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_a_request_waits_for_one_that_may_turn_out_cheaper() -> None:
    one = budget(budget_tokens=100)
    await one.take(80, 0.0)
    second = await waiting(one.take(50, 0.0))
    assert not second.done()
    one.settle(-40, 0.0)
    await second
    one.settle(0, 0.0)
    assert await taken(one, 1) == 10


async def test_all_who_wait_are_told_that_nothing_is_left() -> None:
    one = budget(budget_usd=1.0)
    await one.take(0, 0.8)
    waits = [await waiting(one.take(0, 0.5)) for _ in range(3)]
    one.settle(0, 0.1)
    done = await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 1)
    assert [type(error) for error in done] == [BudgetUsedUpError] * 3


async def test_nobody_waits_for_a_call_that_was_counted() -> None:
    one = budget(budget_calls=1)
    await one.take(0, 0.0)
    with pytest.raises(BudgetUsedUpError):
        await asyncio.wait_for(one.take(0, 0.0), 1)


async def test_what_did_not_leave_is_given_back_whole() -> None:
    one = budget(budget_calls=1, budget_tokens=10, budget_usd=0.5)
    await one.take(10, 0.5)
    one.give_back(10, 0.5)
    assert not one.is_used_up
    assert await taken(one, 10, 0.5) == 1


def estimate(**settings: Any) -> Estimate:
    return Estimate(**{"price": None, "max_answer_tokens": None} | settings)


def test_the_first_answer_replaces_what_was_assumed() -> None:
    one = estimate()
    before = one.tokens(question())
    one.learn(question(), 40, 3)
    assert before[0] > 350
    assert one.tokens(question()) == (41, 3)


def test_it_keeps_to_the_largest_seen() -> None:
    one = estimate()
    for prompt, answer in ((40, 3), (80, 9), (20, 1)):
        one.learn(question(), prompt, answer)
    assert one.tokens(question()) == (81, 9)


def test_a_longer_text_is_more_tokens() -> None:
    one = estimate()
    one.learn(question(), 400, 3)
    short, long = one.tokens(question()), one.tokens(question("word " * 1000))
    assert long[0] > 5 * short[0]


def test_a_server_that_does_not_count_teaches_nothing() -> None:
    one = estimate()
    before = one.tokens(question())
    one.learn(question(), 0, 0)
    assert one.tokens(question()) == before


def test_where_answers_are_cut_is_what_one_may_have() -> None:
    one = estimate(max_answer_tokens=500)
    one.learn(question(), 40, 3)
    assert one.tokens(question())[1] == 500


def test_a_judge_without_tokens_takes_none() -> None:
    assert estimate(counts=False).tokens(question()) == (0, 0)


def test_the_price_is_per_million_tokens() -> None:
    one = estimate(price=Price(input_usd=2.0, output_usd=8.0))
    assert one.cost_usd(1_000, 250) == pytest.approx(0.004)
    assert estimate().cost_usd(1_000, 250) is None


def test_a_lone_surrogate_has_a_size() -> None:
    assert estimate().tokens(question("\ud800"))[0] > 0


async def test_a_request_that_is_about_to_leave_counts_until_it_has_left_for_a_minute(
    time: FakeTime,
) -> None:
    """What stands between, a slow disk for one, would else let two minutes' worth leave at once."""
    limit = rate(time, 2)
    slow = await limit.admit(0)
    await leave(limit, 0)
    time.now_s += 100
    limit.leaves(slow)
    assert await admitted_s(limit, time, 0, 0) == [0, 61]


async def test_a_request_that_does_not_leave_makes_room(time: FakeTime) -> None:
    limit = rate(time, 1, 100)
    limit.withdraw(await limit.admit(100))
    assert await admitted_s(limit, time, 100) == [0]


async def test_one_request_goes_at_a_time_until_it_is_known_what_one_takes() -> None:
    """The first burst would else reserve far too little, all at once."""
    known, order = [False], []
    spending = budget(budget_tokens=1_000)

    async def ask(number: int) -> None:
        await spending.alone(lambda: known[0])
        await spending.take(10, 0.0)
        order.append(f"{number} leaves")
        await asyncio.sleep(0.001)
        order.append(f"{number} is over")
        known[0] = number == 1
        spending.settle(90, 0.0)

    await asyncio.gather(*(ask(number) for number in range(4)))
    assert order[:4] == ["0 leaves", "0 is over", "1 leaves", "1 is over"]
    assert order[4:6] == ["2 leaves", "3 leaves"]


def test_an_estimate_knows_the_longest_answer_of_an_earlier_process() -> None:
    estimate = Estimate(None, max_answer_tokens=None, longest_answer=2_000)
    assert estimate.tokens(question())[1] == 2_000
    estimate.learn(question(), 100, 5)
    assert estimate.tokens(question())[1] == 2_000


def test_a_server_that_counts_no_tokens_holds_nothing_up() -> None:
    estimate = Estimate(None, max_answer_tokens=None)
    assert not estimate.is_known
    estimate.learn(question(), 0, 0)
    assert estimate.is_known


def test_a_text_that_is_escaped_is_estimated_as_it_is_sent() -> None:
    estimate = Estimate(None, max_answer_tokens=None)
    plain, escaped = question("a" * 600), question("<" * 100)
    assert estimate.tokens(plain) == estimate.tokens(escaped)


# --- what is spent -------------------------------------------------------------------------------


def test_the_share_of_each_limit_that_is_spent() -> None:
    config = JudgeConfig(budget_calls=10, budget_usd=2.0)
    budget = Budget(config, Spent(requests=4, tokens=1000, cost_usd=3.0))
    assert budget.spent == {"calls": 0.4, "usd": 1.0}
