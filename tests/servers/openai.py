"""OpenAI's `POST /v1/chat/completions`, not streamed, with structured output."""

from __future__ import annotations

from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from tests.servers.scripted import ScriptedServer
from tests.servers.steps import Received, Step


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
    temperature: float = Field(default=1.0, ge=0, le=2)
    response_format: _ResponseFormat | None = None
    max_tokens: int | None = Field(default=None, gt=0)
    max_completion_tokens: int | None = Field(default=None, gt=0)
    stream: Literal[False] = False


class OpenAIServer(ScriptedServer):
    """Source: https://platform.openai.com/docs/api-reference/chat/create.

    `newer` refuses `max_tokens`, as reasoning models do.
    """

    path = "/v1/chat/completions"
    newer = False

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
            schema=chat.response_format and chat.response_format.json_schema.content,
            temperature=chat.temperature if "temperature" in chat.model_fields_set else None,
            max_tokens=chat.max_tokens or chat.max_completion_tokens,
            limit_field="max_tokens" if chat.max_tokens else "max_completion_tokens",
            authorization=request.headers.get("Authorization"),
        )

    def refused(self, received: Received) -> Step | None:
        if self.newer and received.max_tokens and received.limit_field == "max_tokens":
            told = "'max_tokens' is not supported with this model, use 'max_completion_tokens'"
            return Step("status", name="limit refused", status=400, message=told)
        return super().refused(received)

    def answer(self, received: Received, text: str, step: Step) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": step.finish}
        return {
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": 1_735_689_600,
            "model": received.model,
            "choices": [choice],
            "usage": {
                "prompt_tokens": step.prompt_tokens,
                "completion_tokens": step.completion_tokens,
                "total_tokens": step.prompt_tokens + step.completion_tokens,
            },
            "system_fingerprint": step.fingerprint,
        }

    def error(self, message: str, code: int) -> dict[str, Any]:
        return {"error": {"message": message, "type": "scripted", "param": None, "code": str(code)}}

    def schema_refusal(self) -> tuple[int, str]:
        return 400, "'response_format' of type 'json_schema' is not supported with this model"

    def loading(self) -> tuple[int, dict[str, Any]]:
        # As llama.cpp says it.
        error = {"code": 503, "message": "Loading model", "type": "unavailable_error"}
        return 503, {"error": error}
