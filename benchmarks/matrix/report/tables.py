"""The tables of a matrix, as words: every one names every hole with its reason in the cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.matrix.cautions import Side
from benchmarks.matrix.intervals import p_told
from benchmarks.matrix.overview import Overview
from benchmarks.matrix.report.words import (
    METHODS,
    NAMES,
    accuracy_cell,
    against_told,
    both,
    hole,
    method_told,
    parameters,
    part_told,
    place_told,
    points,
    table_notes,
)
from benchmarks.matrix.summary import FIGURES
from red_ray.evaluation.audit.tables import Grid
from red_ray.evaluation.report.figures import DASH, percent

TAKES = (("latency_p50_ms", "latency, ms"), ("fit_s", "training"), ("peak_mb", "memory, MB"))
"""What a column takes beside its accuracy."""

BY_METHOD = ("accuracy", "macro_f1", "mcc", "latency_p50_ms", "fit_s", "peak_mb")


def comparison(overview: Overview) -> Grid:
    """Accuracy of every column on every task."""
    tasks = tuple(overview.matrix.config.tasks)
    rows = tuple(
        (
            column.name,
            method_told(overview, column.name),
            *(accuracy_cell(overview, task, column.name) for task in tasks),
        )
        for column in overview.matrix.config.columns
    )
    return Grid("Accuracy, all tasks", ("column", "method", *tasks), rows)


def against(overview: Overview) -> Grid:
    """Each column on each task beside the one that it is held against, with what it takes."""
    named = overview.matrix.config.against
    rows = tuple(
        (
            task,
            column.name,
            accuracy_cell(overview, task, column.name),
            against_told(overview, task, column.name),
            *(measure(overview, task, column.name, name) for name, _ in TAKES),
        )
        for task in overview.matrix.config.tasks
        for column in overview.matrix.config.columns
        if named is not None
    )
    header = ("task", "column", "accuracy", f"less {named}", *(what for _, what in TAKES))
    return Grid(f"Held against {named}", header, rows, tuple(table_notes(overview)))


def measure(
    overview: Overview, task: str, column: str, name: str, told: Callable[..., str] = both
) -> str:
    """A figure of a column on a task, or a dash."""
    known = overview.summaries.get((task, column))
    return told(name, known.figures.get(name)) if known else DASH


def of_task(overview: Overview, task: str) -> Grid:
    """All figures of a task, the most accurate column first, holes last."""
    known = [name for at, name in overview.summaries if at == task]
    have = {name for column in known for name in overview.summaries[task, column].figures}
    figures = [name for name in FIGURES if name in have]
    order = sorted(known, key=lambda name: -_accuracy(overview, task, name))
    lacking = [c.name for c in overview.matrix.config.columns if c.name not in known]
    header = ("column", "method", "place", *(NAMES[name] for name in figures), "trained parameters")
    rows = [_task_row(overview, task, name, figures) for name in order]
    for name in lacking:
        told = hole(overview, task, name)
        blank = (DASH,) * (len(figures) + 1)
        rows.append((name, method_told(overview, name), told, *blank))
    return Grid(task, header, tuple(rows), tuple(_notes(overview, task)))


def by_method(overview: Overview) -> Iterator[Grid]:
    """One table a method: its columns on every task."""
    methods = dict.fromkeys(column.method for column in overview.matrix.config.columns)
    for method in methods:
        rows = []
        for column in overview.matrix.config.columns:
            if column.method != method:
                continue
            rows += [
                _method_row(overview, task, column.name) for task in overview.matrix.config.tasks
            ]
        header = ("column", "task", *(NAMES[name] for name in BY_METHOD), "trained parameters")
        title = f"{method}: {METHODS[method]}"
        yield Grid(title, header, tuple(rows))


def pairs(overview: Overview, task: str) -> Grid:
    """Every two columns: difference, whether told apart, and whose errors they are."""
    rows = tuple(
        (
            f"{one.a} − {one.b}",
            points(one.difference),
            _p(one.p_corrected),
            "yes" if one.told_apart else "no",
            both("accuracy", one.overlap.both_wrong),
            both("accuracy", one.overlap.only_a_wrong),
            both("accuracy", one.overlap.only_b_wrong),
            both("accuracy", one.overlap.both_right),
        )
        for one in overview.compared[task].pairs
    )
    header = (
        "first − second",
        "difference of accuracy",
        "p, corrected",
        "told apart",
        "both wrong",
        "only first wrong",
        "only second wrong",
        "both right",
    )
    return Grid(f"Pairs on {task}", header, rows)


def changes(overview: Overview) -> Grid:
    """Columns before and after, against their base."""
    rows = tuple(
        (
            f"{one.column} from {one.base}",
            one.task,
            points(one.pair.difference),
            _p(one.pair.p_corrected),
            _side(one.before),
            _side(one.after),
        )
        for one in overview.before_after
    )
    missing = tuple(_no_change(overview))
    header = ("column from base", "task", "gain", "p, corrected", "before", "after")
    return Grid("Before and after", header, (*rows, *missing))


def holes(overview: Overview) -> Grid:
    """Every cell without figures."""
    rows = tuple(
        (cell.column, cell.task, str(cell.seed), why) for cell, why in overview.matrix.holes
    )
    return Grid("Holes", ("column", "task", "seed", "why"), rows)


def cautions(overview: Overview) -> Grid:
    """Every warning."""
    rows = tuple((one.kind.replace("_", " "), one.sentence) for one in overview.cautions)
    return Grid("Cautions", ("kind", "what"), rows)


def _p(p: float) -> str:
    """As a column of p-values has it: < 0.001, 0.026."""
    return p_told(p).removeprefix("p ").removeprefix("= ")


def _accuracy(overview: Overview, task: str, column: str) -> float:
    return overview.summaries[task, column].figures["accuracy"].value


def _task_row(overview: Overview, task: str, column: str, figures: list[str]) -> tuple[str, ...]:
    found = overview.summaries[task, column]
    cells = [both(name, found.figures.get(name)) for name in figures]
    cells[0] += part_told(overview, task, column)
    return (
        column,
        method_told(overview, column),
        place_told(overview, task, column),
        *cells,
        parameters(found),
    )


def _method_row(overview: Overview, task: str, column: str) -> tuple[str, ...]:
    found = overview.summaries.get((task, column))
    if found is None:
        told = hole(overview, task, column)
        return (column, task, told, *((DASH,) * len(BY_METHOD)))
    cells = [both(one, found.figures.get(one)) for one in BY_METHOD]
    cells[0] += part_told(overview, task, column)
    return (column, task, *cells, parameters(found))


def _notes(overview: Overview, task: str) -> Iterator[str]:
    for (at, column), found in overview.summaries.items():
        if at == task:
            yield from (f"{column}: {note}" for note in found.notes)


def _no_change(overview: Overview) -> Iterator[tuple[str, ...]]:
    done = {(one.task, one.column) for one in overview.before_after}
    for column in overview.matrix.config.columns:
        if column.base is None:
            continue
        for task in overview.matrix.config.tasks:
            if (task, column.name) in done:
                continue
            whys = [
                hole(overview, task, name)
                for name in (column.name, column.base)
                if overview.reason(task, name)
            ]
            told = "; ".join(whys) or "hole: they share no seed or rows"
            yield (f"{column.name} from {column.base}", task, told, DASH, DASH, DASH)


def _side(found: Side) -> str:
    told = f"{found.label!r} {percent(found.surplus, 0)} too often" if found.surplus > 0 else "even"
    return told if found.gap is None else f"{told}, balance gap {found.gap:.2f}"
