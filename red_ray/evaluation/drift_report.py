"""What a report on drift says, and when it says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from red_ray.core.metrics import Interval, wilson_interval
from red_ray.errors import ConfigError
from red_ray.types import LabelledBy

LABEL, NONE, NOVELTY, TOPIC, ESCALATION, PROMISE = (
    "label",
    "none",
    "novelty",
    "topic",
    "escalation",
    "promise",
)

WORDS = {
    "given": "texts of the reference given",
    "pool": "texts of the run's pool",
    "known": "of the run's calibration and test rows",
    "cross_fitted": "training rows, each by models that had not seen it",
}
"""What a reference is called, by its source; see `drift_reference`."""


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """When a report says "drift".

    Attributes:
        level: chance of a single false finding in a report on texts without drift, at most.
        min_ratio: a share that grew or shrank by less than this factor is no drift ...
        large_change: ... but where the change is at least this, in shares of all texts.
        min_change: a smaller change is never one.

    Raises:
        ConfigError: a value is out of range.
    """

    level: float = 0.01
    min_ratio: float = 1.5
    large_change: float = 0.05
    min_change: float = 0.002

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ConfigError(f"the level is a chance between 0 and 1, got {self.level!r}")
        if self.min_ratio < 1:
            raise ConfigError(f"the smallest ratio is at least 1, got {self.min_ratio!r}")
        if not 0 <= self.min_change < 1:
            raise ConfigError(f"the smallest change is a share, 0 to 1, got {self.min_change!r}")

    def matters(self, before: float, now: float, factor: float) -> bool:
        """Whether a change of a share is more than a trifle."""
        change = abs(now - before)
        is_far = max(factor, 1 / factor) >= self.min_ratio or change >= self.large_change
        return is_far and change >= self.min_change


@dataclass(frozen=True, slots=True)
class Comparison:
    """One share of the recent texts beside that of the reference.

    Attributes:
        kind: label, none, novelty, topic, escalation or promise.
        name: of the label; of a topic, which has none, its most typical text; else empty.
        expert: the expert that it is about; empty where it is about all.
        hits, n: recent texts in question, and all recent texts.
        hits_before, n_before: the same of the reference, as they hide drift best where they are
            not quite known; of a promise 0 and 0.
        share_before: of the reference; of a promise what was promised.
        ratio: how often over the share is what it was.
        p: chance of what is seen, or more, without drift.
        p_corrected: the same for the whole report; see `core.two_samples.holm`.
        is_drift: whether that is at most the level and the change matters.
    """

    kind: str
    name: str
    expert: str
    hits: int
    n: int
    hits_before: int
    n_before: int
    share_before: float
    ratio: float
    p: float
    p_corrected: float = 1.0
    is_drift: bool = False

    @property
    def share(self) -> float:
        """Of the recent texts."""
        return self.hits / self.n

    @property
    def interval(self) -> Interval:
        """Of `share`, 95 %."""
        return wilson_interval(self.hits, self.n)

    @property
    def grew(self) -> bool:
        """Whether the share is larger than before."""
        return self.share > self.share_before

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self) | {"share": self.share, "share_ci": list(self.interval)}


@dataclass(frozen=True, slots=True)
class Topic:
    """A group of alike novel texts that is larger than it was.

    Attributes:
        compared: its test.
        texts: the recent ones, the most typical first.
        labels: those that the model would give most of them, the most frequent first.
        experts: those that hold these labels for at least a quarter of the texts; one at least.
        known_as: the model's label that at least half of the texts came with; None of a topic that
            is new, as far as is known.
    """

    compared: Comparison
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    experts: tuple[str, ...]
    known_as: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, with all its texts."""
        return asdict(self) | {"compared": self.compared.to_dict()}


@dataclass(frozen=True, slots=True)
class ExpertAdvice:
    """An expert that should be refitted.

    Attributes:
        expert: its name.
        labels: those that it holds.
        reasons: what of the drift is its own, one line each.
        advice: what to do, one line.
    """

    expert: str
    labels: tuple[str, ...]
    reasons: tuple[str, ...]
    advice: str


