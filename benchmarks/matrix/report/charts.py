"""The pictures of a task: bars, accuracy against a price, learning curves, shares of errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from benchmarks.matrix.questions import pareto_front
from benchmarks.matrix.results import CellResult
from benchmarks.matrix.summary import Measured, over_seeds
from red_ray.evaluation.report.charts import band_chart, line_chart
from red_ray.evaluation.report.svg import Axis, Plot, padded, write_number, write_percent

Box = tuple[float, float, float, float]

_HEIGHT = 340
_NUMBER = (8.0, 12.0)  # width of a digit and height of a line, in units of the drawing
_AROUND = ((8, 4), (8, -7), (-8, -7), (-8, 4), (8, 15), (-8, 15), (0, -10), (0, 20))


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar beside others, as the page's macro draws it.

    Attributes:
        name: of the column.
        note: its method.
        kind: `model` is drawn in colour.
        value, interval: as text.
        width: in % of the track.
        whisker: start and width of the interval in % of the track; None without one.
    """

    name: str
    note: str
    kind: str
    value: str
    interval: str
    width: str
    whisker: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Point:
    """A column in a plot: its number, name, price and worth."""

    number: int
    name: str
    price: Measured
    worth: Measured


def bar(words: tuple[str, str, str, str], found: Measured, most: float, *, in_colour: bool) -> Bar:
    """A bar; `words` are its name, note, value and interval; `most` is the end of the track."""
    low, high = found.interval or (found.value, found.value)
    start, end = (100 * min(1.0, max(0.0, value / most)) for value in (low, high))
    whisker = None if found.interval is None else (f"{start:.2f}", f"{max(0.2, end - start):.2f}")
    name, note, value, interval = words
    width = f"{100 * min(1.0, found.value / most):.2f}"
    return Bar(name, note, "model" if in_colour else "baseline", value, interval, width, whisker)


def pareto(points: Sequence[Point], axis: str, *, logarithmic: bool) -> Markup:
    """Accuracy against a price: each column by its number, the front joined.

    Args:
        points: columns.
        axis: what the price is, with its unit.
        logarithmic: whether a step of the axis is a factor of ten.
    """
    place = _logarithm if logarithmic else float
    x = _price_axis(points, axis, logarithmic=logarithmic)
    worths = [end for point in points for end in point.worth.interval or (point.worth.value,)]
    y = Axis("accuracy", *padded(worths, floor=0, ceil=1), write_percent)
    plot = Plot(x, y, height=_HEIGHT)
    front = pareto_front({one.name: (one.price.value, one.worth.value) for one in points})
    at = {
        one.name: (plot.across(place(one.price.value)), plot.up(one.worth.value)) for one in points
    }
    marks = [_whiskers(plot, one, place) for one in points]
    if len(front) > 1:
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at[name] for name in front))
        marks.append(Markup('<polyline class="front" points="{}"/>').format(corners))
    marks += [_dot(at[one.name], one, on_front=one.name in front) for one in points]
    marks += _numbers(points, at)
    told = f"Accuracy against {axis}; on the front: {', '.join(front)}"
    return plot.draw(marks, told)


def curves(column: str, cells: Sequence[CellResult]) -> list[tuple[str, Markup]]:
    """The learning curves of a column over its seeds, each with its caption; none without epochs.

    Every seed's curve is of its own length: an epoch is the mean of those that came so far.
    """
    found = []
    train, held = (_by_epoch(cells, name) for name in ("train_loss", "select_loss"))
    if len(held or train) > 1:
        found.append(_losses(column, train, held))
    right = _by_epoch(cells, "select_accuracy")
    if len(right) > 1:
        found.append(_rightness(column, right))
    return found


def _losses(
    column: str, train: Mapping[float, list[float]], held: Mapping[float, list[float]]
) -> tuple[str, Markup]:
    points = [(epoch, float(np.mean(values))) for epoch, values in (held or train).items()]
    dashed = [(epoch, float(np.mean(values))) for epoch, values in train.items()] if held else []
    every = [value for _, value in (*points, *dashed)]
    chart = line_chart(
        points,
        x=_epochs(points),
        y=Axis("loss", *padded(every, floor=0), write_number),
        description=f"Loss of {column} by epoch",
        reference=dashed if len(dashed) > 1 else (),
        reference_name="train",
    )
    told = "Loss on the rows held back" if held else "Loss on train"
    return f"{told}{'; dashed: on train' if dashed else ''}. Mean over the seeds.", chart


