"""Where the model is wrong, and whether it knows: confusions, calibration, experts, labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from red_ray.calibration import JUDGED, ROWS
from red_ray.evaluation.report.charts import (
    confidence_chart,
    none_chart,
    reliability_chart,
    threshold_chart,
)
from red_ray.evaluation.report.figures import (
    Tile,
    count,
    decimal,
    decimal_interval,
    figure,
    number,
    percent,
    percent_tile,
    plural,
)
from red_ray.evaluation.report.source import (
    Details,
    LabelRow,
    RunFiles,
    ThresholdDetails,
)

_MAX_PAIRS = 12  # what a reader looks through; the rest is counted
_MAX_EXAMPLES = 3
_MAX_CHARS = 240  # of an example; a text may be 10,000 long
_NONE_TOLD = "Scores of the test rows, above, and of texts that fit no label, below"
_FITTED = "fitted on cross-fitted training rows"  # whatever rows set the thresholds
_ROWS = {
    "cross_fitted": "training rows by models that had not seen them",
    "rows": "calibration rows of their own",
}
_GOALS = {
    "catch_errors": ("escalate at least", "of the errors"),
    "precision": ("at least", "right where it answers alone"),
    "escalate_at_most": ("escalate at most", "of the texts"),
    "none_false_alarm": ("refuse at most", "of the texts that fit a label"),
    "none_recall": ("refuse at least", "of the texts that fit none"),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """A true label that is taken for another, with texts to look at."""

    true: str
    predicted: str
    count: str
    share: str
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Confusions:
    """The worst pairs; `n_more` are not shown."""

    pairs: tuple[Pair, ...]
    n_more: int
    known: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether a confidence means what it says."""

    tiles: tuple[Tile, ...]
    source: str
    reliability: Markup | None
    histogram: Markup | None


@dataclass(frozen=True, slots=True)
class Escalation:
    """What the thresholds promise, and what they keep where there are test rows."""

    goal: str
    source: str
    tiles: tuple[Tile, ...]
    curve: Markup | None


@dataclass(frozen=True, slots=True)
class NoneOfTheAbove:
    """How well the model tells texts that fit no label."""

    tiles: tuple[Tile, ...]
    histogram: Markup | None


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure of a table: its text, and the number to sort by."""

    text: str
    sort: str
    share: str = ""


def confusions(details: Details | None) -> Confusions:
    """The pairs of labels that cost the most test rows."""
    found = sorted(details.confusions if details else (), key=lambda pair: -pair.count)
    pairs = [
        Pair(
            true=pair.true,
            predicted=pair.predicted,
            count=count(pair.count),
            share=percent(pair.share_of_true, 0),
            examples=tuple(_cut(text) for text in pair.examples[:_MAX_EXAMPLES]),
        )
        for pair in found[:_MAX_PAIRS]
    ]
    return Confusions(tuple(pairs), len(found) - len(pairs), known=bool(details and details.labels))


def calibration(files: RunFiles) -> Calibration | None:
    """The calibration section, None where nothing was measured."""
    card, details = files.scorecard, files.details
    table = card.calibration if card else None
    known = details.reliability if details else ()
    bins = [found for found in known if all(math.isfinite(part) for part in found)]
    histogram = details.confidence_histogram if details else None
    if not (table or bins or histogram):
        return None
    brier = figure(table, "brier")
    return Calibration(
        tiles=(
            percent_tile(
                table,
                "ece",
                name="Calibration error (ECE)",
                note="mean gap between confidence and accuracy over 15 equally full bins",
            ),
            Tile(
                "Brier score",
                decimal(brier.value if brier else None),
                "squared error of the whole distribution; 0 is perfect, 2 the worst",
                decimal_interval(brier),
            ),
        ),
        source=_FITTED if table else "",
        reliability=reliability_chart(bins, _reliability_told(len(bins))) if bins else None,
        histogram=confidence_chart(histogram, "Test rows by confidence") if histogram else None,
    )


def escalation(files: RunFiles) -> Escalation | None:
    """The thresholds' section, None where no goal was named."""
    table = files.scorecard.router if files.scorecard else None
    derived = files.details.thresholds if files.details else None
    if not table and derived is None:
        return None
    return Escalation(
        goal=_goal_told(_goals(table, derived)),
        source=_source_told(derived) if derived else "",
        tiles=_escalation_tiles(table) if table else (),
        curve=_threshold_curve(derived) if derived and derived.curve else None,
    )


