"""Ollama's `POST /api/chat`, not streamed."""

from __future__ import annotations

from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from tests.servers.scripted import Received, ScriptedServer


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Message(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str


class _Options(_Strict):
    temperature: float


class _Chat(_Strict):
    model: str = Field(min_length=1)
    messages: list[_Message] = Field(min_length=1)
    stream: Literal[False]
    format: dict[str, Any]
    options: _Options
    tools: list[Any] = []


class OllamaServer(ScriptedServer):
    """Source: https://github.com/ollama/ollama/blob/main/docs/api.md."""

    path = "/api/chat"

    @property
    def base_url(self) -> str:
        return self.origin

    def understand(self, request: web.Request, body: bytes) -> Received:
        chat = _Chat.model_validate_json(body)
        return Received(
            model=chat.model,
            messages=[message.model_dump() for message in chat.messages],
            schema=chat.format,
            temperature=chat.options.temperature,
            authorization=request.headers.get("Authorization"),
        )

    def answer(self, received: Received, text: str, finish: str) -> dict[str, Any]:
        return {
            "model": received.model,
            "created_at": "2025-01-01T00:00:00.000000Z",
            "message": {"role": "assistant", "content": text},
            "done": True,
            "done_reason": finish,
            "total_duration": 5_000_000,
            "load_duration": 1_000_000,
            "prompt_eval_count": 100,
            "prompt_eval_duration": 2_000_000,
            "eval_count": 7,
            "eval_duration": 2_000_000,
        }

    def error(self, message: str, code: int) -> dict[str, Any]:
        return {"error": message}
