"""The pool: nothing paid twice, nothing lost, no failure turned into an answer."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
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
    StorageError,
)
from red_ray.judges import Ledger, Limits, ValidatorPool, make_judge
from red_ray.judges.ledger import Entry, HumanVerdict, Kept, Sent
from red_ray.types import HUMAN, WRITING, Outcome, Question, Reply, Verdict
from tests.servers import OpenAIServer, Received, Step, garbage, ok, reset, status
from tests.unit.judges.fakes import (
    UNREADABLE,
    FakeJudge,
    FakeTime,
    label,
    question,
    questions,
    script,
)

DOWN = JudgeUnavailable("down")
LATE = JudgeTimeout("late")
REFUSED = JudgeRefused("check the key")
MakePool = Callable[..., ValidatorPool]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def make_pool(ledger: Ledger, time: FakeTime) -> AsyncIterator[MakePool]:
    made: list[ValidatorPool] = []

    def make(judge: Any, **settings: Any) -> ValidatorPool:
        config = JudgeConfig(**settings)
        made.append(ValidatorPool(judge, ledger, config, limits=limits(config, time)))
        return made[-1]

    yield make
    for pool in made:
        await pool.close()


def limits(config: JudgeConfig, time: FakeTime) -> Limits:
    rng = np.random.default_rng(0)
    return Limits(config, sleep=time.sleep, clock=time.clock, rng=rng)


async def only(pool: ValidatorPool, asked: Question | None = None) -> Verdict:
    (verdict,) = await pool.validate([asked or question()])
    return verdict


async def settle(done: Callable[[], bool]) -> None:
    """Let the other tasks run until `done`; the ledger's thread needs real, short waits."""
    for _ in range(2_000):
        if done():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("never came about")


async def test_verdicts_come_in_the_order_of_the_questions(make_pool: MakePool) -> None:
    pool = make_pool(FakeJudge())
    asked = questions(50)
    verdicts = await pool.validate(asked)
    assert [verdict.key for verdict in verdicts] == [pool.key(q) for q in asked]
    assert all(verdict.label == "card_arrival" for verdict in verdicts)


async def test_no_questions_no_verdicts(make_pool: MakePool) -> None:
    assert await make_pool(FakeJudge()).validate([]) == []


async def test_a_verdict_says_what_it_cost(make_pool: MakePool) -> None:
    verdict = await only(make_pool(FakeJudge()))
    assert (verdict.requests, verdict.prompt_tokens, verdict.completion_tokens) == (1, 10, 2)
    assert (verdict.judge, verdict.error) == ("fake", "")


async def test_what_the_ledger_knows_is_not_asked(make_pool: MakePool) -> None:
    first, second = FakeJudge(), FakeJudge()
    bought = await make_pool(first).validate(questions(20))
    pool = make_pool(second)
    known = await pool.validate(questions(20))
    assert second.asked == []
    assert [v.label for v in known] == [v.label for v in bought]
    assert {v.requests for v in known} == {0}
    assert pool.stats().cached == 20
    assert pool.stats().requests == 0


async def test_candidate_order_does_not_make_a_new_question(make_pool: MakePool) -> None:
    judge = FakeJudge()
    pool = make_pool(judge)
    await only(pool, question(labels=["a", "b"]))
    await only(pool, question(labels=["b", "a"]))
    assert len(judge.asked) == 1


async def test_a_verdict_is_in_the_ledger_before_anyone_sees_it(
    make_pool: MakePool, ledger: Ledger
) -> None:
    async for verdict in make_pool(FakeJudge()).stream(questions(20)):
        assert verdict.key in ledger.get_many([verdict.key])


async def test_a_stream_gives_known_answers_first(make_pool: MakePool) -> None:
    pool = make_pool(FakeJudge())
    await only(pool, question("text 3"))
    keys = [verdict.key async for verdict in pool.stream(questions(5))]
    assert keys[0] == pool.key(question("text 3"))
    assert len(keys) == 5


async def test_equal_questions_in_one_call_share_one_request(make_pool: MakePool) -> None:
    judge = FakeJudge()
    verdicts = await make_pool(judge).validate([question()] * 40)
    assert len(judge.asked) == 1
    assert len({verdict.label for verdict in verdicts}) == 1
    assert len(verdicts) == 40
    assert sum(verdict.requests for verdict in verdicts) == 1


async def test_callers_share_what_is_in_flight(make_pool: MakePool) -> None:
    judge = FakeJudge(gate=asyncio.Event())
    pool = make_pool(judge, concurrency=4)
    callers = [asyncio.create_task(pool.validate(questions(8))) for _ in range(5)]
    await settle(lambda: judge.in_flight == 4)
    judge.gate.set()
    answers = await asyncio.gather(*callers)
    assert sorted(judge.asked) == sorted(q.text for q in questions(8))
    assert all([v.key for v in answer] == [v.key for v in answers[0]] for answer in answers)
    assert sum(verdict.requests for answer in answers for verdict in answer) == 8


async def test_a_caller_that_leaves_does_not_take_the_call_with_it(make_pool: MakePool) -> None:
    judge = FakeJudge(gate=asyncio.Event())
    pool = make_pool(judge)
    leaves = asyncio.create_task(only(pool))
    await settle(lambda: judge.in_flight == 1)
    stays = asyncio.create_task(only(pool))
    await asyncio.sleep(0.02)
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    judge.gate.set()
    assert (await stays).outcome is Outcome.LABEL
    assert len(judge.asked) == 1


async def test_no_more_than_the_limit_are_in_flight(make_pool: MakePool) -> None:
    judge = FakeJudge(gate=asyncio.Event())
    pool = make_pool(judge, concurrency=3)
    both = asyncio.gather(pool.validate(questions(30)), pool.validate(questions(60)[30:]))
    await settle(lambda: pool.stats().waiting == 57 and judge.in_flight == 3)
    await asyncio.sleep(0.02)
    judge.gate.set()
    await both
    assert judge.max_in_flight == 3
    assert len(judge.asked) == 60


@pytest.mark.parametrize("error", [DOWN, LATE])
async def test_another_try_may_succeed(
    make_pool: MakePool, time: FakeTime, error: JudgeError
) -> None:
    pool = make_pool(FakeJudge(script(error, error)))
    verdict = await only(pool)
    assert (verdict.outcome, verdict.requests) == (Outcome.LABEL, 3)
    assert 0.5 <= time.slept_s[0] <= 1.0 <= time.slept_s[1] <= 2.0
    assert verdict.latency_ms == pytest.approx(sum(time.slept_s) * 1000)
    assert pool.stats().answered == 1
    assert pool.stats().timeouts == pool.stats().errors == 0


@pytest.mark.parametrize(("error", "outcome"), [(DOWN, Outcome.ERROR), (LATE, Outcome.TIMEOUT)])
async def test_after_all_tries_the_failure_is_the_outcome(
    make_pool: MakePool, ledger: Ledger, error: JudgeError, outcome: Outcome
) -> None:
    pool = make_pool(FakeJudge(script(then=error)), max_attempts=3)
    verdict = await only(pool)
    assert (verdict.outcome, verdict.label, verdict.requests) == (outcome, None, 3)
    assert verdict.error == f"{type(error).__name__}: {error}"
    assert ledger.get_many([verdict.key]) == {}
    assert ledger.spent("fake").requests == 3


async def test_a_failed_question_may_be_asked_again_and_adds_up(
    make_pool: MakePool, ledger: Ledger
) -> None:
    await only(make_pool(FakeJudge(script(then=DOWN)), max_attempts=2))
    again = await only(make_pool(FakeJudge()))
    assert (again.outcome, again.requests) == (Outcome.LABEL, 1)
    assert ledger.spent("fake").requests == 3


async def test_retry_after_is_honoured(make_pool: MakePool, time: FakeTime) -> None:
    await only(make_pool(FakeJudge(script(JudgeUnavailable("busy", 30.0)))))
    assert 30.0 < time.slept_s[0] <= 31.0


async def test_total_time_bounds_the_tries(make_pool: MakePool, time: FakeTime) -> None:
    judge = FakeJudge(script(label(), then=LATE))
    pool = make_pool(judge, max_attempts=100, total_time_s=20.0)
    await only(pool, question("heard"))
    started_s = time.now_s
    assert (await only(pool)).outcome is Outcome.TIMEOUT
    assert 5 < time.now_s - started_s < 20
    assert len(judge.asked) < 8