def _goals(table: dict[str, Any] | None, derived: ThresholdDetails | None) -> dict[str, float]:
    if derived is not None:
        return derived.goals
    target = figure(table, "recall_target")
    return {"catch_errors": target.value} if target else {}


def _goal_told(goals: Mapping[str, float]) -> str:
    words = {name: _GOALS.get(name, (name, "")) for name in goals}
    told = [f"{words[name][0]} {share_told(s)} {words[name][1]}" for name, s in goals.items()]
    return f"Goal: {'; '.join(told)}." if told else ""


def share_told(share: float) -> str:
    """0.95 -> "95 %", 0.975 -> "97.5 %"."""
    return percent(share, 0 if math.isclose(100 * share, round(100 * share)) else 1)


def _source_told(derived: ThresholdDetails) -> str:
    kind = "A guarantee" if derived.source == ROWS else "An estimate"
    told = f"{kind} at confidence {share_told(derived.confidence)}, counted on "
    told += f"{count(derived.n_rows)} {_ROWS.get(derived.source, 'rows')}"
    told += f" ({plural(derived.n_errors, 'error')})"
    if derived.n_out_of_scope:
        told += f" and {plural(derived.n_out_of_scope, 'text')} that fit no label"
    if derived.labelled_by in JUDGED:
        told += f", {JUDGED[derived.labelled_by]}, which are wrong where it erred"
    return f"{told}. Stale: {derived.stale}." if derived.stale else f"{told}."


def _threshold_curve(derived: ThresholdDetails) -> Markup:
    chosen = derived.chosen
    told = "Recall of errors and precision against the share of texts escalated"
    if chosen is not None:
        told += f"; in use: {percent(chosen.escalated)} escalated"
    return threshold_chart(derived.curve, chosen, told)


def _escalation_tiles(table: dict[str, Any]) -> tuple[Tile, ...]:
    return (
        percent_tile(
            table, "recall", name="Errors caught", note="wrong answers that were escalated"
        ),
        percent_tile(
            table, "positive_rate", name="Escalated", note="of all test rows: what it costs"
        ),
        percent_tile(
            table,
            "accept_precision",
            name="Right when accepted",
            note="among the rows answered alone",
        ),
        _errors_tile(table),
    )


def none_of_the_above(files: RunFiles) -> NoneOfTheAbove | None:
    """The section on texts that fit no label, None where none were given."""
    table = files.scorecard.none if files.scorecard else None
    histogram = files.details.none_histogram if files.details else None
    if not table and histogram is None:
        return None
    drawing = none_chart(histogram, _NONE_TOLD) if histogram else None
    return NoneOfTheAbove(_none_tiles(table) if table else (), drawing)


def rate_cell(value: float | None) -> Cell:
    """A share in a table, with a small bar; an unknown one sorts last."""
    known = number(value)
    if known is None:
        return Cell(percent(None), "")
    return Cell(percent(known, 0), f"{known:.6f}", f"{100 * min(1.0, max(0.0, known)):.1f}")


def weakest_first(rows: Sequence[LabelRow]) -> list[LabelRow]:
    """By F1, the labels without one at the end."""

    def key(row: LabelRow) -> tuple[float, str]:
        f1 = number(row.f1)
        return (math.inf if f1 is None else f1, row.label)

    return sorted(rows, key=key)


def _reliability_told(n_bins: int) -> str:
    return f"Accuracy against confidence in {n_bins} bins; on the diagonal they are equal"


def _errors_tile(table: dict[str, Any]) -> Tile:
    escalated, errors = figure(table, "n_positive"), figure(table, "n_errors")
    return Tile(
        "Rows escalated",
        count(escalated.value if escalated else None),
        f"escalated rows; the model made {count(errors.value if errors else None)} errors in all, "
        "wrong nones among them",
    )


def _none_tiles(table: dict[str, Any]) -> tuple[Tile, ...]:
    auroc = figure(table, "auroc")
    return (
        Tile(
            "AUROC",
            decimal(auroc.value if auroc else None),
            "chance that a text without a label scores above one with a label; 0.5 is a guess",
            decimal_interval(auroc),
        ),
        percent_tile(
            table,
            "fpr_at_95",
            name="False alarms at 95 %",
            note="texts with a label that are refused when 95 % of the others are caught",
        ),
    )


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _MAX_CHARS else flat[: _MAX_CHARS - 1].rstrip() + "…"
