"""Both clients against servers that speak the real protocol, and break it."""

import asyncio
import contextlib
import logging
import pickle
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import aiohttp
import pytest

from red_ray.config import JudgeConfig
from red_ray.errors import JudgeError, JudgeRefused, JudgeTimeout, JudgeUnavailable, SchemaRefused
from red_ray.judges import Judge, make_judge, ollama
from red_ray.judges.prompts import CUT, NO_BODY, NONE_OPTION, render
from red_ray.retry_after import retry_after_s
from red_ray.types import Candidate, Outcome, Question, Reply
from tests.servers import (
    OllamaServer,
    OpenAIServer,
    Received,
    ScriptedServer,
    Step,
    costs,
    garbage,
    hang,
    lie,
    loading,
    ok,
    raw,
    reset,
    says,
    status,
    steps,
    trickle,
    two_labels,
    wrong_type,
)
from tests.servers.ollama import DIGEST
from tests.unit.judges.fakes import question, verify

KEY = "sk-very-secret"
KINDS: dict[str, type[OllamaServer] | type[OpenAIServer]] = {
    "ollama": OllamaServer,
    "openai": OpenAIServer,
}
Connect = Callable[..., Judge]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def server(kind: str) -> AsyncIterator[ScriptedServer]:
    async with KINDS[kind]() as running:
        yield running


@pytest.fixture
async def connect(kind: str, server: ScriptedServer) -> AsyncIterator[Connect]:
    made: list[Judge] = []

    def connect(url: str | None = None, **settings: Any) -> Judge:
        config = JudgeConfig(spec=f"{kind}:m@{url or server.base_url}", **settings)
        made.append(make_judge(config, seed=0, environ={"OPENAI_API_KEY": KEY}))
        return made[-1]

    yield connect
    for judge in made:
        await judge.close()


async def ask(server: ScriptedServer, judge: Judge, *script: Step) -> Reply:
    server.script = steps(*script)
    return await judge.ask(question())


async def test_an_answer_comes_with_its_tokens(server: ScriptedServer, connect: Connect) -> None:
    reply = await ask(server, connect(), costs(321, 12, "card_lost"))
    assert (reply.outcome, reply.label) == (Outcome.LABEL, "card_lost")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.reason) == (321, 12, "")


async def test_the_server_gets_the_prompt_the_options_and_the_temperature(
    server: ScriptedServer, connect: Connect
) -> None:
    await connect(temperature=0.5).ask(question())
    (received,) = server.received
    assert received.model == "m"
    assert received.messages == render(question())
    assert received.options == ["card_arrival", "card_lost", "top_up", NONE_OPTION]
    assert received.temperature == 0.5


async def test_no_temperature_is_sent_where_there_is_none(
    server: ScriptedServer, connect: Connect
) -> None:
    judge = connect(temperature=None)
    assert (await judge.ask(question())).label == "card_arrival"
    assert server.received[0].temperature is None
    assert judge.name.endswith("?temperature=None")


async def test_none_and_verify_are_read(server: ScriptedServer, connect: Connect) -> None:
    judge = connect()
    assert (await ask(server, judge, ok(NONE_OPTION))).outcome is Outcome.NONE
    server.script = steps(then=ok("yes"))
    assert (await judge.ask(verify())).label == "card_arrival"
    server.script = steps(then=ok("no"))
    assert (await judge.ask(verify())).outcome is Outcome.NONE


@pytest.mark.parametrize(
    "step",
    [
        lie(),
        two_labels(),
        says(""),
        says("It is card_lost, I think."),
        says("card_lost or top_up"),
        says("<think>card_lost"),
        says('{"answer": "card_lo', finish="length"),
        says("card_lost", finish="length"),
        garbage(),
        wrong_type(),
    ],
    ids=str,
)
async def test_what_cannot_be_read_is_unreadable(
    server: ScriptedServer, connect: Connect, step: Step
) -> None:
    reply = await ask(server, connect(), step)
    assert (reply.outcome, reply.label) == (Outcome.UNREADABLE, None)
    assert reply.reason


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (says("card_lost", finish="length"), CUT),
        (garbage(), NO_BODY),
        (wrong_type(), NO_BODY),
        (says(""), "it was empty"),
        (two_labels(), "it named more than one option"),
    ],
    ids=str,
)
async def test_the_reason_is_told_and_the_next_request_carries_it(
    server: ScriptedServer, connect: Connect, step: Step, reason: str
) -> None:
    judge = connect()
    reply = await ask(server, judge, step)
    assert reply.reason == reason
    await judge.ask(question(), reply.reason)
    first, second = server.received
    assert second.messages == render(question(), reason)
    assert second.messages[:2] == first.messages
    assert reason in second.messages[-1]["content"]


