"""What goes into the ledger and comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from red_ray.types import Outcome, Question, Verdict

UNKNOWN = "unknown"
"""Stands as the result of a request of which nobody knows what came."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request to a judge, written before it leaves: from then on it may have to be paid for.

    `id` is made by the sender. `asked_in` names the round: the run's id, a slash, the rest.
    `tokens` and `cost_usd` (None without a price) are estimates, and count until the answer
    corrects them.
    """

    id: str
    key: str
    judge: str
    asked_in: str
    sent_at: datetime
    tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Unsent:
    """A request that was written and did not leave after all: as if it had never been."""

    id: str


@dataclass(frozen=True, slots=True)
class Received:
    """What came of a request.

    Tokens above 0, and a `cost_usd` that is not None, replace the estimates. What is not told
    was free, as a 429 is, unless `kept_estimate` says that it may have to be paid for.
    """

    id: str
    result: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    latency_ms: float = 0.0
    kept_estimate: bool = False


@dataclass(frozen=True, slots=True)
class Kept:
    """A verdict, the question that it answers, and the round in which it was bought."""

    verdict: Verdict
    question: Question
    asked_in: str = ""


@dataclass(frozen=True, slots=True)
class HumanVerdict:
    """A person's word on a text; the label is None where none fits.

    `given_at`: None is now.
    """

    text: str
    label: str | None
    given_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """A text that was given no sure label, and waits for a person.

    `reason`: `abstained` (the judge gave no result) or `escalated` (nobody was asked).
    `candidates`: likely labels with the model's confidence in each, best first. `note`: why the
    judge gave no result, else empty. `bundle`: the id of the model's. `created_at`: when it came;
    None is now.
    """

    text: str
    reason: str
    candidates: tuple[tuple[str, float], ...]
    note: str = ""
    bundle: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What a judge has cost in all; tokens and USD as far as known, else as estimated."""

    requests: int
    tokens: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """Requests by their result, `UNKNOWN` among them, and what they cost (None: no price)."""

    results: Mapping[str, int]
    tokens: int
    cost_usd: float | None

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.results.values())


@dataclass(frozen=True, slots=True)
class Record:
    """A verdict with all that the ledger keeps beside it; see `Verdict` and `Question`."""

    key: str
    text: str
    candidates: tuple[str, ...]
    mode: str
    judge: str
    prompt_version: str
    outcome: Outcome
    label: str | None
    requests: int
    latency_ms: float
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    error: str
    version: str
    asked_in: str
    created_at: datetime