def _rightness(column: str, right: Mapping[float, list[float]]) -> tuple[str, Markup]:
    points = [(epoch, float(np.mean(values))) for epoch, values in right.items()]
    ends = []
    for (_, value), values in zip(points, right.values(), strict=True):
        low, high = over_seeds(values) or (value, value)
        ends.append((max(0.0, low), min(1.0, high)))
    y = Axis(
        "accuracy", *padded([e for both in ends for e in both], floor=0, ceil=1), write_percent
    )
    told = [f"epoch {epoch:g}: {100 * value:.1f} %" for epoch, value in points]
    plot = Plot(_epochs(points), y)
    chart = band_chart(points, ends, told, plot, f"Accuracy of {column} by epoch")
    return "Accuracy on the rows held back of train; the band is Student's interval.", chart


def _by_epoch(cells: Sequence[CellResult], name: str) -> dict[float, list[float]]:
    found: dict[float, list[float]] = {}
    for cell in cells:
        for entry in cell.history:
            if entry.get(name) is not None:
                found.setdefault(float(entry["epoch"]), []).append(float(entry[name]))
    return dict(sorted(found.items()))


def _epochs(points: Sequence[tuple[float, float]]) -> Axis:
    first, last = points[0][0], points[-1][0]
    return Axis("epoch", first - 0.1, last + 0.1, write_number, whole=True)


def _price_axis(points: Sequence[Point], title: str, *, logarithmic: bool) -> Axis:
    values = [
        end
        for point in points
        for end in (point.price.value, *(point.price.interval or ()))
        if math.isfinite(end)
    ]
    if not logarithmic:
        return Axis(title, *padded(values, floor=0), write_number)
    low = math.floor(min(map(_logarithm, values)) + 1e-9)
    high = math.ceil(max(map(_logarithm, values)) - 1e-9)
    return Axis(title, low, max(high, low + 1), lambda v: write_number(10.0**v), whole=True)


def _logarithm(value: float) -> float:
    return math.log10(max(value, 1e-3))  # a clock's least step, where an end of an interval is 0


def _whiskers(plot: Plot, one: Point, place: Callable[[float], float]) -> Markup:
    x, y = plot.across(place(one.price.value)), plot.up(one.worth.value)
    line = Markup('<line class="whisker" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
    marks = []
    if one.worth.interval is not None:
        low, high = (plot.up(end) for end in one.worth.interval)
        marks.append(line.format(x, x, low, high))
    if one.price.interval is not None:
        low, high = (plot.across(min(place(end), plot.x.high)) for end in one.price.interval)
        marks.append(line.format(max(low, plot.across(plot.x.low)), high, y, y))
    return Markup().join(marks)


def _dot(at: tuple[float, float], one: Point, *, on_front: bool) -> Markup:
    told = (
        f"{one.number} {one.name}: accuracy {100 * one.worth.value:.1f} %, {one.price.value:,.4g}"
    )
    return Markup(
        '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>'
    ).format("dot other" if on_front else "dot", *at, 5 if on_front else 4, told)


def _numbers(points: Sequence[Point], at: Mapping[str, tuple[float, float]]) -> list[Markup]:
    """Each column's number beside its dot, where no other number or dot is, if there is room."""
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in at.values()]
    marks = []
    for one in points:
        x, y = at[one.name]
        width = _NUMBER[0] * len(str(one.number))
        boxes = [_box(x + dx, y + dy, width, dx) for dx, dy in _AROUND]
        best = min(range(len(boxes)), key=lambda i: sum(_meet(boxes[i], b) for b in taken))
        dx, dy = _AROUND[best]
        taken.append(boxes[best])
        anchor = "start" if dx > 0 else "end" if dx < 0 else "middle"
        marks.append(
            Markup(
                '<text class="number-of" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>'
            ).format(x + dx, y + dy, anchor, one.number)
        )
    return marks


def _box(x: float, y: float, width: float, side: float) -> Box:
    left = x if side > 0 else x - width if side < 0 else x - width / 2
    return left, y - _NUMBER[1], left + width, y


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
