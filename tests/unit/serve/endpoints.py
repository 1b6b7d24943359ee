"""An endpoint without Ray and without a model: a run on disk, scripted judges, calls over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from red_ray.bundle import save_bundle
from red_ray.escalation import asked_in
from red_ray.judges import Judge, Ledger, PoolStats, ValidatorPool
from red_ray.model import RedModel
from red_ray.run_folder import RunFolder
from red_ray.types import Outcome, Question, Verdict
from serve.app import make_app
from serve.desk import Desk, LocalValidator, Opening, OpenJudge, Validator
from serve.scoring import Scorer
from serve.service import Service
from serve.settings import parse_settings
from tests.unit.judges.fakes import FakeJudge, label

SPEC = "ollama:fake"
"""Names a judge that is never asked: a test's own stands in its place."""

LONG_S = 60.0
"""Nobody waits for so long here: what should not wait fails by it."""


@dataclass(frozen=True)
class Sorts:
    """Texts by what the model makes of them."""

    sure: tuple[str, ...]
    doubtful: tuple[str, ...]


def write_run_of(model: RedModel, path: Path) -> Path:
    """A run's folder as an endpoint reads it."""
    run = RunFolder.create(path, model.config)
    save_bundle(model, run.bundle, {})
    return path


def write_anew(model: RedModel, run: Path) -> str:
    """Another bundle in the run's folder; its id."""
    return save_bundle(model, run / "bundle", {})


def with_escalation_from(model: RedModel, threshold: float) -> RedModel:
    """The same model with another threshold, and so another bundle."""
    assert model.promise is not None
    thresholds = dataclasses.replace(model.promise.thresholds, escalate=threshold)
    return dataclasses.replace(
        model, promise=dataclasses.replace(model.promise, thresholds=thresholds)
    )


def copy(run: Path, to: Path) -> Path:
    """The same run elsewhere."""
    shutil.copytree(run, to)
    return to


def first_candidate(number: int, question: Question) -> Any:
    """What a judge says that always takes the first option."""
    del number
    return label(question.candidates[0].label)


def opens(judge: Judge, **changes: Any) -> OpenJudge:
    """Opens a real pool over the run's ledger, in front of a scripted judge."""

    async def open_judge(opening: Opening) -> Validator:
        config = opening.config.judge.model_copy(update={"max_attempts": 1} | changes)
        ledger = Ledger(opening.ledger)
        pool = ValidatorPool(judge, ledger, config)
        return LocalValidator(pool, judge.name, asked_in(config), ledger.close)

    return open_judge


def opens_one(validator: Validator) -> OpenJudge:
    """Opens what a test made."""

    async def open_judge(_: Opening) -> Validator:
        return validator

    return open_judge


async def refuses_to_open(_: Opening) -> Validator:
    """Where a test expects that nobody is asked."""
    raise AssertionError("no judge was to be opened")


class Scripted:
    """A validator that answers by a coroutine, or raises what that raises."""

    judge_name = "scripted"

    def __init__(self, answer: Callable[[Question], Awaitable[Verdict | None]]) -> None:
        self._answer = answer
        self.asked: list[str] = []
        self.notice = ""
        self.is_closed = False

    async def validate(self, questions: Sequence[Question], round_number: int) -> list[Verdict]:
        del round_number
        self.asked += [question.text for question in questions]
        found = [await self._answer(question) for question in questions]
        return [verdict for verdict in found if verdict is not None]

    async def stats(self) -> PoolStats | None:
        counts = dict.fromkeys(PoolStats.__dataclass_fields__, 0)
        return PoolStats(**counts | {"results": {}, "cost_usd": None, "notice": self.notice})  # type: ignore[arg-type]

    async def close(self) -> None:
        self.is_closed = True


def raising(error: Exception) -> Scripted:
    """A validator that always fails."""

    async def fail(_: Question) -> Verdict | None:
        raise error

    return Scripted(fail)


def hanging() -> Scripted:
    """A validator that never answers."""

    async def hang(_: Question) -> Verdict | None:
        await asyncio.Event().wait()
        return None

    return Scripted(hang)


class Endpoint:
    """A service behind its application; use it inside `open_endpoint`."""

    def __init__(self, service: Service, desk: Desk, client: httpx.AsyncClient) -> None:
        self.service = service
        self.desk = desk
        self.client = client

    async def post(self, path: str, body: Any) -> httpx.Response:
        """A call with a JSON body."""
        return await self.client.post(path, json=body)

    async def get(self, path: str) -> Any:
        """What a call that succeeds tells."""
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def classify(self, texts: Sequence[str], **options: Any) -> list[dict[str, Any]]:
        """Results of a call that succeeds."""
        return (await self.answer(texts, **options))["results"]  # type: ignore[no-any-return]

    async def answer(self, texts: Sequence[str], **options: Any) -> dict[str, Any]:
        """The answer of a call that succeeds."""
        answer = await self.post("/v1/classify", {"texts": list(texts)} | options)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def queued(self) -> list[dict[str, Any]]:
        """The review queue, with what this replica has not told yet."""
        await self.get("/v1/stats")
        return list((await self.get("/v1/queue?limit=1000"))["items"])


@asynccontextmanager
async def open_endpoint(
    run: Path,
    open_judge: OpenJudge = refuses_to_open,
    *,
    tokens: Sequence[str] = (),
    scorer: Scorer | None = None,
    desk: Desk | None = None,
    **settings: Any,
) -> AsyncIterator[Endpoint]:
    """An endpoint that answers, asked without a network.

    Args:
        run: its folder.
        open_judge: in place of the run's judge.
        tokens: who may call.
        scorer: in place of the packed one.
        desk: in place of one with `open_judge`.
        settings: sections of the endpoint's settings.
    """
    judge = {"spec": SPEC, "wait_s": LONG_S} | settings.pop("judge", {})
    given = parse_settings({"run": str(run), "judge": judge, **settings})
    desk = desk or Desk(given, open_judge)
    with ThreadPoolExecutor(1) as thread:
        service = Service(given, desk, thread, scorer)
        app = make_app(service, tokens)
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://here") as client,
        ):
            try:
                yield Endpoint(service, desk, client)
            finally:
                await service._judging.close()
                await desk.close()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what comes by itself."""
    async with asyncio.timeout(LONG_S / 2):
        while not holds():  # noqa: ASYNC110 - it comes from threads and background steps
            await asyncio.sleep(0.005)


def held_judge() -> FakeJudge:
    """Takes the first option, once `gate` is set."""
    return FakeJudge(first_candidate, gate=asyncio.Event())


def verdict_of(question: Question, label: str | None, key: str, **more: Any) -> Verdict:
    """A verdict that cost one request."""
    outcome = Outcome.NONE if label is None else Outcome.LABEL
    return Verdict(key, outcome, label, **{"judge": "j", "requests": 1, "latency_ms": 1.0} | more)
