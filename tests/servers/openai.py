"""OpenAI's `POST /v1/chat/completions`, not streamed, with structured output."""

from __future__ import annotations

from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from tests.servers.scripted import Received, ScriptedServer


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class _JsonSchema(_Strict):
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    strict: Literal[True]
    content: dict[str, Any] = Field(alias="schema")


class _ResponseFormat(_Strict):
    type: Literal["json_schema"]
    json_schema: _JsonSchema


class _Chat(_Strict):
    model: str = Field(min_length=1)
    messages: list[_Message] = Field(min_length=1)
    temperature: float = Field(ge=0, le=2)
    response_format: _ResponseFormat
    stream: Literal[False] = False


class OpenAIServer(ScriptedServer):
    """Source: https://platform.openai.com/docs/api-reference/chat/create."""

    path = "/v1/chat/completions"

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1"

    def understand(self, request: web.Request, body: bytes) -> Received:
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType
        chat = _Chat.model_validate_json(body)
        return Received(
            model=chat.model,
            messages=[message.model_dump() for message in chat.messages],
            schema=chat.response_format.json_schema.content,
            temperature=chat.temperature,
            authorization=request.headers.get("Authorization"),
        )

    def answer(self, received: Received, text: str, finish: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return {
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": 1_735_689_600,
            "model": received.model,
            "choices": [choice],
            "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
            "system_fingerprint": None,
        }

    def error(self, message: str, code: int) -> dict[str, Any]:
        return {"error": {"message": message, "type": "scripted", "param": None, "code": str(code)}}