async def test_an_unreadable_answer_still_tells_its_tokens(
    server: ScriptedServer, connect: Connect
) -> None:
    assert (await ask(server, connect(), says("prose, prose"))).prompt_tokens == 100


@pytest.mark.parametrize("told", [-1, 10_000_001, 10**30])
async def test_a_count_of_tokens_that_cannot_be_is_none(
    server: ScriptedServer, connect: Connect, told: int
) -> None:
    judge = connect()
    reply = await ask(server, judge, costs(told, 12, "card_lost"))
    assert (reply.label, reply.prompt_tokens, reply.completion_tokens) == ("card_lost", 0, 12)
    reply = await ask(server, judge, *[costs(10_000_000, told, "card_lost")] * 2)
    assert (reply.prompt_tokens, reply.completion_tokens) == (10_000_000, 0)


BODIES = [b"[]", b"null", b"{}", b"1", b'{"choices": []}', b'{"error": null}', b"", b"[" * 200_000]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body[:20])
async def test_a_body_of_another_shape_is_unreadable(
    server: ScriptedServer, connect: Connect, body: bytes
) -> None:
    assert await ask(server, connect(), raw(body)) == Reply(Outcome.UNREADABLE, reason=NO_BODY)


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
async def test_overload_and_failures_are_worth_another_try(
    server: ScriptedServer, connect: Connect, code: int
) -> None:
    judge = connect()
    with pytest.raises(JudgeUnavailable, match=f"HTTP {code}") as caught:
        await ask(server, judge, status(code))
    assert caught.value.retry_after_s is None
    assert server.n_requests == 1


async def test_a_model_that_is_still_loading_is_worth_another_try(
    server: ScriptedServer, connect: Connect
) -> None:
    with pytest.raises(JudgeUnavailable, match="HTTP 503"):
        await ask(server, connect(), loading())


async def test_an_error_that_openai_sends_as_a_success_is_worth_another_try() -> None:
    body = b'{"error": {"code": 502, "message": "where is my card?"}, "user_id": "u"}'
    async with OpenAIServer(steps(raw(body))) as server:
        judge = make_judge(JudgeConfig(spec=f"openai:m@{server.base_url}"), seed=0, environ={})
        with pytest.raises(JudgeUnavailable, match="sent an error") as caught:
            await judge.ask(question())
        await judge.close()
    assert caught.value.result == "http_200_error"
    assert "card?" not in str(caught.value)


async def test_openai_cuts_an_answer_by_an_error_of_its_own() -> None:
    async with OpenAIServer(steps(says("card_lost", finish="error"))) as server:
        judge = make_judge(JudgeConfig(spec=f"openai:m@{server.base_url}"), seed=0, environ={})
        reply = await judge.ask(question())
        await judge.close()
    assert (reply.outcome, reply.reason) == (Outcome.UNREADABLE, CUT)


@pytest.mark.parametrize("code", [400, 422, 501])
async def test_a_refused_schema_is_left_out_from_then_on(
    server: ScriptedServer, connect: Connect, code: int
) -> None:
    judge = connect()
    with pytest.raises(SchemaRefused, match="takes no answer schema") as caught:
        await ask(server, judge, status(code, message="this model has no json_schema mode"))
    assert "\n" not in str(caught.value)
    assert (await judge.ask(question())).label == "card_arrival"
    assert (await judge.ask(question())).label == "card_arrival"
    assert [received.schema is None for received in server.received] == [False, True, True]


