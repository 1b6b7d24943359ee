"""Columns of a task held against each other on the same report rows, over seeds and rows.

What is resampled, in every interval and p-value here: the report rows, with replacement, the same
draw for all columns and seeds (all answered the same rows); and the seeds, with replacement, out
of those in question. A column's figure is the mean over its seeds of the mean over the rows. So an
interval says what other rows of this kind, and other draws of train and starts of training, would
have given.

Few seeds resampled say too little of their spread: the spread of S seeds is short by (S - 1) / S.
What a draw of seeds adds to the figure is therefore scaled by the root of S / (S - 1). One seed
has no spread to resample: its interval is of the rows alone (`cautions` says so).

Source: Efron and Tibshirani (1993), chapters 13 and 16; for the scaling Davison and Hinkley
(1997), section 2.3; for the levels Owen (2007), Annals of Applied Statistics 1(2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from benchmarks.matrix.results import CellResult, Matrix, Predictions
from red_ray.core.metrics import Interval, wilson_interval
from red_ray.core.two_samples import holm
from red_ray.errors import DataError

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

N_RESAMPLES = 20_000
"""The least p-value is then 0.0001, which Holm's correction leaves below `LEVEL` over 500 pairs."""

N_OVERLAPS = 400
"""Of the shares of errors, which have no p-values."""

CHUNK = 250
"""Resamples at a time: 250 of 5,000 rows are 10 MB."""

