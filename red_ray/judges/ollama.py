"""Ollama's own protocol."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import ollama

from red_ray.errors import JudgeTimeout, JudgeUnavailable
from red_ray.judges.faults import Failure, Remedies
from red_ray.judges.language import Chat, Transport

_TAGS_TIMEOUT_S = 1.0  # the first answers wait so long at most; Ollama takes milliseconds
_DIGEST_DIGITS = 12  # as `ollama list` shows it


class OllamaTransport(Transport):
    """Reaches a model of an Ollama server.

    Args:
        model: the model's name at the server.
        base_url: for example `http://127.0.0.1:11434`.
        temperature: 0 for the most probable answer; None leaves it to the model.
        timeout_s: for one request, from connecting to the last byte.
        max_answer_tokens: where an answer is cut; None leaves it to the server.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        temperature: float | None,
        timeout_s: float,
        max_answer_tokens: int | None,
    ) -> None:
        super().__init__(
            Remedies(
                denied="check the key in OLLAMA_API_KEY",
                missing=f"run `ollama pull {model}`, or check the address",
            )
        )
        self._model = model
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._options: dict[str, float] = {}
        if temperature is not None:
            self._options["temperature"] = temperature
        if max_answer_tokens is not None:
            self._options["num_predict"] = max_answer_tokens
        self._open: ollama.AsyncClient | None = None
        self._digest: asyncio.Task[str] | None = None

    @property
    def name(self) -> str:
        """Kind, model, address and temperature."""
        temperature = self._options.get("temperature")
        return f"ollama:{self._model}@{self._base_url}?temperature={temperature!r}"

    async def chat(self, messages: list[dict[str, str]], schema: dict[str, Any] | None) -> Chat:
        """Send one request to `/api/chat`."""
        try:
            # httpx's own time-out bounds each read: a server that trickles would never end.
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client().chat(
                    model=self._model, messages=messages, format=schema, options=self._options
                )
        except TimeoutError as error:
            raise JudgeTimeout(f"{self.name!r}: no answer in {self._timeout_s!r} s") from error
        except (ConnectionError, httpx.TransportError) as error:
            reason = type(error).__name__
            # The client makes a plain ConnectionError of httpx.ConnectError.
            never_left = type(error) in (ConnectionError, httpx.ConnectError)
            raise JudgeUnavailable(
                f"{self.name!r} cannot be reached ({reason}); is `ollama serve` running?",
                never_left=never_left,
            ) from error
        except _StatusError as error:
            raise self.failed(error.failure, with_schema=schema is not None) from error
        except (ValueError, TypeError, RecursionError, httpx.DecodingError, _WrongContentError):
            # The client unpacks the decoded body as keywords: a JSON list is a TypeError.
            return Chat(None)
        return _read(answer, await self._model_digest())

    async def close(self) -> None:
        """Close the connections."""
        if self._digest is not None:
            digest, self._digest = self._digest, None
            digest.cancel()
            await asyncio.wait([digest])
        if self._open is not None:
            client, self._open = self._open, None
            await client.close()  # type: ignore[no-untyped-call]

    async def _model_digest(self) -> str:
        """Asked for once, when the first answer shows that the server is there."""
        if self._digest is None:
            self._digest = asyncio.create_task(_digest(self._client(), self._model))
        digest = self._digest
        await asyncio.wait([digest])  # a cancelled caller must not cancel it for the others
        return "" if digest.cancelled() else digest.result()

    def _client(self) -> ollama.AsyncClient:
        if self._open is None:
            self._open = ollama.AsyncClient(
                self._base_url,
                limits=httpx.Limits(max_connections=None),  # the pool holds the limit
                # The client's own error drops the headers, and with them Retry-After; and a
                # redirect, which would turn the POST into a GET, is refused here.
                event_hooks={"response": [_check]},
            )
        return self._open


class _StatusError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.status)
        self.failure = failure


class _WrongContentError(Exception):
    """A success whose body is not JSON: a proxy's page, not the model's answer."""


async def _check(response: httpx.Response) -> None:
    if not response.is_success:
        await response.aread()
        raise _StatusError(Failure(response.status_code, response.headers, response.text))
    if "json" not in response.headers.get("Content-Type", ""):
        raise _WrongContentError


async def _digest(client: ollama.AsyncClient, model: str) -> str:
    """The first digits of the model's digest; empty where the server does not tell it in time."""
    try:
        async with asyncio.timeout(_TAGS_TIMEOUT_S):
            listed = await client.list()
    except (
        TimeoutError,
        ConnectionError,
        httpx.HTTPError,
        ValueError,
        TypeError,
        RecursionError,
        _StatusError,
        _WrongContentError,
    ):
        return ""
    names = (model, f"{model}:latest")
    found = (one.digest for one in listed.models if one.model in names and one.digest)
    return next(found, "").removeprefix("sha256:")[:_DIGEST_DIGITS]


def _read(answer: ollama.ChatResponse, digest: str) -> Chat:
    return Chat(
        answer.message.content or "",
        cut=answer.done_reason == "length",
        prompt_tokens=answer.prompt_eval_count or 0,
        completion_tokens=answer.eval_count or 0,
        version="@".join(part for part in (answer.model, digest) if part),
    )