async def test_a_server_that_takes_no_schema_is_read_as_strictly(
    server: ScriptedServer, connect: Connect
) -> None:
    server.takes_schema = False
    judge = connect()
    with pytest.raises(SchemaRefused):
        await judge.ask(question())
    assert (await ask(server, judge, *[says("card_lost")] * 9)).label == "card_lost"
    server.script = steps(then=says("card_lost or top_up"))
    assert (await judge.ask(question())).outcome is Outcome.UNREADABLE
    assert server.served["schema refused"] == 1


async def test_without_a_schema_the_same_words_refuse_the_request(
    server: ScriptedServer, connect: Connect
) -> None:
    judge = connect()
    server.script = steps(then=status(400, message="this format is not supported"))
    with pytest.raises(SchemaRefused):
        await judge.ask(question())
    with pytest.raises(JudgeRefused):
        await judge.ask(question())


@pytest.mark.parametrize(
    "message", ["see the docs for more information", "context is too long for this format"]
)
async def test_other_faults_of_a_request_leave_the_schema_alone(
    server: ScriptedServer, connect: Connect, message: str
) -> None:
    judge = connect()
    with pytest.raises(JudgeError) as caught:
        await ask(server, judge, status(400, message=message))
    assert not isinstance(caught.value, SchemaRefused)
    await judge.ask(question())
    assert server.received[-1].schema is not None


@pytest.mark.parametrize("code", [400, 422])
async def test_a_refused_temperature_is_not_taken_for_the_schema(
    server: ScriptedServer, connect: Connect, code: int
) -> None:
    told = "Unsupported value: 'temperature' does not support 0 with this model"
    judge = connect()
    with pytest.raises(JudgeRefused, match=r"set judge\.temperature to null") as caught:
        await ask(server, judge, status(code, message=told))
    assert "\n" not in str(caught.value)
    await judge.ask(question())
    assert server.received[-1].schema is not None


async def test_a_schema_is_refused_by_a_list_that_names_the_temperature_too(
    server: ScriptedServer, connect: Connect
) -> None:
    told = "response_format is not supported; use one of model, messages, temperature"
    with pytest.raises(SchemaRefused):
        await ask(server, connect(), status(400, message=told))


async def test_requests_in_flight_may_all_find_the_schema_refused(
    server: ScriptedServer, connect: Connect
) -> None:
    server.takes_schema = False
    judge = connect()
    asked = [judge.ask(question(f"text {i}")) for i in range(5)]
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(error) for error in errors} == {SchemaRefused}
    assert (await judge.ask(question())).outcome is Outcome.LABEL


async def test_the_length_of_an_answer_is_limited_where_the_user_says_so(
    server: ScriptedServer, connect: Connect
) -> None:
    await connect().ask(question())
    await connect(max_answer_tokens=64).ask(question())
    assert [received.max_tokens for received in server.received] == [None, 64]


async def test_openai_limits_newer_models_by_the_other_name() -> None:
    async with OpenAIServer() as server:
        server.newer = True
        config = JudgeConfig(spec=f"openai:m@{server.base_url}", max_answer_tokens=64)
        judge = make_judge(config, seed=0, environ={})
        with pytest.raises(SchemaRefused, match="max_completion_tokens"):
            await judge.ask(question())
        assert (await judge.ask(question())).outcome is Outcome.LABEL
        await judge.close()
    told = [(r.limit_field, r.max_tokens, r.schema is not None) for r in server.received]
    assert told == [("max_tokens", 64, True), ("max_completion_tokens", 64, True)]


@pytest.mark.parametrize("told", ["unknown field", "not supported"])
async def test_openai_changes_the_name_of_the_limit_once(told: str) -> None:
    refusal = status(400, message=f"max_completion_tokens: {told}, like max_tokens")
    async with OpenAIServer(steps(then=refusal)) as server:
        config = JudgeConfig(spec=f"openai:m@{server.base_url}", max_answer_tokens=64)
        judge = make_judge(config, seed=0, environ={})
        errors: list[BaseException] = []
        while not any(isinstance(error, JudgeRefused) for error in errors):
            assert len(errors) < 9
            asked = [judge.ask(question()) for _ in range(3)]
            errors += await asyncio.gather(*asked, return_exceptions=True)
        await judge.close()
    assert {type(error) for error in errors[:3]} == {SchemaRefused}
    assert "judge.max_answer_tokens" in str(errors[-1])


