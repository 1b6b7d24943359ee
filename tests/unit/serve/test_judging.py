"""The judge tier: who is asked, how long a call waits, and what becomes of it where that fails."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from red_ray.errors import (
    JudgeRefused,
    JudgeTimeout,
    JudgeUnavailable,
    OutputError,
    StorageError,
)
from red_ray.judges import Ledger, question_key
from red_ray.judges.ledger import HumanVerdict
from red_ray.types import Outcome
from serve import judging, service
from serve.schemas import ClassifyRequest
from tests.unit.judges.fakes import UNREADABLE, FakeJudge, label, script
from tests.unit.serve.endpoints import (
    LONG_S,
    Endpoint,
    Scripted,
    first_candidate,
    hanging,
    held_judge,
    open_endpoint,
    opens,
    opens_one,
    raising,
    until,
    verdict_of,
    write_anew,
)

SOON = {"judge": {"wait_s": 0.02}}
"""For a call that is to wait in vain."""


def policy(run, on_failure):
    """Write a policy into the run's configuration."""
    path = run / "config.yaml"
    text = path.read_text().replace("on_failure: abstain", f"on_failure: {on_failure}")
    path.write_text(text)


def patient(endpoint: Endpoint) -> None:
    """Let calls wait from now on."""
    tier = endpoint.service._judging._settings
    endpoint.service._judging._settings = tier.model_copy(update={"wait_s": LONG_S})


async def asked_about(endpoint: Endpoint, texts, **options):
    """Results with what the judge said of each."""
    results = await endpoint.classify(texts, explain=True, **options)
    return results, [result["explanation"]["judge"] for result in results]


@asynccontextmanager
async def waiting(endpoint: Endpoint, texts) -> AsyncIterator[asyncio.Task]:
    """A call that waits for the judge."""
    call = asyncio.create_task(endpoint.classify(texts))
    await until(lambda: endpoint.service._judging.n_open > 0)
    try:
        yield call
    finally:
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


# --- who is asked ------------------------------------------------------------------------------


async def test_auto_asks_about_what_the_model_escalates(served, sorts):
    judge = FakeJudge(first_candidate)
    async with open_endpoint(served, opens(judge)) as endpoint:
        results = await endpoint.classify([*sorts.sure, *sorts.doubtful])
    n_sure = len(sorts.sure)
    assert sorted(judge.asked) == sorted(sorts.doubtful)
    assert {one["source"] for one in results[:n_sure]} == {"model"}
    assert {one["source"] for one in results[n_sure:]} == {"judge"}
    assert {one["decision"] for one in results[n_sure:]} == {"accept"}


async def test_never_asks_about_none(served, sorts):
    async with open_endpoint(served) as endpoint:
        results, said = await asked_about(endpoint, sorts.doubtful, escalate="never")
    assert {one["decision"] for one in results} == {"escalate"}
    assert {one["source"] for one in results} == {"model"}
    assert said == [None] * len(sorts.doubtful)


async def test_always_asks_about_every_text(served, sorts):
    judge = FakeJudge(lambda _, question: label(question.candidates[1].label))
    async with open_endpoint(served, opens(judge)) as endpoint:
        before = await endpoint.classify(sorts.sure, escalate="never")
        results = await endpoint.classify(sorts.sure, escalate="always")
    assert sorted(judge.asked) == sorted(sorts.sure)
    assert {one["source"] for one in results} == {"judge"}
    assert [one["label"] for one in results] != [one["label"] for one in before]


async def test_without_a_judge_nobody_is_asked(served, sorts):
    async with open_endpoint(served, judge={"spec": "off"}) as endpoint:
        results, said = await asked_about(endpoint, sorts.doubtful)
        assert (await endpoint.get("/v1/model"))["judge"] is None
    assert {one["decision"] for one in results} == {"escalate"}
    assert said == [None] * len(sorts.doubtful)


async def test_a_none_of_the_judge_is_none(served, sorts):
    from red_ray.types import Reply

    judge = FakeJudge(script(then=Reply(Outcome.NONE)))
    async with open_endpoint(served, opens(judge)) as endpoint:
        ((result,), (said,)) = await asked_about(endpoint, sorts.doubtful[:1])
    assert (result["decision"], result["source"], result["label"]) == ("none", "judge", None)
    assert said["outcome"] == "none"


# --- waiting -----------------------------------------------------------------------------------


async def test_a_call_that_needs_no_judge_never_waits_for_one(served, sorts):
    async with (
        open_endpoint(served, opens_one(hanging())) as endpoint,
        waiting(endpoint, sorts.doubtful[:3]) as slow,
    ):
        results = await endpoint.classify(sorts.sure)
        assert not slow.done()
    assert {one["source"] for one in results} == {"model"}


