"""A judge that is a language model, whatever the protocol of its server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

from red_ray.errors import JudgeError, SchemaRefused
from red_ray.judges.faults import Failure, Remedies, status_error
from red_ray.judges.prompts import CUT, NO_BODY, answer_schema, read_answer, render, unreadable
from red_ray.types import Question, Reply

_MOST_TOKENS = 10_000_000  # of one request: no model takes as many, so the server miscounts


@dataclass(frozen=True, slots=True)
class Chat:
    """A server's answer to one chat request.

    `text` None: the body held no answer. `cut`: it ended before the model did. `version`: of the
    model, as far as the server tells it.
    """

    text: str | None
    cut: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    version: str = ""


class Transport(ABC):
    """Sends chat requests to one model of one server, in its protocol.

    Args:
        remedies: what to tell the user when the server refuses.

    Attributes:
        takes_schema: False once the server has refused one.
        has_answered: whether it ever did; what it refuses from then on is that question alone.
    """

    def __init__(self, remedies: Remedies) -> None:
        self._remedies = remedies
        self.takes_schema = True
        self.has_answered = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Kind, model, address and temperature: the judge's identity."""

    @abstractmethod
    async def chat(self, messages: list[dict[str, str]], schema: dict[str, Any] | None) -> Chat:
        """Send one request, without a schema where that is None.

        Raises:
            SchemaRefused: the server does not take the request in this form.
            JudgeError: as `Judge.ask`.
        """

    @abstractmethod
    async def close(self) -> None:
        """Release connections; may be called twice."""

    def failed(self, failure: Failure, *, with_schema: bool) -> JudgeError:
        """The error of a request that failed; a refusal of its schema is remembered."""
        error = status_error(
            failure,
            judge=self.name,
            remedies=self._remedies,
            with_schema=with_schema,
            has_answered=self.has_answered,
        )
        if isinstance(error, SchemaRefused):
            self.takes_schema = False
        return error


class LanguageJudge:
    """Asks a language model; the options constrain what it can write where the server can do so.

    A server that refuses the schema is asked without one from then on, and the strict reader of
    answers does the work alone.

    Args:
        transport: how the model is reached.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def name(self) -> str:
        """Kind, model, address and temperature."""
        return self._transport.name

    async def ask(self, question: Question, complaint: str = "") -> Reply:
        """Send one chat request and read its answer."""
        schema = answer_schema(question) if self._transport.takes_schema else None
        chat = await self._transport.chat(render(question, complaint), schema)
        self._transport.has_answered |= chat.text is not None
        return replace(
            _read(chat, question),
            prompt_tokens=_believed(chat.prompt_tokens),
            completion_tokens=_believed(chat.completion_tokens),
            version=chat.version,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()


def _believed(n_tokens: int) -> int:
    return n_tokens if 0 <= n_tokens <= _MOST_TOKENS else 0


def _read(chat: Chat, question: Question) -> Reply:
    if chat.text is None:
        return unreadable(NO_BODY)
    # What a cut answer holds so far may look like a shorter label.
    return unreadable(CUT) if chat.cut else read_answer(chat.text, question)
