"""What a scripted server does with a request, and scripts that decide it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Received:
    """A request as the server understood it."""

    model: str
    messages: list[dict[str, str]]
    schema: dict[str, Any] | None
    temperature: float | None
    max_tokens: int | None
    limit_field: str
    authorization: str | None

    @property
    def asked(self) -> list[str]:
        """The lines of the user's first message."""
        return next(m["content"] for m in self.messages if m["role"] == "user").split("\n")

    @property
    def text(self) -> str:
        """The text that is asked about or to be said in other words, or the label to describe."""
        last = json.loads(self.asked[-1])
        return str(last["label"]) if isinstance(last, dict) else str(last)

    @property
    def asks_for_description(self) -> bool:
        return self.asked[0] == "Label:"

    @property
    def asks_for_paraphrase(self) -> bool:
        return self.asked[0] == "Label of the text:"

    @property
    def asks_for_words(self) -> bool:
        """Whether there are no options."""
        return self.asks_for_description or self.asks_for_paraphrase

    @property
    def options(self) -> list[str]:
        """What may be answered: of the schema, else as the prompt lists it."""
        if self.schema is not None:
            return list(self.schema["properties"]["answer"]["enum"])
        listed = [json.loads(line)["label"] for line in self.asked[1:-3]]
        return listed if len(listed) > 1 else ["yes", "no"]


@dataclass(frozen=True, slots=True)
class Step:
    """What the server does with one request.

    `kind`: answer | two_labels | wrong_type | trickle | status | loading | hang | reset | raw. An
    answer is `text`, or the schema's object with `label`, or with the first option where both are
    None; it is held back for `delay_s` and until the event `until`. `name`: under what it is
    counted.
    """

    kind: str = "answer"
    name: str = ""
    label: str | None = None
    text: str | None = None
    finish: str = "stop"
    prompt_tokens: int = 100
    completion_tokens: int = 7
    fingerprint: str | None = None
    status: int = 200
    retry_after: str | None = None
    message: str = "scripted"
    delay_s: float = 0.0
    pause_s: float = 0.0
    until: asyncio.Event | None = None
    body: bytes = b""

    @property
    def served_as(self) -> str:
        return self.name or (f"status {self.status}" if self.kind == "status" else self.kind)


def ok(
    label: str | None = None, *, delay_s: float = 0.0, until: asyncio.Event | None = None
) -> Step:
    return Step(label=label, delay_s=delay_s, until=until)


def says(text: str, *, finish: str = "stop", name: str = "") -> Step:
    return Step(text=text, finish=finish, name=name)


def costs(prompt_tokens: int, completion_tokens: int, label: str | None = None) -> Step:
    """An answer that took so many tokens."""
    return Step(label=label, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def status(code: int, *, retry_after: str | None = None, message: str = "scripted") -> Step:
    return Step("status", status=code, retry_after=retry_after, message=message)


def loading() -> Step:
    """503 until the model is there, as the server says it."""
    return Step("loading")


def hang() -> Step:
    return Step("hang")


def reset() -> Step:
    return Step("reset")


def trickle(pause_s: float = 0.001) -> Step:
    """A good answer, byte by byte."""
    return Step("trickle", pause_s=pause_s)


def raw(body: bytes) -> Step:
    """A success with this body, said to be JSON."""
    return Step("raw", body=body)


def garbage() -> Step:
    return replace(raw(b'{"choices": [{"mess\xff'), name="garbage")


def wrong_type() -> Step:
    return Step("wrong_type")


def lie() -> Step:
    """A label that was not offered."""
    return Step(name="lie", label="never_offered")


def two_labels() -> Step:
    """Two of the options in one answer."""
    return Step("two_labels")


Script = Callable[[int, Received], Step]
"""The number of the request, from 0, and the request -> what to do with it."""

FAULTS = (
    status(429, retry_after="0.01"),
    status(500),
    loading(),
    reset(),
    garbage(),
    wrong_type(),
    lie(),
    two_labels(),
    says("", name="empty"),
    says("I would say that it is the first one.", name="prose"),
    says('{"answer": "', finish="length", name="cut"),
)
"""One of each kind that ends by itself; add `hang()` where a time-out is short."""


def steps(*first: Step, then: Step | None = None) -> Script:
    """One step after the other, then `then` for ever (an answer by default)."""
    last = then or ok()
    return lambda number, _: first[number] if number < len(first) else last


def by_text(*, delay_s: float = 0.0) -> Script:
    """The right label is a hash of the text: the same for every order, retry and process."""
    return lambda _, received: Step(
        name="answer",
        label=None if received.asks_for_words else right_option(received),
        delay_s=delay_s,
    )


def mixed(share: float, faults: Sequence[Step] = FAULTS, *, otherwise: Script) -> Script:
    """Faults in `share` of the requests, by a hash of the request's number."""

    def choose(number: int, received: Received) -> Step:
        drawn = int(hash_of(str(number))[:12], 16)
        if drawn % 10_000 < share * 10_000:
            return faults[drawn // 10_000 % len(faults)]
        return otherwise(number, received)

    return choose


def right_option(received: Received) -> str:
    """What `by_text` answers; whatever the order of the options."""
    options = sorted(received.options)
    return options[int(hash_of(received.text)[:12], 16) % len(options)]


def hash_of(text: str) -> str:
    """SHA-256 in hex, as the journal holds it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