LEVEL, POWER = 0.05, 0.8


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and rows with its 95 % interval."""

    value: float
    interval: Interval


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
    """Shares of the rows, averaged over the seeds; intervals over resampled rows and seeds."""

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
        spread: standard deviation of the resampled difference.
        p: of "no difference", two-sided.
        p_corrected: the same by Holm over all pairs of the task.
        overlap: whose errors they are.
    """

    a: str
    b: str
    seeds: tuple[int, ...]
    difference: Estimate
    spread: float
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

    @property
    def detectable(self) -> float | None:
        """The difference that these rows and seeds would show with a chance of 80 %, corrected.

        By the median spread of the pairs, at the level that the first of Holm's steps asks for.
        """
        if not self.pairs:
            return None
        spread = float(np.median([pair.spread for pair in self.pairs]))
        level = LEVEL / len(self.pairs)
        return float((ndtri(1 - level / 2) + ndtri(POWER)) * spread)


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
    drawn = _resampled(columns, rng)
    accuracy = {
        one.column: _estimate(one.right, resampled_seeds(drawn[one.column], rng)) for one in columns
    }
    best_first = sorted(columns, key=lambda one: -accuracy[one.column].value)
    pairs = [
        pair
        for a, b in combinations(best_first, 2)
        if (pair := _pair(a, b, drawn, rng)) is not None
    ]
    corrected = holm([pair.p for pair in pairs])
    return Comparison(
        task=task,
        n=columns[0].right.shape[1],
        accuracy={one.column: accuracy[one.column] for one in best_first},
        pairs=tuple(_with_p(pair, float(p)) for pair, p in zip(pairs, corrected, strict=True)),
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

    "Most" are the rows of the most columns, and of several such those of the first.
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


def mean_interval(values: NDArray[np.generic], *, rng: np.random.Generator) -> Estimate:
    """The mean of a matrix and its interval, as of the module.

    Args:
        values: truth values, or differences of such, shape (n_seeds, n_rows).
        rng: draws rows and seeds.
    """
    means = _row_means([values.astype(np.float32)], N_RESAMPLES // 10, rng)[0]
    return _estimate(values, resampled_seeds(means, rng))


def resampled_seeds(means: NDArray[np.floating], rng: np.random.Generator) -> Doubles:
    """One figure a resample, of those of its seeds: the seeds resampled, scaled as the module says.

    Args:
        means: a figure of each seed over resampled rows, shape (n_resamples, n_seeds).
        rng: draws the seeds.
    """
    size, n_seeds = means.shape
    centre = means.mean(axis=1, dtype=np.float64)
    if n_seeds == 1:
        return np.asarray(centre)
    seeds = rng.integers(0, n_seeds, size=(size, n_seeds))
    moved = np.take_along_axis(means, seeds, axis=1).mean(axis=1, dtype=np.float64)
    return np.asarray(centre + np.sqrt(n_seeds / (n_seeds - 1)) * (moved - centre))


def signed(value: float) -> str:
    """A difference of shares in points, without the word: +2.1, −0.3."""
    return f"{100 * value:+z.1f}".replace("-", "−")


def _surely_above(found: Comparison, a: str, b: str) -> bool:
    pair = found.pair(a, b)
    return pair is not None and pair.told_apart and pair.difference.value > 0


def _resampled(columns: Sequence[Held], rng: np.random.Generator) -> dict[str, Floats]:
    """Of each column the means of its seeds over resampled rows, (n_resamples, n_seeds)."""
    found = _row_means([one.right.astype(np.float32) for one in columns], N_RESAMPLES, rng)
    return {one.column: means for one, means in zip(columns, found, strict=True)}


def _row_means(
    matrices: Sequence[Floats], n_resamples: int, rng: np.random.Generator
) -> list[Floats]:
    """Means over the same resampled rows of several matrices, each (n_resamples, n_seeds)."""
    stacked = np.concatenate(matrices).T / matrices[0].shape[1]
    n = len(stacked)
    parts = []
    for start in range(0, n_resamples, CHUNK):
        size = min(CHUNK, n_resamples - start)
        rows = rng.integers(0, n, size=(size, n)) + n * np.arange(size)[:, None]
        times = np.bincount(rows.ravel(), minlength=size * n).reshape(size, n)
        parts.append(times.astype(np.float32) @ stacked)
    ends = np.cumsum([len(one) for one in matrices])[:-1]
    return np.split(np.concatenate(parts), ends, axis=1)


def _estimate(values: NDArray[np.generic], resampled: Doubles) -> Estimate:
    """A mean with the interval of its resamples, within what the mean can be.

    Of a share (truth values) that no row, or every row, is a case of, all resamples are alike: its
    interval is Wilson's, of the rows of one seed. Numbers are differences of shares.
    """
    plain, is_share = values.astype(np.float64), values.dtype == np.bool_
    mean, least = float(plain.mean()), 0.0 if is_share else -1.0
    low, high = (float(end) for end in np.quantile(resampled, [0.025, 0.975]))
    if is_share and np.ptp(plain) == 0:
        low, high = wilson_interval(round(mean * plain.shape[1]), plain.shape[1])
    return Estimate(mean, (max(least, low), min(1.0, high)))


def _pair(a: Held, b: Held, drawn: Mapping[str, Floats], rng: np.random.Generator) -> Pair | None:
    seeds = tuple(seed for seed in a.seeds if seed in b.seeds)
    if not seeds:
        return None
    at_a, at_b = ([one.seeds.index(seed) for seed in seeds] for one in (a, b))
    right_a, right_b = a.right[at_a], b.right[at_b]
    differences = drawn[a.column][:, at_a] - drawn[b.column][:, at_b]
    resampled = resampled_seeds(differences, rng)
    difference = _estimate(right_a.astype(float) - right_b.astype(float), resampled)
    overlap = _overlap(right_a, right_b, rng)
    spread = float(resampled.std())
    p = _p_value(resampled)
    return Pair(a.column, b.column, seeds, difference, spread, p, p, overlap)


def _p_value(resampled: Doubles) -> float:
    """Twice the smaller share of the resamples on either side of 0, each with one more."""
    # Single precision: what should be 0 is some 1e-8.
    size = len(resampled)
    below = (1 + int((resampled <= 1e-6).sum())) / (1 + size)
    above = (1 + int((resampled >= -1e-6).sum())) / (1 + size)
    return min(1.0, 2 * min(below, above))


def _overlap(
    right_a: NDArray[np.bool_], right_b: NDArray[np.bool_], rng: np.random.Generator
) -> Overlap:
    kinds = (right_a & right_b, ~right_a & right_b, right_a & ~right_b, ~right_a & ~right_b)
    plain = [kind.astype(np.float32) for kind in kinds]
    drawn = _row_means(plain, N_OVERLAPS, rng)
    return Overlap(
        *(
            _estimate(kind, resampled_seeds(means, rng))
            for kind, means in zip(kinds, drawn, strict=True)
        )
    )


def _with_p(pair: Pair, p: float) -> Pair:
    return Pair(pair.a, pair.b, pair.seeds, pair.difference, pair.spread, pair.p, p, pair.overlap)


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
