"""The first thing a reader sees: how good the model is, and beside what."""

from __future__ import annotations

from dataclasses import dataclass

from red_ray.evaluation.report.figures import (
    Figure,
    Tile,
    count,
    decimal,
    figure,
    percent,
    percent_interval,
    percent_tile,
    plural,
)
from red_ray.evaluation.report.source import Estimate, RunFiles, Scorecard

_BASELINES = {
    "flat": ("Flat classifier", "logistic regression over all labels, on the same rows"),
    "flat_seed_rows": ("Flat, initial rows", "the same, on the rows it all began with"),
    "experts_only": ("Experts only", "the surest expert answers; no router"),
    "majority": ("Majority", "always the most frequent label"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """An accuracy among others; `kind` is model, baseline or ceiling."""

    name: str
    note: str
    kind: str
    found: Figure

    @property
    def value(self) -> str:
        """The accuracy as text."""
        return percent(self.found.value)

    @property
    def interval(self) -> str:
        """Its 95 % interval as text, empty where unknown."""
        return percent_interval(self.found)

    @property
    def width(self) -> str:
        """How long the bar is, in % of the track."""
        return f"{_clip(self.found.value):.2f}"

    @property
    def whisker(self) -> tuple[str, str] | None:
        """Where the interval starts and how long it is, in % of the track."""
        if self.found.interval is None:
            return None
        low, high = (_clip(end) for end in self.found.interval)
        return f"{low:.2f}", f"{high - low:.2f}"


@dataclass(frozen=True, slots=True)
class Headline:
    """The headline section; without test rows only the estimate is there."""

    sentence: str
    tiles: tuple[Tile, ...]
    bars: tuple[Bar, ...]
    ceiling: Bar | None
    comparison: str
    warning: str
    checks: str
    estimate: tuple[Tile, ...]


def headline(files: RunFiles) -> Headline:
    """The headline figures of a run."""
    card = files.scorecard
    estimate = files.details.estimate if files.details else None
    return Headline(
        sentence=_sentence(card),
        tiles=_tiles(card) if card else (),
        bars=_bars(card) if card else (),
        ceiling=_ceiling(card) if card else None,
        comparison=_comparison(card) if card else "",
        warning=_leak_warning(card),
        checks=" ".join(filter(None, (_dropped(card), _unknown(card)))),
        estimate=_estimate_tiles(estimate, files.details.labelled_by if files.details else "user"),
    )


def _sentence(card: Scorecard | None) -> str:
    accuracy = figure(card.rates, "accuracy") if card else None
    if card is None or accuracy is None:
        return ""
    n_test, n_labels = figure(card.rates, "n_test"), figure(card.rates, "n_labels")
    among = f" among {count(n_labels.value)}" if n_labels else ""
    texts = f"{count(n_test.value)} test texts" if n_test else "the test texts"
    return f"{percent(accuracy.value)} of {texts} get the right label{among}."


def _tiles(card: Scorecard) -> tuple[Tile, ...]:
    rates = card.rates
    return (
        percent_tile(
            rates, "accuracy", name="Accuracy", note="test texts whose most probable label is true"
        ),
        percent_tile(
            rates, "macro_f1", name="Macro F1", note="every label counts the same, rare ones too"
        ),
        percent_tile(
            rates,
            "answered_share",
            name="Answered alone",
            note="test texts that get a label; the others are escalated or refused",
        ),
        percent_tile(
            rates,
            "accuracy_decided",
            name="Right when it answers",
            note="accuracy among the texts that get a label",
        ),
    )


def _bars(card: Scorecard) -> tuple[Bar, ...]:
    model = figure(card.rates, "accuracy")
    bars = [Bar("This model", "experts and router together", "model", model)] if model else []
    for key, (name, note) in _BASELINES.items():
        found = figure(card.baselines, key)
        if found:
            bars.append(Bar(name, note, "baseline", found))
    return tuple(bars)


def _ceiling(card: Scorecard) -> Bar | None:
    found = figure(card.baselines, "oracle_routed")
    note = "the true label names the expert to ask"
    return Bar("Oracle-routed", note, "ceiling", found) if found else None


def _comparison(card: Scorecard) -> str:
    model, flat = figure(card.rates, "accuracy"), figure(card.baselines, "flat")
    if model is None or flat is None:
        return ""
    points = 100 * (model.value - flat.value)
    if abs(points) < 0.05:
        return "The model is level with the flat classifier on the same rows."
    side = "above" if points > 0 else "below"
    told = f"The model is {abs(points):.1f} points {side} the flat classifier on the same rows"
    if model.interval is None or flat.interval is None:
        return f"{told}."
    apart = model.interval[0] > flat.interval[1] or model.interval[1] < flat.interval[0]
    return f"{told}; their 95 % intervals {'do not overlap' if apart else 'overlap'}."


def _leak_warning(card: Scorecard | None) -> str:
    leaked = figure(card.leaks, "train_test") if card else None
    if leaked is None or leaked.value == 0:
        return ""
    rows = plural(int(leaked.value), "test row")
    return f"{rows} also stand in the training rows: the figures of this page are too good."


def _dropped(card: Scorecard | None) -> str:
    dropped = figure(card.leaks, "train_test_dropped") if card else None
    if dropped is None:
        return ""
    if dropped.value == 0:
        return "No test row also stood in the training rows."
    rows = plural(int(dropped.value), "test row")
    return f"{rows} also stood in the training rows and did not count."


def _unknown(card: Scorecard | None) -> str:
    unknown = figure(card.rates, "n_unknown_label") if card else None
    if unknown is None or unknown.value == 0:
        return ""
    return f"{plural(int(unknown.value), 'test row')} of a label never trained counted as wrong."


def _estimate_tiles(estimate: Estimate | None, labelled_by: str) -> tuple[Tile, ...]:
    if estimate is None:
        return ()
    by = "estimate" if labelled_by == "user" else "agreement with the judge, where it was asked"
    return (
        Tile("Accuracy", percent(estimate.accuracy), by),
        Tile("Log-likelihood", decimal(estimate.log_likelihood), "estimate, per row; 0 is perfect"),
        Tile("Calibration error", percent(estimate.ece), "estimate"),
        Tile("Brier score", decimal(estimate.brier), "estimate; 0 is perfect, 2 the worst"),
    )


def _clip(share: float) -> float:
    return 100 * min(1.0, max(0.0, share))