async def test_a_judge_that_takes_long_to_open_keeps_only_its_own_calls_waiting(served, sorts):
    gate = asyncio.Event()

    async def slowly(opening):
        await gate.wait()
        return await opens(FakeJudge(first_candidate))(opening)

    async with (
        open_endpoint(served, slowly) as endpoint,
        waiting(endpoint, sorts.doubtful[:1]) as slow,
    ):
        assert (await endpoint.classify(sorts.sure[:1]))[0]["source"] == "model"
        said = {"answers": [{"text": "a", "label": None}]}
        assert (await endpoint.post("/v1/feedback", said)).json()["kept"] == 1
        assert await endpoint.queued() == []
        assert not slow.done()
        gate.set()
        assert (await slow)[0]["source"] == "judge"


async def test_what_takes_too_long_stays_escalated_and_is_there_the_next_time(served, sorts):
    """Paid for once: the answer goes into the ledger without the call."""
    judge, text = held_judge(), sorts.doubtful[0]
    async with open_endpoint(served, opens(judge), **SOON) as endpoint:
        ((result,), (said,)) = await asked_about(endpoint, [text])
        assert (result["decision"], result["source"]) == ("escalate", "model")
        assert result["label"] is not None
        assert said["outcome"] == "pending"
        assert (said["requests"], said["cost_usd"], said["from_ledger"]) == (0, None, False)
        judge.gate.set()
        await until(lambda: endpoint.service._judging.n_open == 0)
        patient(endpoint)
        ((result,), (said,)) = await asked_about(endpoint, [text])
    assert (result["decision"], result["source"]) == ("accept", "judge")
    assert (said["outcome"], said["label"]) == ("label", result["label"])
    assert said["from_ledger"]
    assert (said["requests"], said["cost_usd"], said["latency_ms"]) == (0, 0.0, None)
    assert judge.asked == [text]


async def test_an_answer_is_told_as_bought_once_and_as_known_from_then_on(served, sorts):
    """Also by the next process, and for an answer that cannot be read."""
    text, other = sorts.doubtful[:2]
    judge = FakeJudge(
        lambda _, question: UNREADABLE if question.text == other else first_candidate(0, question)
    )
    bought = []
    for _ in range(2):
        async with open_endpoint(served, opens(judge)) as endpoint:
            for _ in range(2):
                _, said = await asked_about(endpoint, [text, other])
                bought.append([(one["requests"], one["from_ledger"]) for one in said])
    assert bought[0] == [(1, False), (1, False)]
    assert bought[1:] == [[(0, True), (0, False)]] * 3
    assert len(judge.asked) == 2


async def test_two_calls_about_one_text_ask_once(served, sorts):
    judge, text = held_judge(), sorts.doubtful[0]
    async with open_endpoint(served, opens(judge)) as endpoint:
        calls = [
            asyncio.create_task(asked_about(endpoint, [one]))
            for one in (text, text.upper(), f" {text} ")
        ]
        await until(lambda: endpoint.service._judging.n_open == 3 and bool(judge.asked))
        judge.gate.set()
        found = await asyncio.gather(*calls)
    assert len(judge.asked) == 1
    assert len({results[0]["label"] for results, _ in found}) == 1
    assert sorted(said[0]["requests"] for _, said in found) == [0, 0, 1]


async def test_more_open_questions_than_are_allowed_are_not_asked(served, sorts):
    judge = held_judge()
    limits = {"judge": {"wait_s": 0.02, "open_questions": 2}}
    async with open_endpoint(served, opens(judge), **limits) as endpoint:
        results, said = await asked_about(endpoint, sorts.doubtful[:4])
        assert {one["decision"] for one in results} == {"escalate"}
        assert [one["outcome"] for one in said] == ["pending"] * 2 + ["not_asked"] * 2
        judge.gate.set()
        await until(lambda: endpoint.service._judging.n_open == 0)
        assert sorted(judge.asked) == sorted(sorts.doubtful[:2])
        patient(endpoint)
        results, _ = await asked_about(endpoint, sorts.doubtful[2:4])
    assert {one["decision"] for one in results} == {"accept"}


async def test_a_budget_that_is_used_up_leaves_texts_escalated(served, sorts):
    judge = FakeJudge(first_candidate)
    budget = opens(judge, budget_calls=2, concurrency=1)
    async with open_endpoint(served, budget) as endpoint:
        results, said = await asked_about(endpoint, sorts.doubtful[:5])
    assert [one["decision"] for one in results].count("escalate") == 3
    assert [one["outcome"] for one in said].count("not_asked") == 3
    assert len(judge.asked) == 2


# --- failures ----------------------------------------------------------------------------------

POLICIES = [("abstain", {("abstain", "judge")}), ("answer_best", {("accept", "model")})]


