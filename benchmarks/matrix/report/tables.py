"""The tables of a matrix, as words: every one names every hole with its reason in the cell."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.matrix.advice import Side
from benchmarks.matrix.cautions import is_simulated_column
from benchmarks.matrix.reading import Reading
from benchmarks.matrix.report.words import (
    METHODS,
    NAMES,
    accuracy_cell,
    both,
    hole,
    method_told,
    name_told,
    p_told,
    parameters,
    part_told,
    place_told,
    points,
)
from benchmarks.matrix.summary import FIGURES
from red_ray.evaluation.audit.tables import Grid
from red_ray.evaluation.report.figures import DASH, percent

BY_METHOD = ("accuracy", "macro_f1", "mcc", "latency_p50_ms", "fit_s", "peak_mb")


def comparison(reading: Reading) -> Grid:
    """Accuracy of every column on every task."""
    tasks = tuple(reading.matrix.config.tasks)
    rows = tuple(
        (
            name_told(reading, column.name),
            method_told(reading, column.name),
            *(accuracy_cell(reading, task, column.name) for task in tasks),
        )
        for column in reading.matrix.config.columns
    )
    return Grid("Accuracy, all tasks", ("column", "method", *tasks), rows)


def of_task(reading: Reading, task: str) -> Grid:
    """All figures of a task, the most accurate column first, holes last."""
    known = [name for at, name in reading.summaries if at == task]
    have = {name for column in known for name in reading.summaries[task, column].figures}
    figures = [name for name in FIGURES if name in have]
    order = sorted(known, key=lambda name: -_accuracy(reading, task, name))
    lacking = [c.name for c in reading.matrix.config.columns if c.name not in known]
    header = ("column", "method", "place", *(NAMES[name] for name in figures), "trained parameters")
    rows = [_task_row(reading, task, name, figures) for name in order]
    for name in lacking:
        told = hole(reading, task, name)
        blank = (DASH,) * (len(figures) + 1)
        rows.append((name_told(reading, name), method_told(reading, name), told, *blank))
    return Grid(task, header, tuple(rows), tuple(_notes(reading, task)))


def by_method(reading: Reading) -> Iterator[Grid]:
    """One table a method: its columns on every task."""
    methods = dict.fromkeys(column.method for column in reading.matrix.config.columns)
    for method in methods:
        rows = []
        for column in reading.matrix.config.columns:
            if column.method != method:
                continue
            rows += [
                _method_row(reading, task, column.name) for task in reading.matrix.config.tasks
            ]
        header = ("column", "task", *(NAMES[name] for name in BY_METHOD), "trained parameters")
        title = f"{method}: {METHODS[method]}{_simulated(reading, method)}"
        yield Grid(title, header, tuple(rows))


def pairs(reading: Reading, task: str) -> Grid:
    """Every two columns: difference, whether told apart, and whose errors they are."""
    rows = tuple(
        (
            f"{name_told(reading, one.a)} − {name_told(reading, one.b)}",
            points(one.difference),
            p_told(one.p_corrected),
            "yes" if one.told_apart else "no",
            both("accuracy", one.overlap.both_wrong),
            both("accuracy", one.overlap.only_a_wrong),
            both("accuracy", one.overlap.only_b_wrong),
            both("accuracy", one.overlap.both_right),
        )
        for one in reading.compared[task].pairs
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


def changes(reading: Reading) -> Grid:
    """Columns before and after, against their base."""
    rows = tuple(
        (
            f"{name_told(reading, one.column)} from {name_told(reading, one.base)}",
            one.task,
            points(one.pair.difference),
            p_told(one.pair.p_corrected),
            _side(one.before),
            _side(one.after),
        )
        for one in reading.before_after
    )
    missing = tuple(_no_change(reading))
    header = ("column from base", "task", "gain", "p, corrected", "before", "after")
    return Grid("Before and after", header, (*rows, *missing))


def holes(reading: Reading) -> Grid:
    """Every cell without figures."""
    rows = tuple(
        (name_told(reading, cell.column), cell.task, str(cell.seed), why)
        for cell, why in reading.matrix.holes
    )
    return Grid("Holes", ("column", "task", "seed", "why"), rows)


def cautions(reading: Reading) -> Grid:
    """Every warning."""
    rows = tuple((one.kind.replace("_", " "), one.sentence) for one in reading.cautions)
    return Grid("Cautions", ("kind", "what"), rows)


def _simulated(reading: Reading, method: str) -> str:
    columns = [one for one in reading.matrix.config.columns if one.method == method]
    return ", SIMULATED" if all(map(is_simulated_column, columns)) else ""


def _accuracy(reading: Reading, task: str, column: str) -> float:
    return reading.summaries[task, column].figures["accuracy"].value


def _task_row(reading: Reading, task: str, column: str, figures: list[str]) -> tuple[str, ...]:
    found = reading.summaries[task, column]
    cells = [both(name, found.figures.get(name)) for name in figures]
    cells[0] += part_told(reading, task, column)
    return (
        name_told(reading, column),
        method_told(reading, column),
        place_told(reading, task, column),
        *cells,
        parameters(found),
    )


def _method_row(reading: Reading, task: str, column: str) -> tuple[str, ...]:
    name = name_told(reading, column)
    found = reading.summaries.get((task, column))
    if found is None:
        told = hole(reading, task, column)
        return (name, task, told, *((DASH,) * len(BY_METHOD)))
    cells = [both(one, found.figures.get(one)) for one in BY_METHOD]
    cells[0] += part_told(reading, task, column)
    return (name, task, *cells, parameters(found))


def _notes(reading: Reading, task: str) -> Iterator[str]:
    for (at, column), found in reading.summaries.items():
        if at == task:
            yield from (f"{name_told(reading, column)}: {note}" for note in found.notes)


def _no_change(reading: Reading) -> Iterator[tuple[str, ...]]:
    done = {(one.task, one.column) for one in reading.before_after}
    for column in reading.matrix.config.columns:
        if column.base is None:
            continue
        for task in reading.matrix.config.tasks:
            if (task, column.name) in done:
                continue
            whys = [
                hole(reading, task, name)
                for name in (column.name, column.base)
                if reading.reason(task, name)
            ]
            told = "; ".join(whys) or "hole: they share no seed or rows"
            yield (f"{column.name} from {column.base}", task, told, DASH, DASH, DASH)


def _side(found: Side) -> str:
    told = f"{found.label!r} {percent(found.surplus, 0)} too often" if found.surplus > 0 else "even"
    return told if found.gap is None else f"{told}, balance gap {found.gap:.2f}"
