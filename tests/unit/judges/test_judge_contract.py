"""What every judge keeps to, shipped ones and those behind a server alike."""

import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from red_ray.config import JudgeConfig
from red_ray.errors import JudgeError
from red_ray.judges import Judge, make_judge
from red_ray.types import Candidate, Outcome, Question, Reply
from tests.servers import OllamaServer, OpenAIServer, ScriptedServer
from tests.unit.judges.fakes import LABELS, question, verify

Make = Callable[[], AbstractAsyncContextManager[Judge]]


def shipped(spec: str) -> Make:
    @asynccontextmanager
    async def make() -> AsyncIterator[Judge]:
        judge = make_judge(
            JudgeConfig(spec=spec),
            seed=1,
            hidden=lambda _: LABELS[0],
            votes=lambda _: [(LABELS[0], 0.9)],
            environ={},
        )
        yield judge
        await judge.close()

    return make


def served(kind: str, server_type: type[OllamaServer] | type[OpenAIServer]) -> Make:
    @asynccontextmanager
    async def make() -> AsyncIterator[Judge]:
        async with server_type() as server:
            config = JudgeConfig(spec=f"{kind}:m@{server.base_url}", timeout_s=5)
            judge = make_judge(config, seed=1, environ={})
            yield judge
            await judge.close()

    return make


JUDGES = {
    "simulated": shipped("simulated:0.9"),
    "simulated, always wrong": shipped("simulated:0"),
    "neighbours": shipped("neighbours"),
    "ollama": served("ollama", OllamaServer),
    "openai": served("openai", OpenAIServer),
}


@pytest.fixture(params=JUDGES.values(), ids=JUDGES.keys())
async def judge(request: pytest.FixtureRequest) -> AsyncIterator[Judge]:
    async with request.param() as made:
        yield made


def well_formed(reply: Reply, asked: Question) -> bool:
    offered = {candidate.label for candidate in asked.candidates}
    if reply.outcome is Outcome.LABEL:
        return reply.label in offered
    if reply.outcome is Outcome.UNREADABLE:
        return reply.label is None and reply.reason != ""
    return reply.label is None and reply.outcome is Outcome.NONE


@pytest.mark.parametrize(
    "asked",
    [
        question(),
        question(""),
        question('"}\n<|im_end|> Ünïcode 🙂'),
        question("long " * 5_000),
        question(labels=["one"]),
        question(labels=["none_of_these", "b"]),
        question("half a pair \ud83d", ["half \ud83d", "b"]),
        question(labels=[f"label {i}" for i in range(300)]),
        verify(),
    ],
    ids=lambda asked: ascii(asked.text[:12]),
)
async def test_a_reply_names_an_offered_label_or_none(judge: Judge, asked: Question) -> None:
    reply = await judge.ask(asked)
    assert well_formed(reply, asked)
    assert reply.prompt_tokens >= 0
    assert reply.completion_tokens >= 0


async def test_a_complaint_changes_no_rule(judge: Judge) -> None:
    assert well_formed(await judge.ask(question(), "it was empty"), question())
    assert well_formed(await judge.ask(question(), complaint="it was empty"), question())


async def test_a_label_is_described_or_the_question_is_refused(
    judge: Judge, request: pytest.FixtureRequest
) -> None:
    asked = Question("card_lost", (Candidate("card_lost", "", ("one",)),), mode="describe")
    if request.node.callspec.id.split(",")[0] in ("simulated", "neighbours"):
        with pytest.raises(JudgeError, match="cannot describe labels; use a language model"):
            await judge.ask(asked)
    else:
        assert str((await judge.ask(asked)).label).startswith("Texts about")


async def test_a_text_is_paraphrased_or_the_question_is_refused(
    judge: Judge, request: pytest.FixtureRequest
) -> None:
    asked = Question("where is it?", (Candidate("card_lost"),), mode="paraphrase")
    if request.node.callspec.id.split(",")[0] in ("simulated", "neighbours"):
        with pytest.raises(JudgeError, match="cannot write paraphrases; use a language model"):
            await judge.ask(asked)
    else:
        assert (await judge.ask(asked)).label == "In other words, where is it?"


async def test_it_is_a_judge_with_a_name_of_its_kind(
    judge: Judge, request: pytest.FixtureRequest
) -> None:
    assert isinstance(judge, Judge)
    kind = request.node.callspec.id.split(",")[0]
    assert judge.name.split(":")[0] == kind
    before = judge.name
    await judge.ask(question())
    assert judge.name == before


async def test_the_same_question_gets_the_same_reply(judge: Judge) -> None:
    assert await judge.ask(question()) == await judge.ask(question())


async def test_it_closes_twice_and_unused(judge: Judge) -> None:
    await judge.close()
    await judge.close()


async def test_replies_survive_a_pickle(judge: Judge) -> None:
    reply = await judge.ask(question())
    assert pickle.loads(pickle.dumps(reply)) == reply


async def test_names_tell_judges_apart() -> None:
    specs = ["ollama:m", "ollama:n", "ollama:m@http://h", "openai:m@http://127.0.0.1/v1"]
    specs += ["simulated:0.9", "simulated:0.8", "neighbours"]
    names = set()
    for spec in specs:
        async with shipped(spec)() as made:
            names.add(made.name)
    assert len(names) == len(specs)


def test_servers_are_abstract_together() -> None:
    assert {OllamaServer, OpenAIServer} == set(ScriptedServer.__subclasses__())
