"""A judge behind OpenAI's protocol, which most servers speak."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from red_ray.errors import JudgeTimeout, JudgeUnavailable
from red_ray.judges.faults import Failure, Remedies, status_error
from red_ray.judges.prompts import answer_schema, read_answer, render
from red_ray.types import Outcome, Question, Reply

_CUT = ("length", "content_filter")


class _Sent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JsonSchema(_Sent):
    """A named schema that the answer must follow."""

    name: str = "answer"
    strict: bool = True
    content: dict[str, Any] = Field(serialization_alias="schema")


class ResponseFormat(_Sent):
    """Asks for an answer that follows a schema."""

    type: Literal["json_schema"] = "json_schema"
    json_schema: JsonSchema


class ChatRequest(_Sent):
    """The body of `POST /chat/completions`."""

    model: str
    messages: list[dict[str, str]]
    temperature: float
    response_format: ResponseFormat
    stream: Literal[False] = False


class Message(BaseModel):
    """What the model wrote; null where it refused."""

    content: str | None = None


class Choice(BaseModel):
    """One answer; `finish_reason` says whether it is whole."""

    message: Message
    finish_reason: str | None = None


class Usage(BaseModel):
    """Tokens of one request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatAnswer(BaseModel):
    """What we read of the server's answer."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None


class OpenAIJudge:
    """Asks a model of an OpenAI-compatible server; the candidates constrain what it can write.

    Args:
        model: the model's name at the server.
        base_url: up to and without `/chat/completions`, for example `https://host/v1`.
        temperature: 0 for the most probable answer.
        timeout_s: for one request, from connecting to the last byte.
        api_key: sent as a bearer token; None sends none.
        key_variable: the environment variable to name when the key is refused.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        temperature: float,
        timeout_s: float,
        api_key: SecretStr | None,
        key_variable: str,
    ) -> None:
        self._model = model
        self._base_url = base_url
        self._temperature = temperature
        self._timeout_s = timeout_s
        self._api_key = api_key
        self._open: aiohttp.ClientSession | None = None
        self._remedies = Remedies(
            denied=f"check the key in {key_variable} and its rights",
            missing=f"check the model {model!r} and the address {base_url!r}",
        )

    @property
    def name(self) -> str:
        """Kind, model, address and temperature."""
        return f"openai:{self._model}@{self._base_url}?temperature={self._temperature!r}"

    async def ask(self, question: Question) -> Reply:
        """Send one request and read its answer."""
        try:
            async with self._session().post(
                f"{self._base_url}/chat/completions",
                data=self._request(question),
                allow_redirects=False,  # a redirect would turn the POST into a GET
            ) as response:
                body = await response.read()
        except TimeoutError as error:
            raise JudgeTimeout(f"{self.name!r}: no answer in {self._timeout_s!r} s") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            reason = type(error).__name__
            raise JudgeUnavailable(
                f"{self.name!r} cannot be reached ({reason}); is the server running?"
            ) from error
        if not 200 <= response.status < 300:
            failure = Failure(response.status, response.headers, body.decode("utf-8", "replace"))
            raise status_error(failure, judge=self.name, remedies=self._remedies)
        if "json" not in response.content_type:
            return Reply(Outcome.UNREADABLE)
        return _read(body, question)

    async def close(self) -> None:
        """Close the connections."""
        if self._open is not None:
            session, self._open = self._open, None
            await session.close()

    def _request(self, question: Question) -> bytes:
        request = ChatRequest(
            model=self._model,
            messages=render(question),
            temperature=self._temperature,
            response_format=ResponseFormat(json_schema=JsonSchema(content=answer_schema(question))),
        )
        return request.model_dump_json(by_alias=True).encode("utf-8")

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


def _read(body: bytes, question: Question) -> Reply:
    try:
        answer = ChatAnswer.model_validate_json(body)
    except ValidationError:
        return Reply(Outcome.UNREADABLE)
    choice, usage = answer.choices[0], answer.usage or Usage()
    # What a cut answer holds so far may look like a shorter label.
    text = "" if choice.finish_reason in _CUT else choice.message.content or ""
    return replace(
        read_answer(text, question),
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )
