"""What goes over HTTP: the endpoint's requests and answers, which the client reads too."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, StrictBool, model_validator

from red_ray.types import LabelledBy

Escalate = Literal["auto", "never", "always"]
Share = Annotated[float, Field(ge=0, le=1)]


class _Given(BaseModel):
    """A request's body: no key that we do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _has_few_keys(cls, given: Any) -> Any:
        # A fault for each of a hundred thousand keys would keep the endpoint busy for seconds.
        if isinstance(given, dict) and len(given) > len(cls.model_fields):
            unknown = next(key for key in given if key not in cls.model_fields)
            raise ValueError(f"unknown key {str(unknown)[:80]!r}")
        return given


class _Told(BaseModel):
    """An answer's body."""

    model_config = ConfigDict(frozen=True)


class ClassifyRequest(_Given):
    """Texts to decide on.

    Attributes:
        texts: at least one; how many, and how long, `/v1/model` says under `limits`.
        top_k: labels to name: the decision's and its alternatives.
        escalate: `auto` asks the judge about what the model escalates, `always` about every text
            (refused where the endpoint asks no judge), `never` about none.
        explain: whether each result says how it came about.
    """

    texts: Annotated[list[str], FailFast(), Field(min_length=1)]
    top_k: int = Field(default=3, ge=1, le=100, strict=True)
    escalate: Escalate = "auto"
    explain: StrictBool = False


class Alternative(_Told):
    """A label that was not chosen."""

    label: str
    confidence: Share


class Evidence(_Told):
    """What is known about a text and a label; a part that the model lacks is null.

    `gate`, `expert` and `noise` are probabilities by the flat model, by the label's expert, and by
    that expert for *none of mine*; the others are cosines.
    """

    gate: Share | None
    expert: Share
    noise: Share
    centroid: float
    nearest: float
    nearest_3: float
    lexical_centroid: float | None
    lexical_nearest: float | None


class LabelEvidence(_Told):
    """A candidate label with what speaks for it."""

    label: str
    confidence: Share
    expert: str
    evidence: Evidence


class ExpertSaid(_Told):
    """What one expert makes of the text: its best label, and the probability of *none of mine*."""

    expert: str
    n_labels: int
    label: str
    score: Share
    noise: Share


class NearExample(_Told):
    """A labelled text that is like this one; `given_by`: who labelled it.

    `name`: it is the label's own name, which has no other example.
    """

    text: str
    label: str
    similarity: float
    given_by: Literal["user", "judge", "name"]


class AskedCandidate(_Told):
    """An option that the judge was given."""

    label: str
    description: str
    examples: list[str]


class JudgeSaid(_Told):
    """The judge's question and answer.

    `outcome`: label, none, unreadable, timeout or error; `pending` where the answer had not come
    when the endpoint stopped waiting (it goes into the ledger when it comes); `not_asked` where a
    budget or a limit did not allow it. `from_ledger`: it was known, and cost nothing now.
    """

    judge: str
    simulated: bool
    mode: str
    candidates: list[AskedCandidate]
    outcome: Literal["label", "none", "unreadable", "timeout", "error", "pending", "not_asked"]
    label: str | None = None
    error: str = ""
    from_ledger: bool = False
    requests: int = 0
    latency_ms: float | None = None
    cost_usd: float | None = None


class Step(_Told):
    """Time of one step, for all texts that went through it together, and its price."""

    step: Literal["wait", "encode", "evidence", "decide", "explain", "judge"]
    ms: float
    cost_usd: float | None = 0.0


class Thresholds(_Told):
    """Where decisions change: a text is escalated from this risk on, *none* from that probability.

    `goals`, `source` (`rows`: a guarantee, `cross_fitted`: an estimate) and `labelled_by` (who
    labelled the rows that they rest on) are null without a goal.
    """

    escalate: float | None
    none: float
    goals: dict[str, float] | None = None
    source: Literal["rows", "cross_fitted"] | None = None
    labelled_by: LabelledBy | None = None
    confidence: float | None = None


class Explanation(_Told):
    """How a decision came about.

    Attributes:
        risk: probability that the model's own answer is wrong.
        none: probability that no label fits.
        candidates: the best labels, best first.
        experts: those that say most that the text is theirs, of `n_experts`.
        gate: best labels of the flat model; empty without one.
        examples: nearest labelled texts, nearest first.
        judge: null where it was not to be asked.
    """

    risk: Share
    none: Share
    thresholds: Thresholds
    candidates: list[LabelEvidence]
    n_experts: int
    experts: list[ExpertSaid]
    gate: list[Alternative]
    examples: list[NearExample]
    judge: JudgeSaid | None = None
    steps: list[Step] = []


