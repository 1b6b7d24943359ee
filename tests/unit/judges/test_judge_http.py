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
from red_ray.errors import JudgeError, JudgeRefused, JudgeTimeout, JudgeUnavailable
from red_ray.judges import Judge, make_judge
from red_ray.judges.faults import retry_after_s
from red_ray.judges.prompts import NONE_OPTION, render
from red_ray.types import Outcome, Reply
from tests.servers import (
    OllamaServer,
    OpenAIServer,
    Received,
    ScriptedServer,
    Step,
    garbage,
    hang,
    ok,
    raw,
    reset,
    says,
    status,
    steps,
    wrong_type,
)
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
    reply = await ask(server, connect(), ok("card_lost"))
    assert reply == Reply(Outcome.LABEL, "card_lost", prompt_tokens=100, completion_tokens=7)


async def test_the_server_gets_the_prompt_the_options_and_the_temperature(
    server: ScriptedServer, connect: Connect
) -> None:
    await connect(temperature=0.5).ask(question())
    (received,) = server.received
    assert received.model == "m"
    assert received.messages == render(question())
    assert received.options == ["card_arrival", "card_lost", "top_up", NONE_OPTION]
    assert received.temperature == 0.5


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
        ok("pin_blocked"),
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


async def test_an_unreadable_answer_still_tells_its_tokens(
    server: ScriptedServer, connect: Connect
) -> None:
    assert (await ask(server, connect(), says("prose, prose"))).prompt_tokens == 100


@pytest.mark.parametrize("body", [b"[]", b"null", b"{}", b"1", b'{"choices": []}', b""])
async def test_a_body_of_another_shape_is_unreadable(
    server: ScriptedServer, connect: Connect, body: bytes
) -> None:
    assert await ask(server, connect(), raw(body)) == Reply(Outcome.UNREADABLE)


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
async def test_overload_and_failures_are_worth_another_try(
    server: ScriptedServer, connect: Connect, code: int
) -> None:
    judge = connect()
    with pytest.raises(JudgeUnavailable, match=f"HTTP {code}") as caught:
        await ask(server, judge, status(code))
    assert caught.value.retry_after_s is None
    assert server.n_requests == 1


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
    ],
)
def test_both_forms_of_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, datetime(2025, 1, 1, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("code", "ollama", "openai"),
    [
        (401, "OLLAMA_API_KEY", "OPENAI_API_KEY"),
        (403, "OLLAMA_API_KEY", "OPENAI_API_KEY"),
        (404, "ollama pull m", "model 'm'"),
        (400, "check that", "check that"),
        (302, "check that", "check that"),
    ],
)
async def test_a_refusal_names_the_remedy_in_one_line(
    server: ScriptedServer, connect: Connect, kind: str, code: int, ollama: str, openai: str
) -> None:
    with pytest.raises(JudgeRefused, match=ollama if kind == "ollama" else openai) as caught:
        await ask(server, connect(), status(code))
    assert "\n" not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


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
    with pytest.raises(JudgeUnavailable, match="cannot be reached"):
        await ask(server, connect(), reset())


async def test_no_server_is_worth_another_try(connect: Connect, kind: str) -> None:
    async with KINDS[kind]() as gone:
        url = gone.base_url
    with pytest.raises(JudgeUnavailable, match="running"):
        await connect(url).ask(question())


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
