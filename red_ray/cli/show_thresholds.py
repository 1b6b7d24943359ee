"""Thresholds on a terminal: what is promised, and what others would do."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table

from red_ray.calibration import JUDGED, ROWS, WORDS, chosen_point, stale_line
from red_ray.cli.console import Output
from red_ray.core.thresholds import (
    CATCH,
    ESCALATE,
    FALSE_ALARM,
    NONE_RECALL,
    PRECISION,
    CurvePoint,
    Promise,
)
from red_ray.model import RedModel

SHARES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75)
"""Shares of texts escalated that the table shows, as near as the rows have them."""

COSTLY = 0.5
"""Share of the rows escalated from which on a line says that the goal costs much."""

GOALS = {
    CATCH: "at least {:.1%} of the errors are escalated",
    PRECISION: "at least {:.1%} of what the model answers alone is right",
    ESCALATE: "at most {:.1%} of the texts are escalated",
    FALSE_ALARM: "at most {:.1%} of the texts that fit a label are said to fit none",
    NONE_RECALL: "at least {:.1%} of the texts that fit none are said to",
}


def show_thresholds(output: Output, run: str, model: RedModel) -> None:
    """Print the thresholds of a model and the curve that they stand on."""
    promise = model.promise
    if promise is None:
        output.result({"run": run, "bundle": model.bundle_id, "thresholds": None})
        if not output.as_json:
            output.out.print(_without(model), soft_wrap=True, highlight=False)
        return
    facts = asdict(promise) | {"score": "confidence" if model.risk is None else "learned"}
    output.result({"run": run, "bundle": model.bundle_id, "thresholds": facts})
    if output.as_json:
        return
    rows = f"{promise.n_rows:,} rows, {promise.n_errors:,} of them errors"
    if promise.n_out_of_scope:
        rows += f", and {promise.n_out_of_scope:,} that fit no label"
    kind = "calibration" if promise.source == ROWS else "cross-fitted training"
    by = f" {JUDGED[promise.labelled_by]}" if promise.labelled_by in JUDGED else ""
    print_ = output.out.print
    print_(
        f"[bold]{WORDS[promise.source]}[/] from {rows} ({kind} rows{by}), each with confidence "
        f"{promise.confidence:g}:",
        highlight=False,
        soft_wrap=True,
    )
    if promise.stale:
        line = stale_line(promise.source, promise.stale, run)
        print_(line, style="yellow", markup=False, soft_wrap=True, highlight=False)
    for name, share in promise.goals.items():
        print_(f"  {GOALS[name].format(share)}", highlight=False)
    escalate = promise.thresholds.escalate
    says = "nothing" if escalate is None else f"answers with a risk of {escalate:.4g} or more"
    score = "one minus confidence" if model.risk is None else "a learned score"
    print_(f"escalated: {says} (risk: {score})", highlight=False)
    print_(f"none of the labels: from a probability of {promise.thresholds.none:.4g}\n")
    print_(_table(promise.curve, escalate))
    line = _costly(promise)
    if line:
        print_(line, style="yellow", soft_wrap=True, highlight=False)
    print_(f"\nbands of {promise.confidence:.0%}, each point by itself", style="dim")
    print_(
        f"bundle {model.bundle_id[:16]}…   report {run}/report.html",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _costly(promise: Promise) -> str:
    """Where keeping the goal leaves the model little to answer: a line that says so, else empty."""
    point = chosen_point(promise)
    if ESCALATE in promise.goals or point is None or point.escalated < COSTLY:
        return ""
    told = f"\nkeeping it escalates {point.escalated:.0%} of these rows"
    if promise.labelled_by == "user":
        return f"{told}: a weaker goal of the curve, or more labelled rows, leave more to the model"
    return (
        f"{told}, most of them chosen as the hardest: --calibration rows, labelled by you and "
        "drawn as your texts come, tell what it escalates of usual ones"
    )


def _without(model: RedModel) -> str:
    goal = model.config.router.goal
    if goal is None:
        return "no goal was stated, so nothing is escalated; state one: --goal catch_errors=0.95"
    stated = ", ".join(f"{name} {share:g}" for name, share in goal.shares.items())
    return (
        f"the goal ({stated}) could not be promised, so nothing is escalated; give more "
        "--calibration rows, or another --goal"
    )


def _table(curve: tuple[CurvePoint, ...], chosen: float | None) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for name in ("risk from", "escalated %", "errors caught %", "right alone %"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in _shown(curve, chosen):
        mark = "bold" if point.threshold == chosen else ""
        table.add_row(
            f"{point.threshold:.4g}",
            _share(point.escalated, point.escalated_band),
            _share(point.catch, point.catch_band),
            _share(point.precision, point.precision_band),
            style=mark,
        )
    return table


def _shown(curve: tuple[CurvePoint, ...], chosen: float | None) -> list[CurvePoint]:
    near = [min(curve, key=lambda point: abs(point.escalated - share)) for share in SHARES]
    near += [point for point in curve if point.threshold == chosen]
    return sorted(dict.fromkeys(near), key=lambda point: point.escalated)


def _share(value: float | None, band: tuple[float, float]) -> str:
    if value is None:
        return "–"
    low, high = 100 * band[0], 100 * band[1]
    return f"{100 * value:.1f} [dim]({low:.1f}–{high:.1f})[/]"