@pytest.mark.parametrize(("on_failure", "wanted"), POLICIES)
@pytest.mark.parametrize(
    "error",
    [
        JudgeRefused("check the key"),
        JudgeUnavailable("nobody there"),
        JudgeTimeout("late"),
        StorageError("the disk is full"),
        OutputError("another process asks the judge"),
        ValueError("a fault of ours"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_where_asking_fails_the_policy_holds(served, sorts, error, on_failure, wanted):
    policy(served, on_failure)
    async with open_endpoint(served, opens_one(raising(error))) as endpoint:
        results, said = await asked_about(endpoint, sorts.doubtful[:2])
        stats = await endpoint.get("/v1/stats")
    assert {(one["decision"], one["source"]) for one in results} <= wanted | {("none", "model")}
    assert (results[0]["label"] is None) == (on_failure == "abstain")
    assert {one["outcome"] for one in said} == {"error"}
    told = "log says why" if isinstance(error, ValueError) else str(error)
    assert told in said[0]["error"]
    assert stats["errors"] == 0


@pytest.mark.parametrize(("on_failure", "wanted"), POLICIES)
async def test_a_label_that_was_not_offered_is_no_answer(served, sorts, on_failure, wanted):
    policy(served, on_failure)
    judge = FakeJudge(script(then=label("never_offered")))
    async with open_endpoint(served, opens(judge)) as endpoint:
        results, said = await asked_about(endpoint, sorts.doubtful[:2])
    assert {(one["decision"], one["source"]) for one in results} <= wanted | {("none", "model")}
    assert "never_offered" not in [one["label"] for one in results]
    assert {one["outcome"] for one in said} == {"unreadable"}
    assert "not offered" in said[0]["error"]


@pytest.mark.parametrize(("on_failure", "wanted"), POLICIES)
async def test_while_the_judge_is_away_the_policy_holds_at_once(
    served, sorts, monkeypatch, on_failure, wanted
):
    """Whether questions are still taken or too many are open; and not for the whole `wait_s`."""
    monkeypatch.setattr(judging, "AWAY_WAIT_S", 0.01)
    policy(served, on_failure)
    judge = hanging()
    judge.notice = "the judge is away, trying again in 5 s"
    tier = {"judge": {"wait_s": 60.0, "open_questions": 3}}
    async with (
        open_endpoint(served, opens_one(judge), **tier) as endpoint,
        waiting(endpoint, sorts.doubtful[:1]),
    ):
        await until(lambda: bool(judge.asked))
        await endpoint.get("/v1/stats")  # by which it is told
        results, said = await asked_about(endpoint, sorts.doubtful[1:6])
        assert endpoint.service._judging.n_open == 3
    assert {(one["decision"], one["source"]) for one in results} <= wanted | {("none", "model")}
    assert {one["outcome"] for one in said} == {"error"}
    assert "is away" in said[0]["error"]
    assert "is away" in said[-1]["error"]


@pytest.fixture
def no_report(monkeypatch):
    """A report on its own time would bring the pool's notice, not the one that a test set."""
    monkeypatch.setattr(service, "REPORT_S", LONG_S)


@pytest.mark.usefixtures("no_report")
async def test_while_the_judge_is_away_the_ledger_still_answers(served, sorts):
    judge, (known, new) = held_judge(), sorts.doubtful[:2]
    judge.gate.set()
    async with open_endpoint(served, opens(judge)) as endpoint:
        await endpoint.classify([known])
        judge.gate.clear()
        endpoint.service._judging.notice = "away"
        results, said = await asked_about(endpoint, [known, new])
        judge.gate.set()
    assert [one["decision"] for one in results] == ["accept", "abstain"]
    assert [one["outcome"] for one in said] == ["label", "error"]


@pytest.mark.usefixtures("no_report")
async def test_a_judge_that_is_back_is_asked_again(served, sorts, monkeypatch):
    monkeypatch.setattr(judging, "AWAY_WAIT_S", 0.01)
    judge = held_judge()
    async with open_endpoint(served, opens(judge)) as endpoint:
        endpoint.service._judging.notice = "away"
        assert (await endpoint.classify(sorts.doubtful[:1]))[0]["decision"] == "abstain"
        judge.gate.set()
        await endpoint.get("/v1/stats")  # the pool has no notice
        assert endpoint.service._judging.notice == ""
        assert (await endpoint.classify(sorts.doubtful[1:2]))[0]["source"] == "judge"


async def test_a_judge_that_cannot_be_opened_is_tried_again_later(served, sorts, monkeypatch):
    monkeypatch.setattr(judging, "REOPEN_S", LONG := 1000.0)
    tries = []

    async def held_by_another(opening):
        tries.append(opening.run.path)
        if len(tries) < 2:
            raise OutputError("another process asks the judge; wait until it ends")
        return await opens(FakeJudge(first_candidate))(opening)

    async with open_endpoint(served, held_by_another) as endpoint:
        for _ in range(2):
            results, said = await asked_about(endpoint, sorts.doubtful[:2])
            assert {one["decision"] for one in results} == {"abstain"}
            assert "another process asks the judge" in said[0]["error"]
        assert len(tries) == 1, f"not with each call, but after {LONG} s"
        monkeypatch.setattr(judging, "REOPEN_S", 0.0)
        results = await endpoint.classify(sorts.doubtful[:2])
    assert {one["source"] for one in results} == {"judge"}


# --- people ------------------------------------------------------------------------------------


async def test_a_persons_word_comes_before_the_judges(served, sorts, half):
    text, named = sorts.doubtful[0], half.labels[-1]
    ledger = Ledger(served / "ledger.sqlite")
    ledger.add_humans([HumanVerdict(text.upper(), named)])
    ledger.close()
    judge = FakeJudge(first_candidate)
    async with open_endpoint(served, opens(judge)) as endpoint:
        ((result,), (said,)) = await asked_about(endpoint, [text])
    assert (result["decision"], result["source"], result["label"]) == ("accept", "human", named)
    assert (said["judge"], said["simulated"], said["requests"]) == ("human", False, 0)
    assert judge.asked == []


async def test_feedback_outranks_what_the_judge_has_said(served, sorts):
    text = sorts.doubtful[0]
    async with open_endpoint(served, opens(FakeJudge(first_candidate))) as endpoint:
        assert (await endpoint.classify([text]))[0]["source"] == "judge"
        await endpoint.post("/v1/feedback", {"answers": [{"text": text, "label": None}]})
        (result,) = await endpoint.classify([text])
    assert (result["decision"], result["source"], result["label"]) == ("none", "human", None)


# --- the end -----------------------------------------------------------------------------------


async def test_nothing_goes_on_after_the_end(served, sorts):
    judge = held_judge()
    before = asyncio.all_tasks()
    async with open_endpoint(served, opens(judge), **SOON) as endpoint:
        await endpoint.classify(sorts.doubtful[:5])
        assert endpoint.service._judging.n_open == 5
        await until(lambda: judge.in_flight == 5)
    assert asyncio.all_tasks() == before
    assert endpoint.service._judging.n_open == 0
    assert (judge.in_flight, judge.closed) == (0, 1)


async def test_calls_that_wait_at_the_end_are_answered(served, sorts):
    async with open_endpoint(served, opens_one(hanging())) as endpoint:
        call = asyncio.create_task(endpoint.classify(sorts.doubtful[:2]))
        await until(lambda: endpoint.service._judging.n_open == 2)
        await endpoint.service._judging.close()
        results = await call
    assert {one["decision"] for one in results} == {"escalate"}


async def test_a_caller_who_goes_away_leaves_the_question_open(served, sorts):
    judge, text = held_judge(), sorts.doubtful[0]
    async with open_endpoint(served, opens(judge)) as endpoint:
        async with waiting(endpoint, [text]):
            await until(lambda: bool(judge.asked))
        judge.gate.set()
        await until(lambda: endpoint.service._judging.n_open == 0)
        (result,) = await endpoint.classify([text])
    assert (result["source"], judge.asked) == ("judge", [text])


OF_A_CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("of a caller", default="")


async def test_a_question_is_asked_in_no_callers_context(served, sorts):
    """Serve ends what was begun in the context of a caller who went away, paid for or not."""
    seen = []

    async def answer(question):
        del question
        seen.append(OF_A_CALLER.get())

    token = OF_A_CALLER.set("somebody")
    async with open_endpoint(served, opens_one(Scripted(answer))) as endpoint:
        asked = ClassifyRequest(texts=[sorts.doubtful[0]])
        await endpoint.service.classify(asked)
    OF_A_CALLER.reset(token)
    assert seen == [""]


async def test_another_bundle_has_its_own_questions(served, half, sorts):
    """Another run's judge, another model's candidates: nothing is carried over."""
    judge = FakeJudge(first_candidate)
    async with open_endpoint(served, opens(judge), watch_s=0.01) as endpoint:
        await endpoint.classify(sorts.doubtful[:1])
        described = replace(half, descriptions=("another",) * len(half.labels))
        other = write_anew(described, served)
        await until(lambda: endpoint.service.bundle == other)
        _, (said,) = await asked_about(endpoint, sorts.doubtful[:1])
    assert {one["description"] for one in said["candidates"]} == {"another"}


async def test_a_verdict_with_another_key_is_nobodys(served, sorts):
    """A lying desk: an answer to another question is none to this one."""

    async def confuse(question):
        return verdict_of(question, question.candidates[0].label, question_key(question, "other"))

    async with open_endpoint(served, opens_one(Scripted(confuse))) as endpoint:
        ((result,), (said,)) = await asked_about(endpoint, sorts.doubtful[:1])
    assert (result["decision"], said["outcome"]) == ("escalate", "not_asked")
