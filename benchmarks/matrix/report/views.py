"""What the page shows of each task: bars, plots, curves, overlaps and confusions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from benchmarks.matrix.cautions import CONSTANT
from benchmarks.matrix.confusion import confusion, drawing
from benchmarks.matrix.intervals import Estimate
from benchmarks.matrix.methods.base import UNREADABLE
from benchmarks.matrix.overview import Overview
from benchmarks.matrix.report import tables
from benchmarks.matrix.report.charts import Bar, Point, bar, curves, pareto
from benchmarks.matrix.report.words import (
    figure,
    hole,
    interval,
    method_told,
    points,
    ranking_told,
)
from benchmarks.matrix.summary import Measured
from red_ray.evaluation.audit.tables import Grid
from red_ray.evaluation.report.figures import percent

MOST_OVERLAPS = 12
DECADE = 8.0
"""Times between the cheapest and the dearest column, from which a plot counts in factors of 10."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A column without figures where a picture would show it, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture with its title and caption."""

    title: str
    chart: Markup
    caption: str


@dataclass(frozen=True, slots=True)
class Stack:
    """Shares of the rows, as segments: class, what, and width in %."""

    name: str
    told: str
    segments: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task's section.

    Attributes:
        anchor: its id in the page.
        name: of the task.
        facts: rows, labels and such, one line.
        ranking: what may be said of an order.
        accuracy, latency: bars.
        holes: columns that no picture shows.
        plots: accuracy against prices.
        legend: number and name of each column in the plots.
        table: all figures.
        overlaps: of the most accurate column with the others.
        overlap_title: says which.
        pairs: all pairs.
        learning: curves.
        confusions: one a column, over its seeds.
    """

    anchor: str
    name: str
    facts: str
    ranking: str
    accuracy: tuple[Bar, ...]
    latency: tuple[Bar, ...]
    holes: tuple[Hole, ...]
    plots: tuple[Drawing, ...]
    legend: tuple[tuple[int, str], ...]
    table: Grid
    overlaps: tuple[Stack, ...]
    overlap_title: str
    pairs: Grid
    learning: tuple[Drawing, ...]
    confusions: tuple[Drawing, ...]


def task_view(overview: Overview, task: str, number: int) -> TaskView:
    """All that the section of a task shows."""
    names = [column.name for column in overview.matrix.config.columns]
    known = [name for name in names if (task, name) in overview.summaries]
    best_first = sorted(known, key=lambda name: -_figure(overview, task, name, "accuracy").value)
    config = overview.matrix.config
    paying = [name for name in known if config.column(name).method not in CONSTANT]
    plotted = [_point(overview, task, name, at) for at, name in enumerate(paying, 1)]
    overlaps, title = _overlaps(overview, task)
    return TaskView(
        anchor=f"task-{number}",
        name=task,
        facts=_facts(overview, task),
        ranking=ranking_told(overview, task),
        accuracy=tuple(_bars(overview, task, best_first, "accuracy", 1.0)),
        latency=tuple(_latency(overview, task, known)),
        holes=tuple(Hole(name, hole(overview, task, name)) for name in names if name not in known),
        plots=tuple(_plots(overview, task, plotted)) if plotted else (),
        legend=tuple((one.number, one.name) for one in plotted),
        table=tables.of_task(overview, task),
        overlaps=overlaps,
        overlap_title=title,
        pairs=tables.pairs(overview, task),
        learning=tuple(_learning(overview, task, known)),
        confusions=tuple(_confusions(overview, task, known)),
    )


def _figure(overview: Overview, task: str, column: str, name: str) -> Measured:
    return overview.summaries[task, column].figures[name]


def _facts(overview: Overview, task: str) -> str:
    known = [one for (at, _), one in overview.held.items() if at == task]
    if not known:
        return "No cell has figures."
    figures = known[0].cells[0].figures
    told = f"{figures['n']:,} report rows, {len(figures['by_label'])} labels"
    told += f"; most frequent label of train: {percent(figures['majority']['share'])} of the rows"
    if figures["binary"] is not None:
        told += f"; sought: {figures['binary']['positive']!r}"
    told += f"; train {figures['n_train']:,} and {figures['n_select']:,} rows held back of it"
    told += f"; {figures['n_leaks']:,} report rows left out, as they stand in train"
    return f"{told}."


def _bars(overview: Overview, task: str, names: list[str], name: str, most: float) -> list[Bar]:
    bars = []
    for column in names:
        found = _figure(overview, task, column, name)
        unit = "\u00a0ms" if name.endswith("_ms") else ""
        words = (
            column,
            method_told(overview, column),
            figure(name, found) + unit,
            interval(name, found) or "no interval",
        )
        is_ours = overview.matrix.config.column(column).method == "red_ray"
        bars.append(bar(words, found, most, in_colour=is_ours))
    return bars


def _latency(overview: Overview, task: str, known: list[str]) -> list[Bar]:
    """Of the median, the fastest first; a track ends at the slowest mean."""
    if not known:
        return []
    values = {name: _figure(overview, task, name, "latency_p50_ms").value for name in known}
    fastest = sorted(known, key=lambda name: values[name])
    most = 1.15 * max(values.values()) or 1.0
    return _bars(overview, task, fastest, "latency_p50_ms", most)


def _point(overview: Overview, task: str, column: str, number: int) -> Point:
    found = overview.summaries[task, column].figures
    return Point(number, column, found["latency_p50_ms"], found["accuracy"])


def _plots(overview: Overview, task: str, plotted: list[Point]) -> list[Drawing]:
    memory = [
        Point(one.number, one.name, _figure(overview, task, one.name, "peak_mb"), one.worth)
        for one in plotted
    ]
    caption = "Orange: the front, by the means: nothing is both cheaper and more accurate. "
    caption += "Lines are 95 % intervals. Majority and prior are left out."
    return [
        Drawing(f"Accuracy against {what}", _pareto(found, axis), caption)
        for what, axis, found in (
            ("latency", "median latency of one text, ms", plotted),
            ("memory", "peak memory, MB", memory),
        )
    ]


def _pareto(found: list[Point], axis: str) -> Markup:
    prices = [max(one.price.value, 1e-3) for one in found]
    logarithmic = max(prices) / min(prices) > DECADE
    told = f"{axis} (steps are factors of 10)" if logarithmic else axis
    return pareto(found, told, logarithmic=logarithmic)


def _overlaps(overview: Overview, task: str) -> tuple[tuple[Stack, ...], str]:
    compared = overview.compared[task]
    best = next(iter(compared.accuracy), None)
    if best is None or not compared.pairs:
        return (), ""
    found = [compared.pair(best, other) for other in compared.accuracy if other != best]
    stacks = [
        Stack(
            name=one.b,
            told=points(one.difference),
            segments=tuple(
                (
                    kind,
                    f"{what}: {percent(part.value)} ({interval('accuracy', part)})",
                    _width(part),
                )
                for kind, what, part in (
                    ("hue-4", "both wrong", one.overlap.both_wrong),
                    ("hue-2", "only this one wrong", one.overlap.only_b_wrong),
                    ("hue-1", f"only {best} wrong", one.overlap.only_a_wrong),
                )
            ),
        )
        for one in found
        if one is not None
    ]
    more = len(stacks) - MOST_OVERLAPS
    title = f"Errors of {best}, the most accurate by its mean, and of the others"
    return tuple(stacks[:MOST_OVERLAPS]), title + (f" ({more} more below)" if more > 0 else "")


def _width(part: Estimate) -> str:
    return f"{100 * part.value:.2f}"


def _learning(overview: Overview, task: str, known: list[str]) -> list[Drawing]:
    return [
        Drawing(name, chart, caption)
        for name in known
        for caption, chart in curves(name, overview.held[task, name].cells)
    ]


def _confusions(overview: Overview, task: str, known: list[str]) -> list[Drawing]:
    drawings = []
    for name in known:
        column = overview.held[task, name]
        labels = tuple(column.cells[0].figures["by_label"])
        at = {label: index for index, label in enumerate(labels)} | {"": UNREADABLE}
        true = np.array([at[s] for one in column.predictions for s in one.true], np.int64)
        said = np.array([at[s] for one in column.predictions for s in one.answered], np.int64)
        found = confusion(true, said, labels)
        seeds = len(column.cells)
        caption = f"Answers of {seeds} seed{'' if seeds == 1 else 's'} together; colour is the "
        caption += "share of the true label's rows."
        drawings.append(Drawing(name, drawing(found, f"Confusion of {name} on {task}"), caption))
    return drawings
