"""A judge behind Ollama's own protocol."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import ollama

from red_ray.errors import JudgeTimeout, JudgeUnavailable
from red_ray.judges.faults import Failure, Remedies, status_error
from red_ray.judges.prompts import answer_schema, read_answer, render
from red_ray.types import Outcome, Question, Reply


class OllamaJudge:
    """Asks a model of an Ollama server; the candidates constrain what it can write.

    Args:
        model: the model's name at the server.
        base_url: for example `http://127.0.0.1:11434`.
        temperature: 0 for the most probable answer.
        timeout_s: for one request, from connecting to the last byte.
    """

    def __init__(self, model: str, *, base_url: str, temperature: float, timeout_s: float) -> None:
        self._model = model
        self._base_url = base_url
        self._temperature = temperature
        self._timeout_s = timeout_s
        self._open: ollama.AsyncClient | None = None
        self._remedies = Remedies(
            denied="check the key in OLLAMA_API_KEY",
            missing=f"run `ollama pull {model}`, or check the address",
        )

    @property
    def name(self) -> str:
        """Kind, model, address and temperature."""
        return f"ollama:{self._model}@{self._base_url}?temperature={self._temperature!r}"

    async def ask(self, question: Question) -> Reply:
        """Send one chat request and read its answer."""
        messages, schema = render(question), answer_schema(question)
        try:
            # httpx's own time-out bounds each read: a server that trickles would never end.
            async with asyncio.timeout(self._timeout_s):
                answer = await self._chat(messages, schema)
        except TimeoutError as error:
            raise JudgeTimeout(f"{self.name!r}: no answer in {self._timeout_s!r} s") from error
        except (ConnectionError, httpx.TransportError) as error:
            reason = type(error).__name__
            raise JudgeUnavailable(
                f"{self.name!r} cannot be reached ({reason}); is `ollama serve` running?"
            ) from error
        except (ValueError, TypeError, httpx.DecodingError, _WrongContentError):
            # The client unpacks the decoded body as keywords: a JSON list is a TypeError.
            return Reply(Outcome.UNREADABLE)
        return _read(answer, question)

    async def close(self) -> None:
        """Close the connections."""
        if self._open is not None:
            client, self._open = self._open, None
            await client.close()  # type: ignore[no-untyped-call]

    async def _chat(
        self, messages: list[dict[str, str]], schema: dict[str, Any]
    ) -> ollama.ChatResponse:
        return await self._client().chat(
            model=self._model,
            messages=messages,
            format=schema,
            options={"temperature": self._temperature},
        )

    def _client(self) -> ollama.AsyncClient:
        if self._open is None:
            self._open = ollama.AsyncClient(
                self._base_url,
                limits=httpx.Limits(max_connections=None),  # the pool holds the limit
                # The client's own error drops the headers, and with them Retry-After; and a
                # redirect, which would turn the POST into a GET, is refused here.
                event_hooks={"response": [self._check]},
            )
        return self._open

    async def _check(self, response: httpx.Response) -> None:
        if not response.is_success:
            await response.aread()
            failure = Failure(response.status_code, response.headers, response.text)
            raise status_error(failure, judge=self.name, remedies=self._remedies)
        if "json" not in response.headers.get("Content-Type", ""):
            raise _WrongContentError


class _WrongContentError(Exception):
    """A success whose body is not JSON: a proxy's page, not the model's answer."""


def _read(answer: ollama.ChatResponse, question: Question) -> Reply:
    cut = answer.done_reason == "length"  # what was written so far may look like a shorter label
    text = "" if cut else answer.message.content or ""
    return replace(
        read_answer(text, question),
        prompt_tokens=answer.prompt_eval_count or 0,
        completion_tokens=answer.eval_count or 0,
    )
