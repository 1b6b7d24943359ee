"""Columns of a task held against each other on the same report rows, over seeds and rows.

A column's figure is the mean over its seeds of the mean over the rows; `intervals` says what its
interval and a pair's p-value hold. Two columns are compared only where they answered the same rows
and learned from the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from benchmarks.matrix import intervals
from benchmarks.matrix.intervals import (
    LEVEL,
    Estimate,
    Floats,
    Spread,
    estimate,
    moderated,
    row_means,
    spread_of,
)
from benchmarks.matrix.results import CellResult, Matrix, Predictions
from red_ray.core.two_samples import holm
from red_ray.errors import DataError

N_OVERLAPS = 400
"""Resamples of the shares of errors, which have no p-values."""

POWER = 0.8


@dataclass(frozen=True, slots=True)
class Held:
    """The answers of a column on a task.

    Attributes:
        column: its name.
        cells: finished, one a seed.
        predictions: of each.
        right: whether each row is right, shape (n_seeds, n_rows).
        unreadable: whether its answer could not be read, shape (n_seeds, n_rows).
    """

    column: str
    cells: tuple[CellResult, ...]
    predictions: tuple[Predictions, ...]
    right: NDArray[np.bool_]
    unreadable: NDArray[np.bool_]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its cells."""
        return tuple(one.cell.seed for one in self.cells)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Shares of the rows, averaged over the seeds; intervals over rows and seeds."""

    both_right: Estimate
    only_a_wrong: Estimate
    only_b_wrong: Estimate
    both_wrong: Estimate


@dataclass(frozen=True, slots=True)
class Pair:
    """Two columns on a task.

    Attributes:
        a, b: names.
        seeds: that both have; nothing else is compared.
        difference: accuracy of `a` less that of `b`, paired by seed and row.
        spread: of the difference.
        p: of "no difference", two-sided.
        p_corrected: the same by Holm over all pairs of the task.
        overlap: whose errors they are.
    """

    a: str
    b: str
    seeds: tuple[int, ...]
    difference: Estimate
    spread: Spread
    p: float
    p_corrected: float
    overlap: Overlap

    @property
    def told_apart(self) -> bool:
        """Whether the corrected comparison says which is better."""
        return self.p_corrected <= LEVEL


@dataclass(frozen=True)
class Comparison:
    """All columns of a task.

    Attributes:
        task: its name.
        n: report rows.
        accuracy: of each column, best first.
        pairs: all of them, but those that share no seed.
        refused: columns left out, each with why.
    """

    task: str
    n: int
    accuracy: Mapping[str, Estimate]
    pairs: tuple[Pair, ...]
    refused: Mapping[str, str]

    @property
    def n_of_one_seed(self) -> int:
        """Pairs that share a single seed: they are of these trainings alone."""
        return sum(len(pair.seeds) == 1 for pair in self.pairs)

    @cached_property
    def _by_names(self) -> dict[tuple[str, str], Pair]:
        return {(pair.a, pair.b): pair for pair in self.pairs}

    def pair(self, a: str, b: str) -> Pair | None:
        """`a` less `b`, in this order; None where there is nothing to compare."""
        found = self._by_names.get((a, b))
        if found is not None:
            return found
        turned = self._by_names.get((b, a))
        return None if turned is None else _turned(turned)

    def detectable(self, names: Collection[str]) -> float | None:
        """The difference that these rows and seeds would show with a chance of 80 %, corrected.

        The median over those pairs of some columns that differ in a row, at the level that the
        first of Holm's steps asks for; None where there is none.
        """
        level = LEVEL / max(1, len(self.pairs))
        found = [
            (pair.spread.quantile(level) + float(ndtri(POWER))) * pair.spread.total
            for pair in self.pairs
            if pair.a in names and pair.b in names and pair.spread.total > 0
        ]
        return float(np.median(found)) if found else None


@dataclass(frozen=True, slots=True)
class Ranks:
    """What the corrected comparisons allow to say of an order.

    Attributes:
        groups: columns, best first; between two groups, and only there, every column above is
            told apart from every one below. One group: there is no ranking.
        places: the best and the worst place that each column may have: 1 and those surely
            better, and all less those surely worse.
    """

    groups: tuple[tuple[str, ...], ...]
    places: Mapping[str, tuple[int, int]]

    @property
    def is_ranking(self) -> bool:
        """Whether anything is ordered."""
        return len(self.groups) > 1


def held(matrix: Matrix, task: str, column: str) -> Held | None:
    """What a column answered; None where it has no finished cell.

    Raises:
        DataError: its seeds did not answer the same rows.
    """
    cells = matrix.of(task, column)
    if not cells:
        return None
    found = tuple(cell.predictions() for cell in cells)
    for cell, one in zip(cells, found, strict=True):
        _same_rows(task, (column, found[0]), (f"{column} (seed {cell.cell.seed})", one))
        _same_count(cell, one)
    return Held(
        column=column,
        cells=cells,
        predictions=found,
        right=np.stack([one.right for one in found]),
        unreadable=np.array([[not label for label in one.answered] for one in found]),
    )


def compare(columns: Sequence[Held], task: str, *, rng: np.random.Generator) -> Comparison:
    """Hold columns against each other.

    Raises:
        DataError: two of them did not answer the same rows: their denominators differ.
    """
    for other in columns[1:]:
        first = columns[0]
        _same_rows(task, (first.column, first.predictions[0]), (other.column, other.predictions[0]))
    if not columns:
        return Comparison(task, 0, {}, (), {})
    means = row_means([one.right.astype(np.float32) for one in columns], intervals.N_RESAMPLES, rng)
    drawn = {one.column: found for one, found in zip(columns, means, strict=True)}
    accuracy = {
        one.column: estimate(one.right, found, spread_of(found, one.right.mean(axis=1)))
        for one, found in zip(columns, means, strict=True)
    }
    best_first = sorted(columns, key=lambda one: -accuracy[one.column].value)
    return Comparison(
        task=task,
        n=columns[0].right.shape[1],
        accuracy={one.column: accuracy[one.column] for one in best_first},
        pairs=_pairs(best_first, drawn, rng),
        refused={},
    )


def same_rows(task: str, one: Held, other: Held) -> None:
    """See that two columns answered the same rows.

    Raises:
        DataError: they did not.
    """
    _same_rows(task, (one.column, one.predictions[0]), (other.column, other.predictions[0]))


def compare_task(matrix: Matrix, task: str, *, seed: int = 0) -> Comparison:
    """Compare the columns of a task; those on other rows than most are refused, each with why.

    "Most" are the rows of the most columns, and of several such those of the first: to report on,
    and to learn from with each seed.
    """
    found: list[Held] = []
    refused: dict[str, str] = {}
    for column in matrix.config.columns:
        try:
            one = held(matrix, task, column.name)
        except DataError as error:
            refused[column.name] = str(error)
            continue
        found += [one] if one is not None else []
    groups: list[list[Held]] = []
    for one in found:
        rows = _rows(one.predictions[0])
        same = next((g for g in groups if _rows(g[0].predictions[0]) == rows), None)
        groups.append([one]) if same is None else same.append(one)
    most = max(groups, key=len, default=[])
    for one in found:
        if not any(one is other for other in most):
            refused[one.column] = _other_rows(
                task, (most[0].column, most[0].predictions[0]), (one.column, one.predictions[0])
            )
    for one, why in _learned_elsewhere(task, most):
        refused[one.column] = why
    most = [one for one in most if one.column not in refused]
    whole = compare(most, task, rng=np.random.default_rng([seed, 11]))
    return Comparison(whole.task, whole.n, whole.accuracy, whole.pairs, refused)


def ranks(found: Comparison) -> Ranks:
    """The order of a task's columns, as far as the corrected comparisons give one.

    Two columns are told apart where Holm's p-value is at most 0.05. Columns stand by their mean;
    a group ends only where every column so far is told apart from, and above, every later one.
    """
    names = list(found.accuracy)
    above = {(a, b): _surely_above(found, a, b) for a in names for b in names if a != b}
    groups: list[tuple[str, ...]] = []
    start = 0
    for end in range(1, len(names) + 1):
        if all(above[a, b] for a in names[:end] for b in names[end:]):
            groups.append(tuple(names[start:end]))
            start = end
    places = {
        name: (
            1 + sum(above[other, name] for other in names if other != name),
            len(names) - sum(above[name, other] for other in names if other != name),
        )
        for name in names
    }
    return Ranks(tuple(groups), places)


def _surely_above(found: Comparison, a: str, b: str) -> bool:
    pair = found.pair(a, b)
    return pair is not None and pair.told_apart and pair.difference.value > 0


def _pairs(
    columns: Sequence[Held], drawn: Mapping[str, Floats], rng: np.random.Generator
) -> tuple[Pair, ...]:
    """All pairs that share a seed, corrected for their number."""
    found = [one for a, b in combinations(columns, 2) if (one := _paired(a, b, drawn)) is not None]
    spreads = moderated([spread_of(one.resampled, one.moved.mean(axis=1)) for one in found])
    p = [spread.p(float(one.moved.mean())) for one, spread in zip(found, spreads, strict=True)]
    return tuple(
        Pair(
            a=one.a,
            b=one.b,
            seeds=one.seeds,
            difference=estimate(one.moved, one.resampled, spread),
            spread=spread,
            p=alone,
            p_corrected=float(corrected),
            overlap=_overlap(one.right_a, one.right_b, rng),
        )
        for one, spread, alone, corrected in zip(found, spreads, p, holm(p), strict=True)
    )


class _Paired(NamedTuple):
    """Two columns on the seeds that both have, and their difference over resampled rows."""

    a: str
    b: str
    seeds: tuple[int, ...]
    right_a: NDArray[np.bool_]
    right_b: NDArray[np.bool_]
    resampled: Floats

    @property
    def moved(self) -> NDArray[np.float64]:
        """The difference of each row, shape (n_seeds, n_rows)."""
        return self.right_a.astype(np.float64) - self.right_b.astype(np.float64)


def _paired(a: Held, b: Held, drawn: Mapping[str, Floats]) -> _Paired | None:
    seeds = tuple(seed for seed in a.seeds if seed in b.seeds)
    if not seeds:
        return None
    at_a, at_b = ([one.seeds.index(seed) for seed in seeds] for one in (a, b))
    moved = drawn[a.column][:, at_a] - drawn[b.column][:, at_b]
    return _Paired(a.column, b.column, seeds, a.right[at_a], b.right[at_b], moved)


def _overlap(
    right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], rng: np.random.Generator
) -> Overlap:
    kinds = (right_a & right_b, ~right_a & right_b, right_a & ~right_b, ~right_a & ~right_b)
    plain = [kind.astype(np.float32) for kind in kinds]
    drawn = row_means(plain, N_OVERLAPS, rng)
    return Overlap(
        *(
            estimate(kind, means, spread_of(means, kind.mean(axis=1)))
            for kind, means in zip(kinds, drawn, strict=True)
        )
    )


def _turned(pair: Pair) -> Pair:
    low, high = pair.difference.interval
    both = pair.overlap
    return Pair(
        a=pair.b,
        b=pair.a,
        seeds=pair.seeds,
        difference=Estimate(-pair.difference.value, (-high, -low)),
        spread=pair.spread,
        p=pair.p,
        p_corrected=pair.p_corrected,
        overlap=Overlap(both.both_right, both.only_b_wrong, both.only_a_wrong, both.both_wrong),
    )


def _learned_elsewhere(task: str, columns: Sequence[Held]) -> Iterator[tuple[Held, str]]:
    """Columns that learned from other rows than most with a seed, each with why."""
    keys: dict[int, Counter[str]] = defaultdict(Counter)
    for column in columns:
        for cell in column.cells:
            keys[cell.cell.seed][cell.figures["train_key"]] += 1
    for column in columns:
        other = [
            cell.cell.seed
            for cell in column.cells
            if cell.figures["train_key"] != keys[cell.cell.seed].most_common(1)[0][0]
        ]
        if other:
            told = f"seed{'' if len(other) == 1 else 's'} {', '.join(map(str, other))}"
            yield (
                column,
                f"task {task!r}: {column.column!r} learned from other rows than most columns "
                f"({told}): nothing is compared with it until its cells run again",
            )


def _rows(found: Predictions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return found.texts, found.true


def _same_rows(task: str, one: tuple[str, Predictions], other: tuple[str, Predictions]) -> None:
    if _rows(one[1]) != _rows(other[1]):
        raise DataError(_other_rows(task, one, other))


def _same_count(cell: CellResult, found: Predictions) -> None:
    if cell.figures["n"] != len(found.true):
        raise DataError(
            f"{cell.cell.name}: its figures divide by {cell.figures['n']!r} rows, its predictions "
            f"hold {len(found.true)!r}: a changing denominator; run it again"
        )


def _other_rows(task: str, one: tuple[str, Predictions], other: tuple[str, Predictions]) -> str:
    return (
        f"task {task!r}: {other[0]!r} answered other report rows ({len(other[1].true)}) than "
        f"{one[0]!r} ({len(one[1].true)}): a changing denominator; nothing is compared with it "
        "until its cells run again"
    )