@pytest.mark.parametrize(("fingerprint", "version"), [("fp_1", "m@fp_1"), (None, "m")])
async def test_openai_tells_the_version_of_the_model(fingerprint: str | None, version: str) -> None:
    async with OpenAIServer(steps(then=Step(fingerprint=fingerprint))) as server:
        judge = make_judge(JudgeConfig(spec=f"openai:m@{server.base_url}"), seed=0, environ={})
        assert (await judge.ask(question())).version == version
        await judge.close()


async def test_an_odd_version_or_count_does_not_spoil_an_answer() -> None:
    body = b"""{"model": 7, "system_fingerprint": [], "usage": {"prompt_tokens": null},
        "choices": [{"message": {"content": "card_lost"}}]}"""
    async with OpenAIServer(steps(raw(body))) as server:
        judge = make_judge(JudgeConfig(spec=f"openai:m@{server.base_url}"), seed=0, environ={})
        assert await judge.ask(question()) == Reply(Outcome.LABEL, "card_lost")
        await judge.close()


async def ask_ollama(server: OllamaServer, *, times: int = 1) -> list[Reply]:
    judge = make_judge(JudgeConfig(spec=f"ollama:m@{server.base_url}"), seed=0, environ={})
    replies = await asyncio.gather(*(judge.ask(question()) for _ in range(times)))
    await judge.close()
    return replies


async def test_ollama_tells_the_version_and_asks_for_the_digest_once() -> None:
    async with OllamaServer() as server:
        replies = await ask_ollama(server, times=5)
    assert {reply.version for reply in replies} == {f"m@{DIGEST[:12]}"}
    assert (server.n_tags, server.n_requests) == (1, 5)


@pytest.mark.parametrize(
    "tags",
    [
        status(404),
        status(500),
        raw(b"<html>"),
        raw(b"[]"),
        raw(b'{"models": []}'),
        raw(b"[" * 200_000),
        hang(),
    ],
    ids=lambda tags: str(tags)[:300],
)
async def test_a_digest_that_is_not_to_be_had_changes_nothing(
    tags: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ollama, "_TAGS_TIMEOUT_S", 0.01)
    async with OllamaServer() as server:
        server.tags = tags
        (reply,) = await ask_ollama(server)
    assert (reply.label, reply.version) == ("card_arrival", "m")


async def test_closing_while_the_digest_is_awaited_leaves_the_answer() -> None:
    async with OllamaServer() as server:
        server.tags = hang()
        judge = make_judge(JudgeConfig(spec=f"ollama:m@{server.base_url}"), seed=0, environ={})
        asked = asyncio.create_task(judge.ask(question()))
        await server.tags_came.wait()
        await judge.close()
        assert (await asked).version == "m"


async def test_a_label_that_cannot_be_sent_as_it_is_can_be_answered(
    server: ScriptedServer, connect: Connect
) -> None:
    reply = await connect().ask(question(labels=["half \ud83d", "b"]))
    assert (reply.outcome, reply.label) == (Outcome.LABEL, "half \ud83d")


async def test_a_label_is_described(server: ScriptedServer, connect: Connect) -> None:
    label = Candidate("card_lost", "", ("I lost my card",))
    asked = Question("card_lost", (label,), mode="describe")
    said = says('{"description": "The card is gone."}')
    server.script = steps(said, says("It is about cards."))
    judge = connect()
    assert (await judge.ask(asked)).label == "The card is gone."
    assert (await judge.ask(asked)).outcome is Outcome.UNREADABLE
    assert server.received[0].schema["required"] == ["description"]
    assert server.received[0].text == "card_lost"