async def test_a_wait_longer_than_the_total_time_is_not_waited_for(
    make_pool: MakePool, time: FakeTime
) -> None:
    """One question that is told so fails; a judge that tells everybody so stops the run."""
    too_long = JudgeUnavailable("b", 9e9)
    judge = FakeJudge(lambda _, q: too_long if q.text == "text 0" else label())
    verdicts = await make_pool(judge, total_time_s=20.0).validate(questions(3))
    assert [v.outcome for v in verdicts] == [Outcome.ERROR, Outcome.LABEL, Outcome.LABEL]
    everybody = FakeJudge(script(then=too_long))
    with pytest.raises(JudgeUnavailable, match="no answer from the judge for 0 s"):
        await make_pool(everybody, total_time_s=20.0).validate(questions(100))
    assert len(everybody.asked) < 25
    assert time.slept_s == []


async def test_another_error_is_the_question_s_own_and_not_tried_again(make_pool: MakePool) -> None:
    judge = FakeJudge(lambda _, q: JudgeError("too long") if q.text == "text 1" else label())
    verdicts = await make_pool(judge).validate(questions(3))
    outcomes = [verdict.outcome for verdict in verdicts]
    assert outcomes == [Outcome.LABEL, Outcome.ERROR, Outcome.LABEL]
    assert len(judge.asked) == 3


async def test_unreadable_is_asked_once_more(make_pool: MakePool, time: FakeTime) -> None:
    verdict = await only(make_pool(FakeJudge(script(UNREADABLE))))
    assert (verdict.outcome, verdict.requests) == (Outcome.LABEL, 2)
    assert verdict.prompt_tokens == 20
    assert time.slept_s == [0.0]


async def test_unreadable_twice_stays_unreadable(make_pool: MakePool, ledger: Ledger) -> None:
    pool = make_pool(FakeJudge(script(then=UNREADABLE)), max_attempts=9)
    verdict = await only(pool)
    assert (verdict.outcome, verdict.label, verdict.requests) == (Outcome.UNREADABLE, None, 2)
    assert ledger.get_many([verdict.key]) == {}
    assert pool.stats().unreadable == 1


async def test_max_attempts_counts_every_request(make_pool: MakePool) -> None:
    judge = FakeJudge(script(DOWN, UNREADABLE, DOWN))
    verdict = await only(make_pool(judge, max_attempts=3))
    assert (verdict.outcome, verdict.requests) == (Outcome.ERROR, 3)


async def test_no_failure_becomes_a_label_or_a_none(make_pool: MakePool) -> None:
    """Defect 11 of the reference, over every kind of failure at once."""
    acts = [DOWN, LATE, UNREADABLE, JudgeError("own"), label()]

    def act(_: int, q: Question) -> Reply | JudgeError:
        return acts[int(q.text.split()[1]) % 5]

    verdicts = await make_pool(FakeJudge(act), max_attempts=2).validate(questions(100))
    expected = [Outcome.ERROR, Outcome.TIMEOUT, Outcome.UNREADABLE, Outcome.ERROR, Outcome.LABEL]
    assert [verdict.outcome for verdict in verdicts] == expected * 20
    assert sum(verdict.label is not None for verdict in verdicts) == 20


@pytest.mark.parametrize("error", [DOWN, LATE])
async def test_a_silence_longer_than_the_total_time_stops_the_run(
    make_pool: MakePool, ledger: Ledger, error: JudgeError
) -> None:
    judge = FakeJudge(script(*[label()] * 5, then=error))
    pool = make_pool(judge, concurrency=2, total_time_s=30.0)
    with pytest.raises(JudgeUnavailable, match=r"no answer from the judge for 30 s") as caught:
        await pool.validate(questions(200))
    assert "\n" not in str(caught.value)
    assert len(judge.asked) < 60
    assert len(ledger.get_many([pool.key(q) for q in questions(200)])) == 5
    assert ledger.spent("fake").requests == len(judge.asked)


async def test_one_text_that_times_out_does_not_stop_the_run(make_pool: MakePool) -> None:
    judge = FakeJudge(lambda _, q: LATE if q.text == "text 0" else label())
    verdicts = await make_pool(judge, concurrency=1, total_time_s=3.0).validate(questions(3))
    outcomes = [verdict.outcome for verdict in verdicts]
    assert outcomes == [Outcome.TIMEOUT, Outcome.LABEL, Outcome.LABEL]


