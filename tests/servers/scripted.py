"""What both servers share: a script of steps, a count of every request, one loopback port."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from pydantic import ValidationError


@dataclass(frozen=True, slots=True)
class Received:
    """A request as the server understood it."""

    model: str
    messages: list[dict[str, str]]
    schema: dict[str, Any]
    temperature: float
    authorization: str | None

    @property
    def options(self) -> list[str]:
        return list(self.schema["properties"]["answer"]["enum"])


@dataclass(frozen=True, slots=True)
class Step:
    """What the server does with one request.

    `kind`: answer | status | hang | reset | raw | wrong_type. An answer is `text`, or the
    schema's object with `label`, or with the first option where both are None; it is held back
    for `delay_s` and until the event `until`.
    """

    kind: str = "answer"
    label: str | None = None
    text: str | None = None
    finish: str = "stop"
    status: int = 200
    retry_after: str | None = None
    message: str = "scripted"
    delay_s: float = 0.0
    until: asyncio.Event | None = None
    body: bytes = b""


def ok(
    label: str | None = None, *, delay_s: float = 0.0, until: asyncio.Event | None = None
) -> Step:
    return Step(label=label, delay_s=delay_s, until=until)


def says(text: str, *, finish: str = "stop") -> Step:
    return Step(text=text, finish=finish)


def status(code: int, *, retry_after: str | None = None, message: str = "scripted") -> Step:
    return Step("status", status=code, retry_after=retry_after, message=message)


def hang() -> Step:
    return Step("hang")


def reset() -> Step:
    return Step("reset")


def raw(body: bytes) -> Step:
    """A success with this body, said to be JSON."""
    return Step("raw", body=body)


def garbage() -> Step:
    return raw(b'{"choices": [{"mess\xff')


def wrong_type() -> Step:
    return Step("wrong_type")


Script = Callable[[int, Received], Step]
"""The number of the request, from 0, and the request -> what to do with it."""


def steps(*first: Step, then: Step | None = None) -> Script:
    """One step after the other, then `then` for ever (an answer by default)."""
    last = then or ok()
    return lambda number, _: first[number] if number < len(first) else last


class ScriptedServer(ABC):
    """Serves on a loopback port inside `async with`; `n_requests` is the truth about cost."""

    path: str

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or steps()
        self.received: list[Received] = []
        self.n_requests = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post(self.path, self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        await self._runner.cleanup()

    @property
    def origin(self) -> str:
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    @abstractmethod
    def understand(self, request: web.Request, body: bytes) -> Received:
        """Read a request as strictly as the real server, or stricter."""

    @abstractmethod
    def answer(self, received: Received, text: str, finish: str) -> dict[str, Any]:
        """The body of a success."""

    @abstractmethod
    def error(self, message: str, code: int) -> dict[str, Any]:
        """The body of a failure."""

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        number, self.n_requests = self.n_requests, self.n_requests + 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            received = self.understand(request, await request.read())
            self.received.append(received)
            step = self.script(number, received)
            await asyncio.sleep(step.delay_s)
            if step.until is not None:
                await step.until.wait()
            return await self._act(request, received, step)
        except ValidationError as error:
            return web.json_response(self.error(str(error), 400), status=400)
        finally:
            self.in_flight -= 1

    async def _act(
        self, request: web.Request, received: Received, step: Step
    ) -> web.StreamResponse:
        if step.kind == "hang":
            await self._closing.wait()
            return web.Response(status=503)
        if step.kind == "reset":
            return await _reset(request)
        if step.kind == "raw":
            return web.Response(body=step.body, content_type="application/json")
        if step.kind == "status":
            headers = {"Location": "/elsewhere"} if step.status in (301, 302, 307) else {}
            if step.retry_after is not None:
                headers["Retry-After"] = step.retry_after
            body = self.error(step.message, step.status)
            return web.json_response(body, status=step.status, headers=headers)
        text = step.text
        if text is None:
            text = json.dumps({"answer": step.label or received.options[0]})
        # A readable body under a wrong type: only a client that looks at the type notices.
        content_type = "text/html" if step.kind == "wrong_type" else "application/json"
        body = self.answer(received, text, step.finish)
        return web.json_response(body, content_type=content_type)


async def _reset(request: web.Request) -> web.StreamResponse:
    """Begin an answer, then drop the connection."""
    headers = {"Content-Length": "1000", "Content-Type": "application/json"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.abort()
    return response