class Result(_Told):
    """The decision on one text; see the README for the words. `explanation` only where asked."""

    label: str | None
    confidence: Share
    decision: Literal["accept", "none", "escalate", "abstain"]
    source: Literal["model", "judge", "human"]
    alternatives: list[Alternative]
    expert: str
    explanation: Explanation | None = None


class ClassifyAnswer(_Told):
    """Decisions in the order of the texts, all of the bundle that is named."""

    bundle: str
    results: list[Result]


class Feedback(_Given):
    """A person's label for a text; null says that no label fits."""

    text: str = Field(min_length=1)
    label: str | None


class FeedbackRequest(_Given):
    """People's labels: they go into the ledger, and into the next training."""

    answers: Annotated[list[Feedback], FailFast(), Field(min_length=1, max_length=256)]


class FeedbackAnswer(_Told):
    """How many labels said something new."""

    kept: int
    bundle: str


class Said(_Told):
    """Who gave a text which label; null: none fits."""

    by: Literal["user", "judge", "model"]
    label: str | None


class QueueItem(_Told):
    """A text that a person should look at.

    `reason`: `abstained` (the judge gave no result), `escalated` (nobody was asked), `disputed`
    (model and judge contradict a label of training). `candidates`: likely labels, best first.
    `note`: why the judge gave no result, else empty.
    """

    text: str
    reason: Literal["abstained", "escalated", "disputed"]
    candidates: list[Alternative]
    said: list[Said]
    note: str = ""
    at: datetime | None = None


class Queue(_Told):
    """The newest texts that wait for a person, and how many there are in all."""

    n_open: int
    items: list[QueueItem]


class Label(_Told):
    """A label, its expert, and how many examples of it the model has."""

    label: str
    description: str
    expert: str
    n_examples: int


class CurvePoint(_Told):
    """A threshold that could have been: the share of texts it escalates and what that brings."""

    threshold: float
    escalated: Share
    recall: Share | None
    precision: Share | None


class JudgeInfo(_Told):
    """Who is asked about escalated texts."""

    judge: str
    simulated: bool
    question: str
    top_k: int
    wait_s: float
    on_failure: str


class LimitsInfo(_Told):
    """What a call may hold."""

    texts_per_call: int
    chars_per_text: int
    body_bytes: int
    wait_s: float


class ModelInfo(_Told):
    """The model that answers.

    Attributes:
        bundle: its id; every answer names it.
        curve: of the calibration rows; empty without any.
        promised_share: share of texts that calibration expects to be escalated.
        failed_update: why a newer bundle was not taken over; null where there is none.
        scorecard: see the README; null where the run was never tested.
    """

    bundle: str
    run: str
    loaded_at: datetime
    layout: Literal["packed", "sharded"]
    encoder: str
    dtype: str
    labels: list[Label]
    n_experts: int
    thresholds: Thresholds
    curve: list[CurvePoint]
    promised_share: float | None
    judge: JudgeInfo | None
    limits: LimitsInfo
    scorecard: dict[str, Any] | None
    versions: dict[str, str]
    failed_update: str | None = None


class EscalationRate(_Told):
    """Share of texts escalated of late, against what calibration promised.

    `low` and `high`: where the share would lie in 99 of 100 windows of this size, if the texts are
    of the kind that the calibration rows were; null without a promise. `alarm`: it lies outside.
    `estimate`: the promise rests on the training's own rows, for want of rows of the user's.
    """

    share: float | None
    n_texts: int
    promised: float | None
    estimate: bool
    low: float | None
    high: float | None
    alarm: bool


class RatePoint(_Told):
    """Counts of one span of `RATE_SPAN_S` seconds."""

    at: datetime
    requests: int
    texts: int
    escalated: int
    errors: int


class Stats(_Told):
    """Live rates of all replicas together, since the endpoint was started."""

    started_at: datetime
    replicas: int
    requests: int
    texts: int
    errors: int
    refused: int
    decisions: dict[str, int]
    sources: dict[str, int]
    texts_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    escalation: EscalationRate
    judge: dict[str, Any] | None
    history: list[RatePoint]


class ErrorAnswer(_Told):
    """What went wrong, in one line; `request_id` finds it in the logs."""

    detail: str
    request_id: str


RATE_SPAN_S = 10
