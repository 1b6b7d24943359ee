"""What crosses the borders between parts: frozen, slotted, cheap to send."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Outcome(StrEnum):
    """What came of one question to a judge."""

    LABEL = "label"  # the judge named a candidate
    NONE = "none"  # no candidate fits; in `verify` mode: "no"
    UNREADABLE = "unreadable"  # an answer that cannot be read: never a label, never a "no"
    TIMEOUT = "timeout"
    ERROR = "error"


LabelledBy = Literal["user", "judge", "user and judge"]
"""Who labelled the rows that say how sure a model is to be."""

FIRST_EXAMPLES = "first_examples"
"""The phase of the rounds before a loop that began without labelled rows."""

WRITING = ("describe", "paraphrase")
"""Modes of a question that are answered in the judge's own words, and by no label of the text."""

HUMAN = "human"
"""Stands as the judge of a verdict that a person gave; no judge's spec reads so."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One option of a question, with what the judge is told about it."""

    label: str
    description: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """Asks which candidate fits `text`, or none.

    `mode`: `choose`; `verify` asks yes or no about a single candidate; `describe` asks for one
    sentence that describes the single candidate, whose name is `text`; `paraphrase` asks for
    `text`, which has the single candidate's label, in other words.
    """

    text: str
    candidates: tuple[Candidate, ...]
    mode: str = "choose"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a judge answered to one request.

    `label` is set for `Outcome.LABEL` only; in a mode of `WRITING` it is what was written.
    `reason`: why an answer could not be read, in words that the judge is told. `version`: of the
    model, as the server tells it.
    """

    outcome: Outcome
    label: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reason: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer to one question, as the ledger keeps it.

    `judge` is `HUMAN` where a person answered. `requests`: requests made for it, retries included;
    0 where the ledger already knew. Tokens and `cost_usd` (None without a price) are of all of
    them. `version`: of the judge's model.
    """

    key: str
    outcome: Outcome
    label: str | None
    judge: str
    requests: int
    latency_ms: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""
    cost_usd: float | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A label that was not chosen, with its probability."""

    label: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What the model says about one text; the contract of endpoint, batch and `predict`."""

    label: str | None
    confidence: float
    decision: str  # accept | none | escalate | abstain
    source: str  # model | judge | human
    alternatives: tuple[Alternative, ...]
    expert: str


@dataclass(frozen=True, slots=True)
class Iteration:
    """One round of the loop, as `iterations.jsonl` and the progress events carry it.

    Times are wall seconds. `log_likelihood` and `estimated_accuracy` are over the cross-fitted seed
    rows, null in a round that did not refit the router; the accuracy also where a judge labelled
    those rows. `n_asked`: questions about the pool that
    had an outcome, what a budget left unasked not among them. `n_gold`: planted questions that were
    answered, `n_gold_right` of them rightly. `label_precision`, the share of the labels added that
    are right, is filled in by who knows the pool's hidden labels.
    """

    iteration: int
    phase: str  # first_examples | informative | all_predicted
    n_asked: int
    n_labelled: int
    n_none: int
    n_unreadable: int
    n_failed: int
    n_requests: int
    n_cached: int
    n_train: int
    n_pool: int
    experts_refitted: tuple[int, ...]
    mean_uncertainty: float
    log_likelihood: float | None
    estimated_accuracy: float | None
    label_precision: float | None
    fit_s: float
    score_s: float
    acquire_s: float
    judge_s: float
    recalibrate_s: float
    n_gold: int = 0
    n_gold_right: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of a run, for the CLI, Tune and the metrics to render.

    `stage`: encode | partition | fit | calibrate | loop | judge | final. `gained` are the pool
    rows (position, label) that an iteration added to training.
    """

    stage: str
    done: int
    total: int
    message: str = ""
    iteration: Iteration | None = None
    gained: tuple[tuple[int, str], ...] = ()
