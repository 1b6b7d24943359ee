"""From a figure's interval and the limits declared for it to an outcome."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from red_ray.config import LESS_IS_BETTER, AuditConfig, Criterion
from red_ray.core.metrics import Interval, wilson_interval
from red_ray.evaluation.audit.figures import Figure, Figures

MOST_ROWS = 1_000_000
"""A suite beyond this size is no advice."""

ROWS_OF_P95 = 72
"""Fewer rows put no upper end to the 95 % interval of a 95 % quantile."""


class AuditOutcome(StrEnum):
    """What an audit concludes, the worst first."""

    ABORT = "ABORT"
    INCONCLUSIVE = "INCONCLUSIVE"
    ITERATE = "ITERATE"
    GO = "GO"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one criterion came to.

    `note` says why it is inconclusive and what would help; empty else.
    """

    name: str
    figure: Figure
    limits: Criterion
    outcome: AuditOutcome
    note: str = ""


def find(held: Figures, config: AuditConfig) -> tuple[Finding, ...]:
    """Hold the figures of the held part against the criteria."""
    asked = config.criteria
    limits = {
        "accuracy": asked.accuracy,
        "accuracy_offered": asked.accuracy_offered,
        "success_rate": asked.success_rate,
        "unreadable_rate": asked.unreadable_rate,
        "p95_latency_s": asked.p95_latency_s,
        "usd_per_correct": asked.usd_per_correct,
    }
    return tuple(
        _finding(name, held.rates[name], one, config.held_share)
        for name, one in limits.items()
        if one is not None
    )


def worst(outcomes: Iterable[AuditOutcome]) -> AuditOutcome:
    """The worst of some outcomes."""
    order = list(AuditOutcome)
    return min(outcomes, key=order.index)


def outcome_of(interval: Interval, limits: Criterion, *, less_is_better: bool) -> AuditOutcome:
    """GO, ABORT or ITERATE where the whole interval says so, else INCONCLUSIVE."""
    low, high, go, abort = *interval, limits.go, limits.abort
    if less_is_better:
        low, high, go, abort = -high, -low, -go, -abort
    if low >= go:
        return AuditOutcome.GO
    if high < abort:
        return AuditOutcome.ABORT
    inside = low >= abort and high < go
    return AuditOutcome.ITERATE if inside else AuditOutcome.INCONCLUSIVE


def rows_needed(share: float, limits: Criterion, n: int, *, less_is_better: bool) -> int | None:
    """About how many rows it takes until the Wilson interval around `share` tells.

    Args:
        share: as observed.
        limits: what the interval must be clear of.
        n: rows there are: too few.
        less_is_better: whether staying below the limits is good.

    Returns:
        More than `n`, or None where more than `MOST_ROWS` would not tell either.
    """
    while n < MOST_ROWS:
        n = math.ceil((n + 1) * 1.02)
        interval = wilson_interval(round(share * n), n)
        outcome = outcome_of(interval, limits, less_is_better=less_is_better)
        if outcome is not AuditOutcome.INCONCLUSIVE:
            return n
    return None


def _finding(name: str, figure: Figure, limits: Criterion, held_share: float) -> Finding:
    if figure.value is None or figure.interval is None:
        return Finding(name, figure, limits, AuditOutcome.INCONCLUSIVE, _missing(name, figure))
    less = name in LESS_IS_BETTER
    outcome = outcome_of(figure.interval, limits, less_is_better=less)
    inconclusive = outcome is AuditOutcome.INCONCLUSIVE
    note = _advice(figure, limits, held_share, less_is_better=less) if inconclusive else ""
    return Finding(name, figure, limits, outcome, note)


def _missing(name: str, figure: Figure) -> str:
    if name == "usd_per_correct" and figure.n:
        return "the price is unknown, or no answer was right; see judge.prices"
    return "no held question counts for it; give more rows, or raise audit.size or the budget"


def _advice(figure: Figure, limits: Criterion, held_share: float, *, less_is_better: bool) -> str:
    needed = (
        rows_needed(figure.value, limits, figure.n, less_is_better=less_is_better)
        if figure.is_share and figure.value is not None
        else _rows_by_width(figure, limits)
    )
    few = f"{figure.n:,} held questions do not tell"
    if needed is None:
        return f"{few}, nor would any bearable number, so near is it to a limit"
    n_rows = math.ceil(needed / held_share)
    return f"{few}; about {needed:,} would: {n_rows:,} labelled rows, and audit.size no less"


def _rows_by_width(figure: Figure, limits: Criterion) -> int | None:
    """As `rows_needed` for a figure that is no share: a width shrinks with the root of the rows."""
    if figure.value is None or figure.interval is None:
        return None
    low, high = figure.interval
    if math.isinf(high):
        return ROWS_OF_P95
    off = min(abs(figure.value - limits.go), abs(figure.value - limits.abort))
    widest = max(figure.value - low, high - figure.value)
    if off * math.sqrt(MOST_ROWS) < widest * math.sqrt(figure.n):
        return None
    return max(figure.n + 1, math.ceil(figure.n * (widest / off) ** 2))
