"""The servers of the tests: the official clients understand them, and their counts are true."""

import json
from collections import Counter
from pathlib import Path

import aiohttp
import ollama
import openai
import pytest

from red_ray.config import JudgeConfig
from red_ray.errors import JudgeError
from red_ray.judges import make_judge
from red_ray.judges.prompts import answer_schema, render
from red_ray.types import Outcome
from tests.servers import (
    FAULTS,
    OllamaServer,
    OpenAIServer,
    ServerProcess,
    by_text,
    costs,
    hang,
    hash_of,
    mixed,
    right_option,
    status,
    steps,
)
from tests.unit.judges.fakes import LABELS, question, verify

MESSAGES = render(question())
SCHEMA = answer_schema(question())
JSON_SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
}


async def test_the_official_openai_client_talks_to_our_server() -> None:
    script = steps(costs(12, 3), status(429, retry_after="7"), status(404))
    async with (
        OpenAIServer(script) as server,
        openai.AsyncOpenAI(base_url=server.base_url, api_key="k", max_retries=0) as client,
    ):

        async def chat() -> openai.types.chat.ChatCompletion:
            return await client.chat.completions.create(
                model="m", messages=MESSAGES, temperature=0, response_format=JSON_SCHEMA
            )

        answer = await chat()
        with pytest.raises(openai.RateLimitError) as busy:
            await chat()
        with pytest.raises(openai.NotFoundError):
            await chat()
    assert json.loads(answer.choices[0].message.content) == {"answer": "card_arrival"}
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (12, 3)
    assert busy.value.response.headers["Retry-After"] == "7"
    assert server.received[0].messages == MESSAGES
    assert server.received[0].schema == SCHEMA


async def test_the_official_ollama_client_talks_to_our_server() -> None:
    script = steps(costs(12, 3), status(429, retry_after="7"), status(404))
    async with OllamaServer(script) as server, ollama.AsyncClient(server.base_url) as client:
        options = {"temperature": 0.0}

        async def chat() -> ollama.ChatResponse:
            return await client.chat("m", MESSAGES, format=SCHEMA, options=options)

        answer = await chat()
        codes = []
        for _ in range(2):
            with pytest.raises(ollama.ResponseError) as refused:
                await chat()
            codes.append(refused.value.status_code)
        listed = await client.list()
    assert json.loads(answer.message.content) == {"answer": "card_arrival"}
    assert (answer.prompt_eval_count, answer.eval_count, answer.done) == (12, 3, True)
    assert codes == [429, 404]
    assert [model.model for model in listed.models] == ["n", "m:latest"]
    assert server.received[0].schema == SCHEMA


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_mixed_faults_are_counted_by_kind_at_the_share_asked_for(kind: str) -> None:
    n, share = 1000, 0.3
    server_type = {"ollama": OllamaServer, "openai": OpenAIServer}[kind]
    outcomes: Counter[str] = Counter()
    async with server_type(mixed(share, otherwise=by_text())) as server:
        judge = make_judge(JudgeConfig(spec=f"{kind}:m@{server.base_url}"), seed=0, environ={})
        for number in range(n):
            try:
                outcomes[(await judge.ask(question(f"text {number}"))).outcome] += 1
            except JudgeError as error:
                outcomes[type(error).__name__] += 1
        await judge.close()
    served = server.served
    assert set(served) == {"answer", *(fault.served_as for fault in FAULTS)}
    assert served.total() == server.n_requests == n
    assert n - served["answer"] == pytest.approx(n * share, abs=60)
    failed = ("status 429", "status 500", "loading", "reset")
    assert outcomes["JudgeUnavailable"] == sum(served[kind] for kind in failed)
    assert outcomes[Outcome.LABEL] + outcomes[Outcome.NONE] == served["answer"]
    assert outcomes[Outcome.UNREADABLE] == n - served["answer"] - outcomes["JudgeUnavailable"]


async def test_the_right_option_is_the_same_in_any_order_and_without_a_schema() -> None:
    async with OpenAIServer(by_text()) as server:
        judge = make_judge(JudgeConfig(spec=f"openai:m@{server.base_url}"), seed=0, environ={})
        texts = [f"text {number}" for number in range(40)]
        first = [(await judge.ask(question(text))).label for text in texts]
        turned = [(await judge.ask(question(text, LABELS[::-1]))).label for text in texts]
        for received in server.received:
            assert right_option(received) in received.options
        server.takes_schema = False
        with pytest.raises(JudgeError):
            await judge.ask(question())
        bare = [(await judge.ask(question(text))).label for text in texts]
        said = {(await judge.ask(verify(text))).outcome for text in texts}
        await judge.close()
    assert first == turned == bare
    assert set(first) == {*LABELS, None}
    assert said == {Outcome.LABEL, Outcome.NONE}


async def test_a_request_is_counted_and_journalled_on_arrival(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with OpenAIServer(lambda *_: hang(), journal=journal) as server:
        spec = f"openai:m@{server.base_url}"
        judge = make_judge(JudgeConfig(spec=spec, timeout_s=0.05), seed=0, environ={})
        with pytest.raises(JudgeError):
            await judge.ask(question("a text"))
        await judge.close()
        (line,) = journal.read_text("ascii").splitlines()
    told = json.loads(line)
    assert (told["number"], told["text"], told["served"]) == (0, hash_of("a text"), "hang")


@pytest.mark.parametrize("kind", ["ollama", "openai"])
async def test_a_server_of_its_own_keeps_its_journal_over_a_restart(
    tmp_path: Path, kind: str
) -> None:
    labels = []
    for _ in range(2):
        with ServerProcess(tmp_path / "journal", "--kind", kind) as server:
            spec = f"{kind}:m@{server.base_url}"
            judge = make_judge(JudgeConfig(spec=spec), seed=0, environ={})
            labels.append([(await judge.ask(question(f"text {i}"))).label for i in range(9)])
            await judge.close()
            served = server.served()
    assert labels[0] == labels[1]
    assert [line["number"] for line in served] == [*range(9)] * 2
    assert served[3]["text"] == served[12]["text"] == hash_of("text 3")
    assert sorted(line["time_s"] for line in served) == [line["time_s"] for line in served]


async def test_a_server_of_its_own_takes_its_script_from_the_options(tmp_path: Path) -> None:
    options = ("--script", "first", "--faults", "0.5", "--no-schema", "--delay-ms", "1")
    with ServerProcess(tmp_path / "journal", *options) as server:
        body = {"model": "m", "messages": MESSAGES, "temperature": 0}
        async with aiohttp.ClientSession() as session:
            for schema in ({}, {"response_format": JSON_SCHEMA}):
                for _ in range(20):
                    url = f"{server.base_url}/chat/completions"
                    try:
                        async with session.post(url, json=body | schema) as response:
                            await response.read()
                    except aiohttp.ClientError:
                        pass
        served = [line["served"] for line in server.served()]
    assert 3 < served[:20].count("answer") < 17
    assert served[20:] == ["schema refused"] * 20