async def test_failures_between_answers_never_stop_the_run(make_pool: MakePool) -> None:
    judge = FakeJudge(lambda number, _: DOWN if number % 2 else UNREADABLE)
    verdicts = await make_pool(judge, max_attempts=2, total_time_s=5.0).validate(questions(50))
    assert len(verdicts) == 50


async def test_a_refusal_stops_at_once_and_keeps_what_was_answered(
    make_pool: MakePool, ledger: Ledger, time: FakeTime
) -> None:
    judge = FakeJudge(script(*[label()] * 10, then=REFUSED))
    pool = make_pool(judge, concurrency=2)
    with pytest.raises(JudgeRefused, match="check the key"):
        await pool.validate(questions(100))
    assert len(judge.asked) <= 12
    assert len(ledger.get_many([pool.key(q) for q in questions(100)])) == 10
    assert ledger.spent("fake").requests == len(judge.asked)
    assert time.slept_s == []


async def test_a_stream_gives_what_came_before_the_refusal(make_pool: MakePool) -> None:
    pool = make_pool(FakeJudge(script(label(), label(), then=REFUSED)), concurrency=1)
    seen: list[Verdict] = []

    async def look() -> None:
        async for verdict in pool.stream(questions(9)):
            seen.append(verdict)  # noqa: PERF401 (a list that the error leaves behind)

    with pytest.raises(JudgeRefused):
        await look()
    assert len(seen) == 2


async def test_a_refusal_cancels_what_is_in_flight(make_pool: MakePool) -> None:
    class Refuses(FakeJudge):
        async def ask(self, question: Question, complaint: str = "") -> Reply:
            if question.text == "text 0":
                await settle(lambda: self.in_flight == 7)
                raise REFUSED
            return await super().ask(question, complaint)

    judge = Refuses(gate=asyncio.Event())
    pool = make_pool(judge, concurrency=8)
    with pytest.raises(JudgeRefused):
        await pool.validate(questions(50))
    assert judge.in_flight == 0
    assert idle(pool)


def idle(pool: ValidatorPool) -> bool:
    return pool.stats().in_flight == pool.stats().waiting == 0


