"""OpenAI's protocol, which most servers speak."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
from pydantic import BaseModel, Field, SecretStr, ValidationError

from red_ray.errors import JudgeTimeout, JudgeUnavailable, SchemaRefused
from red_ray.judges.faults import Failure, Remedies
from red_ray.judges.language import Chat, Transport

_CUT = ("length", "content_filter", "error")
_LIMIT, _NEWER_LIMIT = "max_tokens", "max_completion_tokens"


class Message(BaseModel):
    """What the model wrote; null where it refused."""

    content: str | None = None


class Choice(BaseModel):
    """One answer; `finish_reason` says whether it is whole."""

    message: Message
    finish_reason: str | None = None


class Usage(BaseModel):
    """Tokens of one request; null where they were not counted."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class ChatAnswer(BaseModel):
    """What we read of the server's answer."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None
    model: Any = None  # these two are told, not needed: they may be anything
    system_fingerprint: Any = None


class ErrorAnswer(BaseModel):
    """A failure that a router sends as a success: its own server's came too late to be one."""

    error: dict[str, Any]


class OpenAITransport(Transport):
    """Reaches a model of an OpenAI-compatible server.

    Args:
        model: the model's name at the server.
        base_url: up to and without `/chat/completions`, for example `https://host/v1`.
        temperature: 0 for the most probable answer; None leaves it to the model.
        timeout_s: for one request, from connecting to the last byte.
        max_answer_tokens: where an answer is cut; None leaves it to the server.
        api_key: sent as a bearer token; None sends none.
        key_variable: the environment variable to name when the key is refused.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        temperature: float | None,
        timeout_s: float,
        max_answer_tokens: int | None,
        api_key: SecretStr | None,
        key_variable: str,
    ) -> None:
        super().__init__(
            Remedies(
                denied=f"check the key in {key_variable} and its rights",
                missing=f"check the model {model!r} and the address {base_url!r}",
            )
        )
        self._model = model
        self._base_url = base_url
        self._temperature = temperature
        self._timeout_s = timeout_s
        self._max_answer_tokens = max_answer_tokens
        self._limit_field = _LIMIT
        self._api_key = api_key
        self._open: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """Kind, model, address and temperature."""
        return f"openai:{self._model}@{self._base_url}?temperature={self._temperature!r}"

    async def chat(self, messages: list[dict[str, str]], schema: dict[str, Any] | None) -> Chat:
        """Send one request to `/chat/completions`."""
        limit_field = self._limit_field
        try:
            async with self._session().post(
                f"{self._base_url}/chat/completions",
                data=self._request(messages, schema),
                allow_redirects=False,  # a redirect would turn the POST into a GET
            ) as response:
                body = await response.read()
        except TimeoutError as error:
            raise JudgeTimeout(f"{self.name!r}: no answer in {self._timeout_s!r} s") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            reason = type(error).__name__
            never_left = isinstance(error, aiohttp.ClientConnectorError)
            raise JudgeUnavailable(
                f"{self.name!r} cannot be reached ({reason}); is the server running?",
                never_left=never_left,
            ) from error
        if not 200 <= response.status < 300:
            failure = Failure(response.status, response.headers, body.decode("utf-8", "replace"))
            if self._takes_newer_limit(failure, limit_field):
                self._limit_field = _NEWER_LIMIT
                told = f"judge {self.name!r} takes {_NEWER_LIMIT} only; sent from now on"
                raise SchemaRefused(told)
            raise self.failed(failure, with_schema=schema is not None)
        return self._read(body) if "json" in response.content_type else Chat(None)

    async def close(self) -> None:
        """Close the connections."""
        if self._open is not None:
            session, self._open = self._open, None
            await session.close()

    def _read(self, body: bytes) -> Chat:
        try:
            return _chat(ChatAnswer.model_validate_json(body))
        except ValidationError as error:
            if _is_error(body):
                told = f"judge {self.name!r} sent an error in place of an answer"
                raise JudgeUnavailable(told, None, "http_200_error") from error
            return Chat(None)

    def _takes_newer_limit(self, failure: Failure, sent: str) -> bool:
        """Newer models take the limit of an answer by another name."""
        was_older = self._max_answer_tokens is not None and sent == _LIMIT
        return was_older and failure.status == 400 and _NEWER_LIMIT in failure.body

    def _request(self, messages: list[dict[str, str]], schema: dict[str, Any] | None) -> bytes:
        request = {"model": self._model, "messages": messages, "stream": False}
        if self._temperature is not None:
            request["temperature"] = self._temperature
        if schema is not None:
            named = {"name": "answer", "strict": True, "schema": schema}
            request["response_format"] = {"type": "json_schema", "json_schema": named}
        if self._max_answer_tokens is not None:
            request[self._limit_field] = self._max_answer_tokens
        return json.dumps(request).encode("ascii")

    def _session(self) -> aiohttp.ClientSession:
        # Made on the first request: a session belongs to the event loop that it was made in.
        if self._open is None:
            headers = {"Content-Type": "application/json"}
            if self._api_key is not None:
                headers["Authorization"] = f"Bearer {self._api_key.get_secret_value()}"
            self._open = aiohttp.ClientSession(
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                connector=aiohttp.TCPConnector(limit=0),  # the pool holds the limit
            )
        return self._open


def _is_error(body: bytes) -> bool:
    try:
        ErrorAnswer.model_validate_json(body)
    except ValidationError:
        return False
    return True


def _chat(answer: ChatAnswer) -> Chat:
    choice, usage = answer.choices[0], answer.usage or Usage()
    told = (answer.model, answer.system_fingerprint)
    return Chat(
        choice.message.content or "",
        cut=choice.finish_reason in _CUT,
        prompt_tokens=usage.prompt_tokens or 0,
        completion_tokens=usage.completion_tokens or 0,
        version="@".join(part for part in told if isinstance(part, str) and part),
    )
