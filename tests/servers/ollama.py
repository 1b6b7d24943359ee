"""Ollama's `POST /api/chat`, not streamed."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from tests.servers.scripted import ScriptedServer
from tests.servers.steps import Received, Script, Step

DIGEST = "0123456789abcdef" * 4


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Message(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str


class _Options(_Strict):
    temperature: float = 0.8
    num_predict: int | None = None


class _Chat(_Strict):
    model: str = Field(min_length=1)
    messages: list[_Message] = Field(min_length=1)
    stream: Literal[False]
    format: dict[str, Any] | None = None
    options: _Options
    tools: list[Any] = []


class OllamaServer(ScriptedServer):
    """Source: https://github.com/ollama/ollama/blob/main/docs/api.md.

    `tags` is what becomes of `GET /api/tags`, which costs nothing and is counted in `n_tags` alone.
    """

    path = "/api/chat"
    tags = Step()
    n_tags = 0

    def __init__(self, script: Script | None = None, **options: Any) -> None:
        super().__init__(script, **options)
        self.tags_came = asyncio.Event()

    def routes(self) -> list[web.RouteDef]:
        return [*super().routes(), web.get("/api/tags", self._tags)]

    async def _tags(self, _: web.Request) -> web.Response:
        self.n_tags += 1
        self.tags_came.set()
        if self.tags.kind == "hang":
            await self._closing.wait()
        if self.tags.kind != "answer":
            code = self.tags.status if self.tags.kind == "status" else 200
            return web.Response(status=code, body=self.tags.body, content_type="application/json")
        listed = {"name": "m:latest", "model": "m:latest", "digest": DIGEST, "size": 1}
        return web.json_response({"models": [{**listed, "digest": "f" * 64, "model": "n"}, listed]})

    @property
    def base_url(self) -> str:
        return self.origin

    def understand(self, request: web.Request, body: bytes) -> Received:
        chat = _Chat.model_validate_json(body)
        options = chat.options
        return Received(
            model=chat.model,
            messages=[message.model_dump() for message in chat.messages],
            schema=chat.format,
            temperature=options.temperature if "temperature" in options.model_fields_set else None,
            max_tokens=options.num_predict,
            limit_field="num_predict",
            authorization=request.headers.get("Authorization"),
        )

    def answer(self, received: Received, text: str, step: Step) -> dict[str, Any]:
        return {
            "model": received.model,
            "created_at": "2025-01-01T00:00:00.000000Z",
            "message": {"role": "assistant", "content": text},
            "done": True,
            "done_reason": step.finish,
            "total_duration": 5_000_000,
            "load_duration": 1_000_000,
            "prompt_eval_count": step.prompt_tokens,
            "prompt_eval_duration": 2_000_000,
            "eval_count": step.completion_tokens,
            "eval_duration": 2_000_000,
        }

    def error(self, message: str, code: int) -> dict[str, Any]:
        return {"error": message}

    def schema_refusal(self) -> tuple[int, str]:
        # A server from before structured output: `format` was a string then.
        field = "Go struct field ChatRequest.format of type string"
        return 400, f"json: cannot unmarshal object into {field}"

    def loading(self) -> tuple[int, dict[str, Any]]:
        busy = "server busy, please try again.  maximum pending requests exceeded"
        return 503, self.error(busy, 503)
