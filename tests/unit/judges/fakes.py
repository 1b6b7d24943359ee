"""Questions, a judge that follows a script and a clock that only moves by sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from red_ray.errors import JudgeError
from red_ray.types import Candidate, Outcome, Question, Reply

LABELS = ("card_arrival", "card_lost", "top_up")


def question(
    text: str = "where is my card?", labels: Iterable[str] = LABELS, mode: str = "choose"
) -> Question:
    return Question(text, tuple(Candidate(label) for label in labels), mode)


def verify(text: str = "where is my card?", label: str = "card_arrival") -> Question:
    return question(text, [label], "verify")


def questions(n: int) -> list[Question]:
    return [question(f"text {i}") for i in range(n)]


def label(name: str = "card_arrival") -> Reply:
    return Reply(Outcome.LABEL, name, prompt_tokens=10, completion_tokens=2)


UNREADABLE = Reply(Outcome.UNREADABLE, prompt_tokens=10, completion_tokens=2, reason="it was empty")

Act = Reply | JudgeError
Script = Callable[[int, Question], Act]


def script(*acts: Act, then: Act | None = None) -> Script:
    last = then or label()
    return lambda number, _: acts[number] if number < len(acts) else last


class FakeJudge:
    """Answers by a script; `gate` holds back all answers until it is set."""

    name = "fake"

    def __init__(self, acts: Script | None = None, *, gate: asyncio.Event | None = None) -> None:
        self.acts = acts or script()
        self.gate = gate
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.closed = 0

    async def ask(self, question: Question, complaint: str = "") -> Reply:
        number = len(self.asked)
        self.asked.append(question.text)
        self.complaints.append(complaint)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await (self.gate.wait() if self.gate else asyncio.sleep(0))
            act = self.acts(number, question)
            if isinstance(act, JudgeError):
                raise act
            return act
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        self.closed += 1


class FakeTime:
    """A clock that stands still but for `sleep`, which takes no time."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)
