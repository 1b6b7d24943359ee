"""A matrix as Markdown: a short table for a README, and all tables for the results."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.matrix.overview import Overview
from benchmarks.matrix.report import tables
from benchmarks.matrix.report.words import (
    accuracy_cell,
    against_told,
    figure,
    method_told,
    part_told,
    ranking_told,
    table_notes,
)
from red_ray.evaluation.audit.tables import Grid


def short_table(found: Overview) -> str:
    """Accuracy of each column on each task; latency, training and memory on the first task.

    Where the columns are held against one, its difference stands in place of the interval. Times
    and memory have theirs in the full tables.
    """
    config = found.matrix.config
    tasks = tuple(config.tasks)
    first = tasks[0]
    header = ("column", "what it is", *tasks, *(f"{what} ({first})" for _, what in tables.TAKES))
    rows = [
        (
            column.name,
            method_told(found, column.name),
            *(_short_accuracy(found, task, column.name) for task in tasks),
            *(tables.measure(found, first, column.name, name, figure) for name, _ in tables.TAKES),
        )
        for column in config.columns
    ]
    lines = [*_table(Grid("", header, tuple(rows))), ""]
    lines += [f"- {told}" for told in table_notes(found)]
    lines += [f"- {task}: {ranking_told(found, task)}" for task in tasks]
    return "\n".join(lines) + "\n"


def against_table(found: Overview) -> str:
    """Each column on each task beside the one that it is held against, with what it takes."""
    grid = tables.against(found)
    return "\n".join([*_table(grid), "", *(f"- {note}" for note in grid.notes)]) + "\n"


def full_table(found: Overview) -> str:
    """Everything: comparison, each task with its pairs, methods, changes, questions, cautions."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Overview) -> Iterator[str]:
    config = found.matrix.config
    yield f"# Matrix {config.name}"
    yield ""
    yield (
        f"{len(found.matrix.results) - _n_tried_holes(found)} of {len(config.cells)} cells have "
        "figures; brackets hold 95 % intervals over seeds and rows (measured figures: "
        "over seeds; none of one seed)."
    )
    yield from _section(tables.comparison(found))
    for task in config.tasks:
        yield from _section(tables.of_task(found, task))
        yield ""
        yield ranking_told(found, task)
        yield from _section(tables.pairs(found, task))
    for grid in tables.by_method(found):
        yield from _section(grid)
    yield from _section(tables.changes(found))
    yield from _said("Advice", [f"{one.sentence} (rule: {one.rule})" for one in found.advice])
    yield from _questions(found)
    yield from _section(tables.holes(found))
    yield from _said("Cautions", [one.sentence for one in found.cautions])


def _questions(found: Overview) -> Iterator[str]:
    yield ""
    yield "## Questions"
    for number, one in enumerate((one for one in found.questions if not one.lacks), 1):
        yield ""
        yield f"{number}. **{one.text}** {one.answer}"
        yield from (f"   - {sentence}" for sentence in one.sentences)
    others = [f"- {one.text} ({one.lacks})" for one in found.questions if one.lacks]
    if others:
        yield from ("", "Not asked here:", "", *others)


def _said(title: str, sentences: list[str]) -> Iterator[str]:
    if sentences:
        yield ""
        yield f"## {title}"
        yield ""
        yield from (f"- {sentence}" for sentence in sentences)


def _section(grid: Grid) -> Iterator[str]:
    if not grid.rows:
        return
    yield ""
    yield f"## {grid.title}"
    yield ""
    yield from _table(grid)
    yield from (["", *(f"- {note}" for note in grid.notes)] if grid.notes else [])


def _table(grid: Grid) -> list[str]:
    # Words stand at the left, figures at the right.
    worded = [any(cell[:1].isalpha() for cell in cells) for cells in zip(*grid.rows, strict=True)]
    ruler = tuple("---" if words else "---:" for words in worded)
    return [_row(row) for row in (grid.header, ruler, *grid.rows)]


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _short_accuracy(found: Overview, task: str, column: str) -> str:
    against = found.matrix.config.against
    known = found.summaries.get((task, column))
    if against in (None, column) or known is None:
        return accuracy_cell(found, task, column)
    told = figure("accuracy", known.figures["accuracy"])
    return f"{told}, {against_told(found, task, column)}{part_told(found, task, column)}"


def _n_tried_holes(found: Overview) -> int:
    return sum(one.is_hole for one in found.matrix.results)
