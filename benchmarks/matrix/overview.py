"""All that a report says of a matrix, computed once: comparisons, figures over seeds, cautions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.matrix.advice import Advice, BeforeAfter, advice, before_after
from benchmarks.matrix.cautions import Caution, cautions
from benchmarks.matrix.compare import Comparison, Held, Ranks, compare_task, held, ranks
from benchmarks.matrix.questions import Question, answered
from benchmarks.matrix.results import Matrix
from benchmarks.matrix.summary import Summary, summary
from red_ray.errors import DataError

Place = tuple[str, str]
"""A task and a column."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What stands in a report.

    Attributes:
        matrix: as read.
        compared: of each task.
        ranks: of each task.
        held: what a column answered on a task.
        summaries: its figures over the seeds; also of columns that no comparison takes.
        cautions: warnings.
        before_after: of the columns that name a base.
        advice: for the next run.
        questions: of the seed, answered.
    """

    matrix: Matrix
    compared: Mapping[str, Comparison]
    ranks: Mapping[str, Ranks]
    held: Mapping[Place, Held]
    summaries: Mapping[Place, Summary]
    cautions: tuple[Caution, ...]
    before_after: tuple[BeforeAfter, ...]
    advice: tuple[Advice, ...]
    questions: tuple[Question, ...]

    def reason(self, task: str, column: str) -> str:
        """Why a column has no figure on a task; empty where it has one."""
        if (task, column) in self.summaries:
            return ""
        stated = self.matrix.config.column(column)
        if stated.tasks is not None and task not in stated.tasks:
            return "not asked for"
        refused = self.compared[task].refused.get(column)
        if refused:
            return refused
        whys = [
            why for cell, why in self.matrix.holes if (cell.task, cell.column) == (task, column)
        ]
        return "; ".join(dict.fromkeys(whys))

    def missing_seeds(self, task: str, column: str) -> tuple[tuple[int, str], ...]:
        """Seeds of a column without figures, each with why."""
        return tuple(
            (cell.seed, why)
            for cell, why in self.matrix.holes
            if (cell.task, cell.column) == (task, column)
        )


def overview(matrix: Matrix) -> Overview:
    """Compute all that a report says."""
    compared = {task: compare_task(matrix, task) for task in matrix.config.tasks}
    found: dict[Place, Held] = {}
    for task in matrix.config.tasks:
        for column in matrix.config.columns:
            one = _held(matrix, task, column.name)
            found |= {} if one is None else {(task, column.name): one}
    summaries = {
        (task, column): summary(one, matrix.config, compared[task].accuracy.get(column))
        for (task, column), one in found.items()
    }
    return Overview(
        matrix=matrix,
        compared=compared,
        ranks={task: ranks(one) for task, one in compared.items()},
        held=found,
        summaries=summaries,
        cautions=cautions(matrix, compared),
        before_after=before_after(matrix, compared),
        advice=advice(matrix, compared),
        questions=answered(matrix, compared, found, summaries),
    )


def _held(matrix: Matrix, task: str, column: str) -> Held | None:
    try:
        return held(matrix, task, column)
    except DataError:
        return None  # the comparison says why
