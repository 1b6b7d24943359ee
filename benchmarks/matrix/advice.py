"""A column before and after: against the one that it was made from, and what to try next.

Every piece of advice follows from a stated rule; none is given without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.matrix.cautions import CONSTANT, MOST_UNREADABLE, Side, side
from benchmarks.matrix.compare import Comparison, Held, Pair, held
from benchmarks.matrix.history import best_epoch
from benchmarks.matrix.intervals import signed
from benchmarks.matrix.results import CellResult, Matrix

RULES = {
    "no_gain": "the 95 % interval of the gain over the base does not lie above 0",
    "one_sided": "a label is answered on 25 points more of the rows than it is true of, or the "
    "balance gap is at least 0.5",
    "unreadable": f"more than {100 * MOST_UNREADABLE:.0f} % of the answers cannot be read",
    "still_improving": "the last epoch is more accurate on the rows held back than all before it, "
    "of most seeds",
    "overfits": "the best epoch on the rows held back is the first of several, of most seeds",
}
"""By the name of the rule, when it holds."""

_RETRAIN = "more rows of train, or another learning rate"
_REMEDY = {"few_shot": "other examples or more of them", "zero_shot": "another instruction"}


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """A column against its base on the same rows and seeds; `pair` is the column less the base."""

    task: str
    column: str
    base: str
    pair: Pair
    before: Side
    after: Side


@dataclass(frozen=True, slots=True)
class Advice:
    """For the next run.

    Attributes:
        rule: of `RULES`.
        task: it is about.
        column: it is about.
        sentence: what was seen and what to try.
    """

    rule: str
    task: str
    column: str
    sentence: str


def before_after(matrix: Matrix, compared: Mapping[str, Comparison]) -> tuple[BeforeAfter, ...]:
    """Every column that names its base, on every task where both have a seed in common."""
    found = []
    for task, comparison in compared.items():
        for column in matrix.config.columns:
            pair = comparison.pair(column.name, column.base) if column.base else None
            if pair is None:
                continue
            after, before = held(matrix, task, pair.a), held(matrix, task, pair.b)
            if before is not None and after is not None:
                found.append(BeforeAfter(task, pair.a, pair.b, pair, side(before), side(after)))
    return tuple(found)


def advice(matrix: Matrix, compared: Mapping[str, Comparison]) -> tuple[Advice, ...]:
    """What to try in the next run, by `RULES`."""
    found = [
        _no_gain(one, matrix.config.column(one.column).method)
        for one in before_after(matrix, compared)
    ]
    told = [one for one in found if one is not None]
    for task, comparison in compared.items():
        for column in matrix.config.columns:
            one = held(matrix, task, column.name) if column.name in comparison.accuracy else None
            if one is not None and column.method not in CONSTANT:
                told += [*_sided(task, one), *_unreadable(task, one), *_epochs(task, one)]
    return tuple(one for one in told if not matrix.config.column(one.column).stand_in)


def _no_gain(found: BeforeAfter, method: str) -> Advice | None:
    gain = found.pair.difference
    low, high = gain.interval
    if low > 0:
        return None
    told = "loses to" if high < 0 else "shows no gain over"
    return Advice(
        "no_gain",
        found.task,
        found.column,
        f"{found.column} {told} its base {found.base} on {found.task}: {signed(gain.value)} "
        f"points ({signed(low)} to {signed(high)}). Try {_REMEDY.get(method, _RETRAIN)}, or "
        "keep the base.",
    )


def _sided(task: str, column: Held) -> Iterator[Advice]:
    found = side(column)
    if not found.is_one_sided:
        return
    yield Advice(
        "one_sided",
        task,
        column.column,
        f"{column.column} says {found.label!r} on {task} too often (by {100 * found.surplus:.0f} "
        "points of the rows). Look at the words it may answer; draw as many rows of each label.",
    )


def _unreadable(task: str, column: Held) -> Iterator[Advice]:
    share = float(column.unreadable.mean())
    if share <= MOST_UNREADABLE:
        return
    yield Advice(
        "unreadable",
        task,
        column.column,
        f"{column.column} gave no readable answer to {100 * share:.1f} % of the rows of {task}. "
        "Look at `raw` in its predictions; let it write more tokens, or name the labels by words "
        "that it would say.",
    )


def _epochs(task: str, column: Held) -> Iterator[Advice]:
    last = _share(column.cells, _gains_at_last)
    first = _share(column.cells, lambda history: best_epoch(history) == 1)
    if last > 0.5:
        yield Advice(
            "still_improving",
            task,
            column.column,
            f"{column.column} was still improving on {task} at its last epoch, with "
            f"{_counted(last, column)}. Give it more epochs.",
        )
    elif first > 0.5:
        yield Advice(
            "overfits",
            task,
            column.column,
            f"{column.column} was best on {task} after its first epoch, with "
            f"{_counted(first, column)}: it overfits after. Lower the learning rate, or give it "
            "more rows.",
        )


def _gains_at_last(history: Sequence[Mapping[str, float]]) -> bool:
    """Not by the loss alone, which decides between epochs of one accuracy."""
    *before, last = (one["select_accuracy"] for one in history if "select_accuracy" in one)
    return last > max(before, default=last)


def _share(
    cells: Sequence[CellResult], holds: Callable[[Sequence[Mapping[str, float]]], bool]
) -> float:
    """Of the cells those whose several epochs, watched on rows held back, are so."""
    found = [one.history for one in cells if best_epoch(one.history) is not None]
    return sum(one[-1]["epoch"] > 1 and holds(one) for one in found) / len(cells)


def _counted(share: float, column: Held) -> str:
    n = len(column.cells)
    return f"{round(share * n)} of {n} seeds"