async def test_a_refusal_is_told_before_the_faults_it_brings(
    make_pool: MakePool, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ledger.write

    def fail_at_the_end(entries: Sequence[Entry]) -> None:
        if not any(isinstance(entry, Sent) for entry in entries):
            raise StorageError("disk full")
        write(entries)

    monkeypatch.setattr(ledger, "write", fail_at_the_end)

    class Refuses(FakeJudge):
        async def ask(self, question: Question, complaint: str = "") -> Reply:
            if question.text == "text 1":
                await settle(lambda: self.in_flight == 1)
                raise REFUSED
            return await super().ask(question, complaint)

    pool = make_pool(Refuses(gate=asyncio.Event()))
    with pytest.raises(JudgeRefused):
        await pool.validate(questions(2))


async def test_cancellation_passes_through_and_gives_the_slots_back(
    make_pool: MakePool, ledger: Ledger
) -> None:
    judge = FakeJudge(gate=asyncio.Event())
    pool = make_pool(judge, concurrency=4)
    task = asyncio.create_task(pool.validate(questions(20)))
    await settle(lambda: judge.in_flight == 4)
    assert (pool.stats().in_flight, pool.stats().waiting) == (4, 16)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert idle(pool)
    assert judge.in_flight == 0
    assert ledger.spent("fake").requests == 4, "what left may have been paid for"
    judge.gate.set()
    assert len(await pool.validate(questions(20))) == 20


async def test_a_stream_that_is_left_early_stops_asking(make_pool: MakePool) -> None:
    judge = FakeJudge()
    pool = make_pool(judge, concurrency=1)
    async with aclosing(pool.stream(questions(100))) as verdicts:
        async for _ in verdicts:
            break
    assert len(judge.asked) < 10
    assert idle(pool)


async def test_a_failing_consumer_gets_its_own_error(make_pool: MakePool) -> None:
    pool = make_pool(FakeJudge())

    async def fail() -> None:
        async with aclosing(pool.stream(questions(100))) as verdicts:
            async for _ in verdicts:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert idle(pool)


async def test_a_commit_under_way_is_not_cancelled(
    make_pool: MakePool, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that has arrived is stored, even where its caller goes before it is."""
    began, may_go = threading.Event(), threading.Event()
    write = ledger.write

    def slow_write(entries: Sequence[Entry]) -> None:
        if any(isinstance(entry, Kept) for entry in entries):
            began.set()
            may_go.wait(5)
        write(entries)

    monkeypatch.setattr(ledger, "write", slow_write)
    pool = make_pool(FakeJudge())
    task = asyncio.create_task(pool.validate([question()]))
    await settle(began.is_set)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    may_go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(ledger.get_many([pool.key(question())])) == 1


async def test_a_full_disk_stops_the_run(
    make_pool: MakePool, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("disk full")

    monkeypatch.setattr(ledger, "write", full)
    judge = FakeJudge()
    pool = make_pool(judge, concurrency=2)
    with pytest.raises(StorageError, match="disk full"):
        await pool.validate(questions(50))
    assert len(judge.asked) <= 4
    assert idle(pool)


async def test_close_cancels_what_is_under_way_and_closes_the_judge(
    ledger: Ledger, time: FakeTime
) -> None:
    judge = FakeJudge(gate=asyncio.Event())
    pool = ValidatorPool(judge, ledger, JudgeConfig(), limits=limits(JudgeConfig(), time))
    task = asyncio.create_task(pool.validate(questions(3)))
    await settle(lambda: judge.in_flight == 3)
    await pool.close()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (judge.in_flight, judge.closed) == (0, 1)


@pytest.mark.parametrize("budget", [1, 7, 30])
async def test_the_budget_is_exact(make_pool: MakePool, ledger: Ledger, budget: int) -> None:
    judge = FakeJudge()
    pool = make_pool(judge, budget_calls=budget, concurrency=8)
    verdicts = await pool.validate(questions(50))
    assert len(judge.asked) == len(verdicts) == ledger.spent("fake").requests == budget
    assert pool.exhausted


async def test_the_budget_holds_retries(make_pool: MakePool, ledger: Ledger) -> None:
    judge = FakeJudge(lambda number, _: [DOWN, UNREADABLE, LATE, label()][number % 4])
    pool = make_pool(judge, budget_calls=41, concurrency=8)
    verdicts = await pool.validate(questions(100))
    assert len(judge.asked) == ledger.spent("fake").requests == 41
    assert sum(verdict.requests for verdict in verdicts) == 41


async def test_the_budget_is_for_the_life_of_the_ledger(make_pool: MakePool) -> None:
    first, second = FakeJudge(), FakeJudge()
    await make_pool(first, budget_calls=30).validate(questions(20))
    pool = make_pool(second, budget_calls=30)
    verdicts = await pool.validate(questions(50))
    assert len(second.asked) == 10
    assert len(verdicts) == 30, "what the ledger knows is free"


async def test_a_question_that_the_budget_cut_short_keeps_its_failure(make_pool: MakePool) -> None:
    pool = make_pool(FakeJudge(script(then=LATE)), budget_calls=2)
    (verdict,) = await pool.validate([question()])
    assert (verdict.outcome, verdict.requests) == (Outcome.TIMEOUT, 2)
    assert await pool.validate([question("another")]) == []


async def test_a_budget_that_is_not_used_up_is_not_exhausted(make_pool: MakePool) -> None:
    pool = make_pool(FakeJudge(), budget_calls=3)
    assert not pool.exhausted
    await pool.validate(questions(2))
    assert not pool.exhausted
    assert not make_pool(FakeJudge()).exhausted


async def test_the_counters_tell_everything_apart(make_pool: MakePool) -> None:
    acts = script(label(), Reply(Outcome.NONE), UNREADABLE, UNREADABLE, LATE, LATE, DOWN, DOWN)
    pool = make_pool(FakeJudge(acts), concurrency=1, queue=1, max_attempts=2)
    await pool.validate([*questions(5), question("text 0")])
    stats = pool.stats()
    assert stats.requests == 8
    assert (stats.answered, stats.cached) == (2, 1)
    assert (stats.unreadable, stats.timeouts, stats.errors) == (1, 1, 1)
    assert (stats.in_flight, stats.waiting) == (0, 0)
    assert 0 == stats.latency_p50_ms < 500 <= stats.latency_p95_ms


def test_a_new_pool_has_no_latency(ledger: Ledger) -> None:
    stats = ValidatorPool(FakeJudge(), ledger, JudgeConfig()).stats()
    assert stats.requests == stats.latency_p50_ms == stats.latency_p95_ms == 0


async def test_over_http_the_server_s_count_is_ours(make_pool: MakePool, ledger: Ledger) -> None:
    faults = [status(429, retry_after="1"), status(500), reset(), garbage(), status(503)]
    seen: Counter[str] = Counter()

    def once_each(_: int, received: Received) -> Step:
        """Every kind of fault at the first request for one of the texts."""
        text = received.messages[1]["content"].splitlines()[-1]
        seen[text] += 1
        number = int(text.strip('"').split()[1])
        return faults[number] if number < len(faults) and seen[text] == 1 else ok()

    async with OpenAIServer(once_each) as server:
        config = JudgeConfig(spec=f"openai:m@{server.base_url}")
        judge = make_judge(config, seed=0, environ={})
        pool = make_pool(judge, concurrency=4)
        verdicts = await pool.validate(questions(40))
        again = await pool.validate(questions(40))
        await pool.close()
    assert {verdict.outcome for verdict in verdicts} == {Outcome.LABEL}
    assert server.n_requests == pool.stats().requests == ledger.spent(judge.name).requests
    assert server.n_requests == 40 + len(faults)
    assert [v.label for v in again] == [v.label for v in verdicts]


async def test_a_judge_is_told_why_its_answer_was_unreadable(make_pool: MakePool) -> None:
    unread = replace(UNREADABLE, reason="it was empty")
    judge = FakeJudge(script(unread, label()))
    assert (await only(make_pool(judge))).outcome is Outcome.LABEL
    assert judge.complaints == ["", "it was empty"]


async def test_no_more_requests_leave_in_a_minute_than_allowed(
    make_pool: MakePool, time: FakeTime
) -> None:
    sent_s: list[float] = []

    def note(number: int, _: Question) -> Reply:
        sent_s.append(time.now_s)
        return label()

    await make_pool(FakeJudge(note), requests_per_minute=10).validate(questions(35))
    assert len(sent_s) == 35
    assert max(sum(0 <= one - first < 60 for one in sent_s) for first in sent_s) == 10


async def test_a_new_pool_goes_on_with_the_minute_of_the_one_before(
    make_pool: MakePool, time: FakeTime
) -> None:
    await make_pool(FakeJudge(), requests_per_minute=10).validate(questions(10))
    time.slept_s.clear()
    await only(make_pool(FakeJudge(), requests_per_minute=10), question("another"))
    assert sum(time.slept_s) > 55


PRICED = {
    "spec": "openai:m@http://127.0.0.1:1/v1",
    "prices": {"m": {"input_usd": 100_000.0, "output_usd": 0.0}},
}


@pytest.mark.parametrize("budget", [{"budget_tokens": 600}, {"budget_usd": 60.0}])
async def test_a_budget_in_tokens_or_money_is_not_exceeded(
    make_pool: MakePool, ledger: Ledger, budget: dict[str, float]
) -> None:
    """Ten tokens of prompt and two of answer each time, a dollar a request."""
    judge = FakeJudge()
    pool = make_pool(judge, **PRICED, **budget, concurrency=4, max_answer_tokens=16)
    bought = await pool.validate(questions(40))
    spent = ledger.spent("fake")
    assert len(bought) == len(judge.asked) > 0
    assert spent.tokens <= budget.get("budget_tokens", 10**9)
    assert spent.cost_usd <= budget.get("budget_usd", 10**9)
    assert len(judge.asked) > 35, "what was reserved too much is given back"


async def test_the_first_burst_is_held_to_a_budget_in_tokens_too(
    make_pool: MakePool, ledger: Ledger
) -> None:
    """Before the first answer nobody knows that each takes 2,000 tokens."""
    long = Reply(Outcome.LABEL, "card_arrival", prompt_tokens=300, completion_tokens=2_000)
    for name, n_bought in (("fake", 4), ("fake", 0)):
        judge = FakeJudge(script(then=long))
        judge.name = name
        spec = {"spec": "openai:m@http://127.0.0.1:1/v1"}
        pool = make_pool(judge, **spec, budget_tokens=10_000, concurrency=64)
        await pool.validate([question(f"{n_bought} {n}") for n in range(100)])
        assert len(judge.asked) == n_bought, "a restart knows what answers took before"
    assert ledger.spent("fake").tokens == 9_200


async def test_a_prompt_larger_than_a_minute_is_told(make_pool: MakePool) -> None:
    judge = FakeJudge(script(then=Reply(Outcome.LABEL, "card_arrival", prompt_tokens=300)))
    spec = {"spec": "openai:m@http://127.0.0.1:1/v1"}
    pool = make_pool(judge, **spec, tokens_per_minute=200)
    verdicts = await pool.validate(questions(3))
    assert [verdict.outcome for verdict in verdicts[1:]] == [Outcome.ERROR] * 2
    assert "is over judge.tokens_per_minute=200" in verdicts[1].error
    assert len(judge.asked) == 1


async def test_what_could_not_be_read_is_not_paid_for_again_in_its_round(
    make_pool: MakePool,
) -> None:
    """After a kill, too: it was answered, and the answer was of no use."""
    await make_pool(FakeJudge(script(then=UNREADABLE))).validate(questions(3), asked_in="run/1")
    judge = FakeJudge()
    again = await make_pool(judge).validate(questions(3), asked_in="run/1")
    assert [(v.outcome, v.requests) for v in again] == [(Outcome.UNREADABLE, 2)] * 3
    assert judge.asked == []
    assert len(await make_pool(judge).validate(questions(3), asked_in="run/2")) == 3
    assert len(judge.asked) == 3, "another round may try"


async def test_an_entry_that_no_database_takes_loses_no_other(
    make_pool: MakePool, ledger: Ledger
) -> None:
    huge = Reply(Outcome.LABEL, "card_arrival", prompt_tokens=10**30)
    judge = FakeJudge(lambda _, q: huge if q.text == "text 3" else label())
    with pytest.raises(OverflowError):
        await make_pool(judge, concurrency=8).validate(questions(8))
    kept = sum(1 for _ in ledger.verdicts())
    assert kept == 7


async def test_a_failed_request_costs_what_it_may_have_cost(
    make_pool: MakePool, ledger: Ledger
) -> None:
    """A time-out may have been answered; a 429 was not."""
    busy = JudgeUnavailable("busy", None, "http_429")
    for error, n_tokens in ((LATE, 100), (busy, 0)):
        judge = FakeJudge(script(then=error))
        judge.name = f"fake {n_tokens}"
        await only(make_pool(judge, **PRICED, max_attempts=1))
        assert (ledger.spent(judge.name).tokens > n_tokens) == (n_tokens > 0)
        assert (ledger.spent(judge.name).cost_usd > 0) == (n_tokens > 0)


async def test_the_ledger_counts_each_request_by_what_came_of_it(
    make_pool: MakePool, ledger: Ledger
) -> None:
    busy = JudgeUnavailable("busy", None, "http_503")
    judge = FakeJudge(script(busy, UNREADABLE, LATE, label()))
    pool = make_pool(judge, concurrency=1, max_attempts=5)
    await pool.validate([question()], asked_in="run/1")
    expected = {"http_503": 1, "label": 1, "timeout": 1, "unreadable": 1}
    assert ledger.requests_of("run").results == expected
    assert pool.stats().results == expected


async def test_where_a_schema_is_refused_it_is_asked_again_at_once(
    make_pool: MakePool, time: FakeTime
) -> None:
    judge = FakeJudge(script(SchemaRefused("no schema"), label()))
    assert (await only(make_pool(judge))).outcome is Outcome.LABEL
    assert sum(time.slept_s) == 0


async def test_a_round_that_is_replayed_fails_where_it_failed(
    make_pool: MakePool, ledger: Ledger
) -> None:
    fails = FakeJudge(lambda _, q: LATE if q.text == "text 1" else label())
    first = await make_pool(fails, max_attempts=1).validate(questions(3), asked_in="run/1")
    well = FakeJudge()
    pool = make_pool(well, max_attempts=1)
    again = await pool.validate(questions(3), asked_in="run/1", replay=True)
    assert [(v.outcome, v.requests) for v in again] == [(v.outcome, v.requests) for v in first]
    assert well.asked == []
    gone_on = await pool.validate(questions(3), asked_in="run/1")
    assert [v.outcome for v in gone_on] == [Outcome.LABEL] * 3
    assert well.asked == ["text 1"], "a round that was not finished asks again"
    later = await pool.validate(questions(3), asked_in="run/1", replay=True)
    assert [v.outcome for v in later] == [Outcome.LABEL] * 3, "no answer is lost to a failure"


async def test_what_a_person_said_outranks_the_judge(make_pool: MakePool, ledger: Ledger) -> None:
    pool = make_pool(FakeJudge())
    await pool.validate(questions(3))
    said = {"text 0": "top_up", "text 1": None, "text 2": "a label of its own"}
    ledger.add_humans(HumanVerdict(text, told) for text, told in said.items())
    judge = FakeJudge()
    verdicts = await make_pool(judge).validate(questions(3))
    assert [v.label for v in verdicts] == list(said.values())
    assert {v.judge for v in verdicts} == {HUMAN}
    assert judge.asked == []


async def test_in_verify_mode_a_persons_other_label_is_a_no(
    make_pool: MakePool, ledger: Ledger
) -> None:
    asked = question(labels=["card_arrival"], mode="verify")
    ledger.add_humans([HumanVerdict(asked.text, "top_up")])
    assert (await only(make_pool(FakeJudge()), asked)).outcome is Outcome.NONE


@pytest.mark.parametrize("mode", WRITING)
async def test_a_persons_label_is_no_words_of_a_judge(
    make_pool: MakePool, ledger: Ledger, mode: str
) -> None:
    asked, judge = question(labels=["card_arrival"], mode=mode), FakeJudge()
    ledger.add_humans([HumanVerdict(asked.text, "card_arrival")])
    assert (await only(make_pool(judge), asked)).judge != HUMAN
    assert len(judge.asked) == 1


async def test_candidates_come_in_an_order_of_their_own_by_the_seed(
    ledger: Ledger, time: FakeTime
) -> None:
    class Keeps(FakeJudge):
        async def ask(self, question: Question, complaint: str = "") -> Reply:
            orders.append(tuple(candidate.label for candidate in question.candidates))
            return UNREADABLE  # so that the ledger answers nothing

    drawn: dict[int, list[tuple[str, ...]]] = {}
    for seed in (1, 1, 2):
        orders: list[tuple[str, ...]] = []
        config = JudgeConfig(concurrency=1, queue=1)
        pool = ValidatorPool(Keeps(), ledger, config, seed=seed, limits=limits(config, time))
        await pool.validate(questions(30))
        await pool.close()
        assert drawn.setdefault(seed, orders) == orders
    assert len(set(drawn[1])) > 3
    assert drawn[1] != drawn[2]


async def test_a_simulated_run_does_not_depend_on_concurrency(tmp_path: Path) -> None:
    labels = []
    for concurrency in (1, 16):
        ledger = Ledger(tmp_path / f"{concurrency}.sqlite")
        config = JudgeConfig(spec="simulated:0.7", concurrency=concurrency)
        judge = make_judge(config, seed=3, hidden=lambda _: "top_up", environ={})
        pool = ValidatorPool(judge, ledger, config)
        labels.append([verdict.label for verdict in await pool.validate(questions(200))])
        await pool.close()
        ledger.close()
    assert labels[0] == labels[1]
    assert len(set(labels[0])) > 1


async def test_a_request_that_never_left_counts_as_a_call_and_costs_nothing(
    make_pool: MakePool, ledger: Ledger
) -> None:
    """A connection that was lost on the way may have brought it there."""
    for never_left in (True, False):
        judge = FakeJudge(script(then=JudgeUnavailable("gone", never_left=never_left)))
        judge.name = f"fake {never_left}"
        pool = make_pool(judge, **PRICED, max_attempts=1)
        await only(pool)
        spent = ledger.spent(judge.name)
        assert spent.requests == 1
        assert (spent.tokens == 0) == (spent.cost_usd == 0) == never_left
        assert (pool.stats().tokens == 0) == never_left
