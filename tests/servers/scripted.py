"""What both servers share: a script of steps, a count of every request, one loopback port."""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from pydantic import ValidationError

from tests.servers.steps import Received, Script, Step, hash_of, steps


class ScriptedServer(ABC):
    """Serves on a loopback port inside `async with`.

    `n_requests` and `served`, by kind, are the truth about cost: counted on arrival.

    Args:
        script: what is done with each request; answers by default.
        port: 0 takes a free one.
        takes_schema: False refuses requests with a schema, as an old or a small server does.
        journal: a file that gets one JSON line for each request on arrival; it outlives whoever
            is killed. Requests are then not kept in `received`.
    """

    path: str

    def __init__(
        self,
        script: Script | None = None,
        *,
        port: int = 0,
        takes_schema: bool = True,
        journal: Path | None = None,
    ) -> None:
        self.script = script or steps()
        self.takes_schema = takes_schema
        self.received: list[Received] = []
        self.served: Counter[str] = Counter()
        self.n_requests = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self._port = port
        self._journal = journal
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_routes(self.routes())
        if self._journal is not None:
            self._lines = self._journal.open("ab", buffering=0)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, backlog=1024).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        await self._runner.cleanup()
        if self._journal is not None:
            self._lines.close()

    @property
    def origin(self) -> str:
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    @property
    @abstractmethod
    def base_url(self) -> str:
        """What a client is given as the server's address."""

    def routes(self) -> list[web.RouteDef]:
        """What the server offers."""
        return [web.post(self.path, self._serve)]

    @abstractmethod
    def understand(self, request: web.Request, body: bytes) -> Received:
        """Read a request as strictly as the real server, or stricter."""

    @abstractmethod
    def answer(self, received: Received, text: str, step: Step) -> dict[str, Any]:
        """The body of a success."""

    @abstractmethod
    def error(self, message: str, code: int) -> dict[str, Any]:
        """The body of a failure."""

    @abstractmethod
    def schema_refusal(self) -> tuple[int, str]:
        """Status and message for a request whose schema the server does not take."""

    @abstractmethod
    def loading(self) -> tuple[int, dict[str, Any]]:
        """Status and body while the model is not there yet."""

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        number, self.n_requests = self.n_requests, self.n_requests + 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            received = self.understand(request, await request.read())
            step = self.refused(received) or self.script(number, received)
            self._note(number, received, step)
            await asyncio.sleep(step.delay_s)
            if step.until is not None:
                await step.until.wait()
            return await self._act(request, received, step)
        except ValidationError as error:
            self.served["invalid"] += 1
            return web.json_response(self.error(str(error), 400), status=400)
        finally:
            self.in_flight -= 1

    def refused(self, received: Received) -> Step | None:
        """What becomes of a request in a form that the server does not take."""
        if received.schema is None or self.takes_schema:
            return None
        code, message = self.schema_refusal()
        return Step("status", name="schema refused", status=code, message=message)

    def _note(self, number: int, received: Received, step: Step) -> None:
        self.served[step.served_as] += 1
        if self._journal is None:
            self.received.append(received)
            return
        line = {
            "number": number,
            "time_s": time.time(),
            "text": hash_of(received.text),
            "served": step.served_as,
        }
        self._lines.write(json.dumps(line).encode("ascii") + b"\n")

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
        if step.kind == "loading":
            code, body = self.loading()
            return web.json_response(body, status=code)
        if step.kind == "status":
            return self._refuse(step)
        body = self.answer(received, _text(received, step), step)
        if step.kind == "trickle":
            return await _trickle(request, body, step.pause_s)
        # A readable body under a wrong type: only a client that looks at the type notices.
        content_type = "text/html" if step.kind == "wrong_type" else "application/json"
        return web.json_response(body, content_type=content_type)

    def _refuse(self, step: Step) -> web.Response:
        headers = {"Location": "/elsewhere"} if step.status in (301, 302, 307) else {}
        if step.retry_after is not None:
            headers["Retry-After"] = step.retry_after
        body = self.error(step.message, step.status)
        return web.json_response(body, status=step.status, headers=headers)


def _text(received: Received, step: Step) -> str:
    if step.text is not None:
        return step.text
    if step.kind == "two_labels":
        return json.dumps({"answer": ", ".join(received.options[:2])})
    if received.asks_for_description:
        return json.dumps({"description": f"Texts about {hash_of(received.text)[:8]}."})
    if received.asks_for_paraphrase:
        return json.dumps({"paraphrase": f"In other words, {received.text}"})
    return json.dumps({"answer": step.label or received.options[0]})


async def _reset(request: web.Request) -> web.StreamResponse:
    """Begin an answer, then drop the connection."""
    headers = {"Content-Length": "1000", "Content-Type": "application/json"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.abort()
    return response


async def _trickle(
    request: web.Request, body: Mapping[str, Any], pause_s: float
) -> web.StreamResponse:
    """Send a good answer byte by byte."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for byte in json.dumps(body).encode("utf-8"):
        await response.write(bytes([byte]))
        await asyncio.sleep(pause_s)
    return response