async def test_a_text_is_said_in_other_words(server: ScriptedServer, connect: Connect) -> None:
    label = Candidate("card_lost", "The card is gone.")
    asked = Question("Where is my card?", (label,), mode="paraphrase")
    said = says('{"paraphrase": "I cannot find my card"}')
    server.script = steps(said, says("I cannot find my card"))
    judge = connect()
    assert (await judge.ask(asked)).label == "I cannot find my card"
    assert (await judge.ask(asked)).outcome is Outcome.UNREADABLE
    assert server.received[0].schema["required"] == ["paraphrase"]
    assert server.received[0].text == "Where is my card?"


async def test_a_trickling_server_is_read_to_its_end_or_to_the_time_out(
    server: ScriptedServer, connect: Connect
) -> None:
    assert (await ask(server, connect(), trickle(0.0))).outcome is Outcome.LABEL
    with pytest.raises(JudgeTimeout):
        await ask(server, connect(timeout_s=0.05), *[trickle(0.01)] * 2)


async def test_retry_after_is_told_in_seconds(server: ScriptedServer, connect: Connect) -> None:
    with pytest.raises(JudgeUnavailable) as caught:
        await ask(server, connect(), status(429, retry_after="7"))
    assert caught.value.retry_after_s == 7.0


async def test_retry_after_is_told_as_a_date(server: ScriptedServer, connect: Connect) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    with pytest.raises(JudgeUnavailable) as caught:
        await ask(server, connect(), status(503, retry_after=date))
    assert caught.value.retry_after_s == pytest.approx(60, abs=5)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("Wed, 01 Jan 2025 00:01:00 GMT", 60.0),
        ("Wednesday, 01-Jan-25 00:01:00 GMT", 60.0),
        ("Wed Jan  1 00:01:00 2025", 60.0),
        ("Tue, 31 Dec 2024 23:00:00 GMT", 0.0),
        ("Wed, 32 Jan 2025 00:00:00 GMT", None),
        ("Mon, 01 Jan 2030 00:00:00 +99999999999999", None),
    ],
)
def test_both_forms_of_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, datetime(2025, 1, 1, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("code", "ollama", "openai"),
    [
        (401, "OLLAMA_API_KEY", "OPENAI_API_KEY"),
        (403, "OLLAMA_API_KEY", "OPENAI_API_KEY"),
        (402, "no credit", "no credit"),
        (404, "ollama pull m", "model 'm'"),
        (400, *["check that .*judge.temperature and judge.max_answer_tokens"] * 2),
        (302, "check that", "check that"),
        (422, *["check that .*judge.temperature and judge.max_answer_tokens"] * 2),
    ],
)
async def test_a_refusal_names_the_remedy_in_one_line(
    server: ScriptedServer, connect: Connect, kind: str, code: int, ollama: str, openai: str
) -> None:
    with pytest.raises(JudgeRefused, match=ollama if kind == "ollama" else openai) as caught:
        await ask(server, connect(), status(code))
    assert "\n" not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


@pytest.mark.parametrize("code", [400, 422])
@pytest.mark.parametrize("message", ["our content policy", "the temperature of this text"])
async def test_a_text_refused_after_an_answer_stops_nothing_else(
    server: ScriptedServer, connect: Connect, code: int, message: str
) -> None:
    judge = connect()
    refusal = status(code, message=message)
    server.script = steps(garbage(), refusal, ok(), refusal)
    await judge.ask(question())
    with pytest.raises(JudgeRefused):
        await judge.ask(question())
    await judge.ask(question())
    with pytest.raises(JudgeError, match=r"this question alone.*by hand") as caught:
        await judge.ask(question())
    assert type(caught.value) is JudgeError
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", [401, 402, 403, 404])
async def test_a_refusal_of_everybody_stops_a_judge_that_had_answered(
    server: ScriptedServer, connect: Connect, code: int
) -> None:
    judge = connect()
    await judge.ask(question())
    with pytest.raises(JudgeRefused):
        await ask(server, judge, *[status(code)] * 2)


async def test_a_prompt_that_is_too_long_stops_nothing_else(
    server: ScriptedServer, connect: Connect
) -> None:
    with pytest.raises(JudgeError, match="too long") as caught:
        await ask(server, connect(), status(400, message="maximum context length is 4096"))
    assert type(caught.value) is JudgeError