@dataclass(frozen=True, slots=True)
class Sight:
    """What the counts could have shown, for a label of median share, with a chance of 0.8.

    Attributes:
        share_before: of such a label.
        least_share: the smallest share that would have been found; None where none would.
        n_for_triple: recent texts in which its share tripled would be; None where no number
            is enough beside so small a reference.
    """

    share_before: float
    least_share: float | None
    n_for_triple: int | None


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Where recent texts have labels.

    Attributes:
        accuracy: share of those with a known label whose most probable label it is.
        interval: 95 %.
        n: texts with a label that the model knows.
        estimate: the share at training time, cross-fitted.
        unknown: labels that the model does not know, with their texts' number.
        labelled_by: who labelled the rows of the estimate; of a judge's it is agreement with it.
    """

    accuracy: float | None
    interval: Interval
    n: int
    estimate: float
    unknown: Mapping[str, int]
    labelled_by: LabelledBy = "user"


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What recent texts came to beside a reference.

    Attributes:
        settings: when it is drift.
        source: of the reference; see `drift_reference`.
        n, n_before: recent texts, and those of the reference.
        comparisons: all tests, in no order that matters.
        topics: the new ones, the largest first.
        most_novel: the recent texts that are least like any label.
        experts: those to refit, the one with the surest reason first.
        confidence, confidence_before: mean, in the answers; None where it cannot be said.
        promised: share of the texts that the thresholds promised to escalate at most, or where
            no such goal is, that of the rows they come from; None without a goal.
        escalates: whether the model escalates at all.
        sight: what the counts could have shown; None where label shares are not compared.
        accuracy: where recent texts have labels.
        notes: one line for each thing that a user should know.
    """

    settings: DriftSettings
    source: str
    n: int
    n_before: int
    comparisons: tuple[Comparison, ...]
    topics: tuple[Topic, ...]
    most_novel: tuple[str, ...]
    experts: tuple[ExpertAdvice, ...]
    confidence: float
    confidence_before: float | None
    promised: float | None
    escalates: bool
    sight: Sight | None
    accuracy: Accuracy | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: of the labels and experts only those that changed."""
        return {
            "drift": self.is_drift,
            "settings": asdict(self.settings),
            "reference": self.source,
            "n_recent": self.n,
            "n_reference": self.n_before,
            "n_comparisons": len(self.comparisons),
            "findings": [one.to_dict() for one in self.findings],
            "novelty": {kind: one.to_dict() for kind in (NOVELTY, NONE) for one in self.of(kind)},
            "topics": [topic.to_dict() for topic in self.topics],
            "most_novel": list(self.most_novel),
            "escalation": self._escalation(),
            "confidence": {"mean": self.confidence, "mean_before": self.confidence_before},
            "accuracy": None if self.accuracy is None else asdict(self.accuracy),
            "experts": [asdict(expert) for expert in self.experts],
            "sight": None if self.sight is None else asdict(self.sight),
            "notes": list(self.notes),
        }

    def _escalation(self) -> dict[str, Any] | None:
        found = [one.to_dict() for kind in (ESCALATION, PROMISE) for one in self.of(kind)]
        return {"promised": self.promised, "compared": found} if found else None

    @property
    def is_drift(self) -> bool:
        """Whether anything is."""
        return bool(self.findings)

    @property
    def findings(self) -> tuple[Comparison, ...]:
        """What is drift, the surest first."""
        found = [one for one in self.comparisons if one.is_drift]
        return tuple(sorted(found, key=lambda one: (one.p, one.kind, one.name, one.expert)))

    def of(self, kind: str, *, experts: bool = False) -> tuple[Comparison, ...]:
        """The comparisons of one kind: over all texts, or those near each expert."""
        chosen = [one for one in self.comparisons if one.kind == kind]
        if kind in (NOVELTY, ESCALATION):
            chosen = [one for one in chosen if bool(one.expert) == experts]
        return tuple(chosen)
