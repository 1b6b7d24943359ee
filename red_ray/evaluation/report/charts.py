"""The charts of a report: lines, reliability, histograms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from red_ray.core.metrics import wilson_interval
from red_ray.evaluation.report.figures import percent
from red_ray.evaluation.report.source import ConfidenceHistogram, NoneHistogram, ThresholdPoint
from red_ray.evaluation.report.svg import Axis, Plot, padded, write_number, write_percent

Points = Sequence[tuple[float, float]]


def line_chart(
    points: Points,
    *,
    x: Axis,
    y: Axis,
    description: str,
    reference: Points = (),
    reference_name: str = "",
) -> Markup:
    """One line with a dot at each measurement, and perhaps a dashed line to hold it against.

    Args:
        points: (x, y) of each measurement, x ascending.
        x: horizontal axis.
        y: vertical axis.
        description: read out in place of the drawing.
        reference: the dashed line's points.
        reference_name: written at its middle.
    """
    plot = Plot(x, y)
    marks = []
    if reference:
        marks.append(_polyline(plot, reference, "reference"))
        marks.append(_note(plot, reference, reference_name))
    marks.append(_polyline(plot, points, "line"))
    marks += [_dot(plot, point, f"{x.write(point[0])}: {_exact(y, point[1])}") for point in points]
    return plot.draw(marks, description)


def band_chart(
    points: Points,
    ends: Sequence[tuple[float, float]],
    told: Sequence[str],
    plot: Plot,
    description: str,
) -> Markup:
    """One line with a dot at each measurement, over the band of its intervals.

    Args:
        points: (x, y) of each measurement, x ascending.
        ends: the interval of each.
        told: what a reader is told at each.
        plot: the axes.
        description: read out in place of the drawing.
    """
    upper = [(x, high) for (x, _), (_, high) in zip(points, ends, strict=True)]
    lower = [(x, low) for (x, _), (low, _) in zip(points, ends, strict=True)]
    marks = [_area(plot, [*upper, *reversed(lower)]), _polyline(plot, points, "line")]
    marks += [_dot(plot, point, text) for point, text in zip(points, told, strict=True)]
    return plot.draw(marks, description)


def threshold_chart(
    curve: Sequence[ThresholdPoint], chosen: ThresholdPoint | None, description: str
) -> Markup:
    """Recall of errors and precision against the share escalated, each over its band.

    Args:
        curve: from nothing escalated to everything.
        chosen: the point in use; a line stands there.
        description: read out in place of the drawing.
    """
    x = Axis("share of the texts escalated", 0, 1, write_percent)
    plot = Plot(x, Axis("share", 0, 1, write_percent), height=340)
    catch = [(p.escalated, p.catch, p.catch_band) for p in curve if p.catch is not None]
    precision = [
        (p.escalated, p.precision, p.precision_band) for p in curve if p.precision is not None
    ]
    marks = []
    for found, other in ((precision, " other"), (catch, "")):
        upper = [(at, high) for at, _, (_, high) in found]
        lower = [(at, low) for at, _, (low, _) in found]
        marks.append(_area(plot, [*upper, *reversed(lower)], f"band{other}"))
        marks.append(_polyline(plot, [(at, value) for at, value, _ in found], f"line{other}"))
    return plot.draw([*marks, *_chosen(plot, chosen)], description)


def reliability_chart(bins: Sequence[tuple[float, float, int]], description: str) -> Markup:
    """Accuracy against confidence, a dot for each bin with the 95 % interval of its accuracy.

    Args:
        bins: (mean confidence, accuracy, rows) of each bin.
        description: read out in place of the drawing.
    """
    x = Axis("confidence (mean of the bin)", 0, 1, write_percent)
    plot = Plot(x, Axis("accuracy", 0, 1, write_percent), height=340)
    diagonal = ((0.0, 0.0), (1.0, 1.0))
    marks = [_polyline(plot, diagonal, "reference"), _note(plot, diagonal, "perfect")]
    for confidence, accuracy, n_rows in bins:
        marks.append(_whisker(plot, confidence, wilson_interval(round(accuracy * n_rows), n_rows)))
        told = f"confidence {percent(confidence)}, accuracy {percent(accuracy)}, {n_rows} rows"
        marks.append(_dot(plot, (confidence, accuracy), told))
    return plot.draw(marks, description)


def confidence_chart(found: ConfidenceHistogram, description: str) -> Markup:
    """Rows by confidence, the wrong ones at the foot of each bar."""
    totals = [right + wrong for right, wrong in zip(found.correct, found.wrong, strict=True)]
    y = Axis("test rows", 0, max(1.0, 1.05 * max(totals)), write_number, whole=True)
    plot = Plot(_confidence_axis(found.edges, "confidence"), y, height=340)
    marks = []
    bars = zip(pairwise(found.edges), found.wrong, totals, strict=True)
    for ends, wrong, total in bars:
        told = f"{_span(ends)}: {total - wrong} right, {wrong} wrong"
        marks.append(_block(plot, ends, (0, wrong), shade="wrong", told=told))
        marks.append(_block(plot, ends, (wrong, total), shade="right", told=told))
    return plot.draw(marks, description)


def none_chart(found: NoneHistogram, description: str) -> Markup:
    """Two groups back to back, each in shares of itself: its sizes may differ widely."""
    inside, outside = _shares(found.in_scope), _shares(found.out_of_scope)
    top, bottom = max(inside), max(outside)
    y = Axis(
        "share of the group",
        -1.08 * (bottom or 1),
        1.08 * (top or 1),
        lambda v: write_percent(abs(v)),
    )
    plot = Plot(_confidence_axis(found.edges, "score of “no label fits”"), y, height=340)
    marks = []
    for ends, above, below in zip(pairwise(found.edges), inside, outside, strict=True):
        told = f"{_span(ends)}: {percent(above)} of the test rows, {percent(below)} of the others"
        marks.append(_block(plot, ends, (0, above), shade="right", told=told))
        marks.append(_block(plot, ends, (-below, 0), shade="wrong", told=told))
    return plot.draw(marks, description)


def _shares(counts: Sequence[int]) -> list[float]:
    total = max(1, sum(counts))
    return [n / total for n in counts]


def _confidence_axis(edges: Sequence[float], title: str) -> Axis:
    if edges[0] >= 0 and edges[-1] <= 1:
        return Axis(title, 0, 1, write_percent)
    return Axis(title, *padded(edges), write_number)


def _span(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.2f} to {ends[1]:.2f}"


def _exact(axis: Axis, value: float) -> str:
    return percent(value) if axis.write is write_percent else f"{value:,.4g}"


def _polyline(plot: Plot, points: Points, kind: str) -> Markup:
    path = " ".join(f"{plot.across(x):.1f},{plot.up(y):.1f}" for x, y in points)
    return Markup('<polyline class="{}" points="{}"/>').format(kind, path)


def _chosen(plot: Plot, chosen: ThresholdPoint | None) -> list[Markup]:
    if chosen is None:
        return []
    at, in_use = chosen.escalated, f"in use: {percent(chosen.escalated)} escalated"
    # Beside the line, on the side where there is room.
    space, anchor = (8, "start") if at < 0.5 else (-8, "end")
    marks = [
        _polyline(plot, ((at, 0.0), (at, 1.0)), "chosen"),
        Markup('<text class="note" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
            plot.across(at) + space, plot.up(0.04), anchor, in_use
        ),
    ]
    for value, what, kind in (
        (chosen.precision, "right where answered alone", "dot other"),
        (chosen.catch, "of the errors escalated", "dot"),
    ):
        if value is not None:
            marks.append(_dot(plot, (at, value), f"{in_use}, {percent(value)} {what}", kind))
    return marks


def _area(plot: Plot, points: Points, kind: str = "band") -> Markup:
    corners = " ".join(f"{plot.across(x):.1f},{plot.up(y):.1f}" for x, y in points)
    return Markup('<polygon class="{}" points="{}"/>').format(kind, corners)


def _note(plot: Plot, points: Points, text: str) -> Markup:
    """Above the first third of a rising line, where the dots of a good run are not."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    return Markup('<text class="note" x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>').format(
        plot.across(x0 + 0.3 * (x1 - x0)) - 8, plot.up(y0 + 0.3 * (y1 - y0)) - 4, text
    )


def _dot(plot: Plot, point: tuple[float, float], told: str, kind: str = "dot") -> Markup:
    return Markup(
        '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>'
    ).format(kind, plot.across(point[0]), plot.up(point[1]), told)


def _whisker(plot: Plot, x: float, ends: tuple[float, float]) -> Markup:
    return Markup(
        '<line class="whisker" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>'
    ).format(plot.across(x), plot.up(ends[0]), plot.up(ends[1]))


def _block(
    plot: Plot, x: tuple[float, float], y: tuple[float, float], *, shade: str, told: str
) -> Markup:
    left, right = plot.across(x[0]) + 0.75, plot.across(x[1]) - 0.75
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
        "<title>{}</title></rect>"
    ).format(
        shade, left, plot.up(y[1]), max(0.5, right - left), plot.up(y[0]) - plot.up(y[1]), told
    )