async def test_a_hanging_server_is_a_time_out(server: ScriptedServer, connect: Connect) -> None:
    with pytest.raises(JudgeTimeout, match=r"no answer in 0\.05 s"):
        await ask(server, connect(timeout_s=0.05), hang())


async def test_a_connection_reset_in_the_answer_is_worth_another_try(
    server: ScriptedServer, connect: Connect
) -> None:
    with pytest.raises(JudgeUnavailable, match="cannot be reached") as caught:
        await ask(server, connect(), reset())
    assert not caught.value.never_left


async def test_no_server_is_worth_another_try(connect: Connect, kind: str) -> None:
    async with KINDS[kind]() as gone:
        url = gone.base_url
    with pytest.raises(JudgeUnavailable, match="running") as caught:
        await connect(url).ask(question())
    assert caught.value.never_left


async def test_it_goes_on_after_every_fault(server: ScriptedServer, connect: Connect) -> None:
    judge = connect()
    server.script = steps(reset(), status(500), garbage(), wrong_type(), then=ok("top_up"))
    for _ in range(4):
        with contextlib.suppress(JudgeUnavailable):
            assert (await judge.ask(question())).outcome is Outcome.UNREADABLE
    assert (await judge.ask(question())).label == "top_up"
    assert server.n_requests == 5


async def test_requests_run_at_the_same_time_without_a_limit_of_the_client(
    server: ScriptedServer, connect: Connect
) -> None:
    judge, everybody = connect(), asyncio.Event()

    def wait_for_all(number: int, _: Received) -> Step:
        if number == 119:
            everybody.set()
        return ok(until=everybody)

    server.script = wait_for_all
    await asyncio.gather(*(judge.ask(question(f"text {i}")) for i in range(120)))
    assert server.max_in_flight == 120


async def test_a_cancelled_request_passes_the_cancellation_on(
    server: ScriptedServer, connect: Connect
) -> None:
    arrived = asyncio.Event()

    def arrive_and_hang(*_: object) -> Step:
        arrived.set()
        return hang()

    server.script = arrive_and_hang
    task = asyncio.create_task(connect().ask(question()))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_can_be_used_again_after_close(connect: Connect) -> None:
    judge = connect()
    await judge.ask(question())
    await judge.close()
    assert (await judge.ask(question())).outcome is Outcome.LABEL


async def test_openai_sends_the_key_and_never_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with OpenAIServer(steps(ok(), status(401), status(500), reset())) as server:
        config = JudgeConfig(spec=f"openai:m@{server.base_url}")
        judge = make_judge(config, seed=0, environ={"OPENAI_API_KEY": KEY})
        await judge.ask(question("a private text"))
        told = [repr(judge), repr(vars(judge)), judge.name]
        for _ in range(3):
            with pytest.raises(JudgeError) as caught:
                await judge.ask(question("a private text"))
            told.append(repr(caught.value))
        await judge.close()
    assert server.received[0].authorization == f"Bearer {KEY}"
    assert KEY not in "".join(told) + caplog.text
    assert "private" not in "".join(told) + caplog.text


async def test_openai_sends_no_key_where_there_is_none() -> None:
    async with OpenAIServer() as server:
        judge = make_judge(JudgeConfig(spec=f"openai:m@{server.base_url}"), seed=0, environ={})
        await judge.ask(question())
        await judge.close()
    assert server.received[0].authorization is None


async def test_ollama_texts_stay_out_of_the_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with OllamaServer(steps(ok(), garbage())) as server:
        judge = make_judge(JudgeConfig(spec=f"ollama:m@{server.base_url}"), seed=0, environ={})
        await judge.ask(question("a private text"))
        await judge.ask(question("a private text"))
        await judge.close()
    assert "private" not in caplog.text


async def test_the_servers_refuse_what_the_real_ones_refuse() -> None:
    """A server that takes anything would prove nothing about the clients."""
    for kind in KINDS.values():
        async with kind() as server, aiohttp.ClientSession() as session:
            body = {"model": "m", "messages": [], "stream": False}
            async with session.post(server.origin + server.path, json=body) as response:
                assert response.status == 400
            assert server.n_requests == 1
