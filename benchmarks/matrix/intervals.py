"""How sure a mean over seeds and rows is: 95 % intervals and p-values.

A figure of a column, or a difference of two, is the mean over its seeds of the mean over the
report rows. Two things would have moved it:

- other rows: the report rows are resampled with replacement, the same draw for all columns and
  seeds (all answered the same rows), so that two columns are paired;
- other seeds, that is other draws of train and other starts of the training: the variance between
  the seeds, over their number.

The two variances add up. Few seeds know their own spread badly, so the quantile is Student's with
Welch and Satterthwaite's degrees of freedom: the normal one where the rows are nearly all of the
variance, that of S - 1 where the seeds are. An interval is the percentile interval of the resampled
rows, as much wider. One seed has no spread: its interval is of the rows alone (`cautions` says so).

Three seeds agree by luck now and then, and each such pair would be told apart. A pair's variance
between seeds is therefore drawn towards the mean one of the task's pairs, but never below its own
(`moderated`). Of six columns that are alike (15 pairs, corrected by Holm) any two are then told
apart in 2 to 5 % of matrices of three seeds, whatever share of the variance is the seeds' and
however unequal the columns (simulated, in the tests), and in up to 8 % of those of two; without it
in up to 28 and 59 %. A single pair has no other to learn from: 5 to 8 % with three seeds, up to 12
with two.

Source: Efron and Tibshirani (1993), chapters 13 and 16; Satterthwaite (1946), Biometrics Bulletin
2(6); for moderated variances Smyth (2004), Stat. Appl. Genet. Mol. Biol. 3(1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import t as student

from red_ray.core.metrics import Interval, wilson_interval

Floats = NDArray[np.float32]

N_RESAMPLES = 4_000
"""Fixes the ends of an interval to about a hundredth of its width."""

CHUNK = 250
"""Resamples at a time: 250 of 5,000 rows are 10 MB."""

LEVEL = 0.05

PRIOR = 2
"""Degrees of freedom that the task's pairs lend to each pair's spread between seeds."""

LEAST_PAIRS = 3
"""Fewer say too little of each other."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and rows with its 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Spread:
    """Variances of a figure.

    Attributes:
        rows: of its mean over the seeds, by other rows.
        seed: of a single seed's, between seeds; 0 where there is one.
        n_seeds: over which it is the mean.
        seed_freedom: degrees of freedom that `seed` is known with.
    """

    rows: float
    seed: float
    n_seeds: int
    seed_freedom: float

    @property
    def total(self) -> float:
        """Standard error of the mean, by other rows and other seeds."""
        return float(np.sqrt(self.rows + self.seed / self.n_seeds))

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the standard error; none but the seeds' are few."""
        if self.seed == 0:
            return float("inf")
        return self.total**4 * self.seed_freedom / (self.seed / self.n_seeds) ** 2

    def quantile(self, level: float) -> float:
        """Standard errors on either side that leave out a level in all."""
        return float(student.isf(level / 2, self.freedom))

    def p(self, value: float) -> float:
        """Of the figure where it should be 0, two-sided."""
        if self.total == 0:
            return 1.0 if value == 0 else 0.0
        return float(2 * student.sf(abs(value) / self.total, self.freedom))


def spread_of(resampled: NDArray[np.floating], plain: NDArray[np.floating]) -> Spread:
    """The spread of a figure.

    Args:
        resampled: a figure of each seed over resampled rows, shape (n_resamples, n_seeds).
        plain: the same over the rows as they are, shape (n_seeds,).
    """
    n_seeds = len(plain)
    between = float(np.var(plain, ddof=1, dtype=np.float64)) if n_seeds > 1 else 0.0
    rows = float(resampled.mean(axis=1, dtype=np.float64).var())
    return Spread(rows, between, n_seeds, n_seeds - 1)


def moderated(spreads: Sequence[Spread]) -> list[Spread]:
    """The spreads of a task's pairs, each no less between seeds than they all let expect.

    What is expected is the mean over the pairs of several seeds, as if known with `PRIOR` degrees
    of freedom, and weighed with the pair's own.
    """
    known = [one.seed for one in spreads if one.n_seeds > 1]
    if len(known) < LEAST_PAIRS:
        return list(spreads)
    mean = float(np.mean(known))
    found = []
    for one in spreads:
        freedom = PRIOR + one.seed_freedom
        expected = (PRIOR * mean + one.seed_freedom * one.seed) / freedom
        kept = one.seed >= expected and one.n_seeds > 1
        found.append(one if kept else replace(one, seed=expected, seed_freedom=freedom))
    return found


def interval_of(value: float, resampled: NDArray[np.floating], spread: Spread) -> Interval:
    """The 95 % interval of a figure: that of its resampled rows, widened to its whole spread."""
    whole = spread.quantile(LEVEL) * spread.total
    centre = resampled.mean(axis=1, dtype=np.float64)
    if spread.rows == 0:
        return (value - whole, value + whole)
    low, high = np.quantile(centre - centre.mean(), [LEVEL / 2, 1 - LEVEL / 2])
    wider = whole / (float(ndtri(1 - LEVEL / 2)) * np.sqrt(spread.rows))
    return (float(value + wider * low), float(value + wider * high))


def mean_interval(values: NDArray[np.generic], *, rng: np.random.Generator) -> Estimate:
    """The mean of a matrix and its interval.

    Args:
        values: truth values, or differences of such, shape (n_seeds, n_rows).
        rng: draws rows.
    """
    drawn = row_means([values.astype(np.float32)], N_RESAMPLES, rng)[0]
    return estimate(values, drawn, spread_of(drawn, values.mean(axis=1)))


def estimate(
    values: NDArray[np.generic], resampled: NDArray[np.floating], spread: Spread
) -> Estimate:
    """A mean with its interval, within what the mean can be.

    Where no two rows differ, nor two seeds, all resamples are alike: what such rows leave open is
    Wilson's interval of a share that no row is a case of.

    Args:
        values: truth values, or differences of such, shape (n_seeds, n_rows).
        resampled: their means over resampled rows, shape (n_resamples, n_seeds).
        spread: of the mean.
    """
    plain = values.astype(np.float64)
    mean, least = float(plain.mean()), 0.0 if values.dtype == np.bool_ else -1.0
    low, high = interval_of(mean, resampled, spread)
    if np.ptp(plain) == 0:
        unseen = wilson_interval(0, plain.shape[1])[1]
        low, high = mean - unseen, mean + unseen
    return Estimate(mean, (max(least, low), min(1.0, high)))


def row_means(
    matrices: Sequence[Floats], n_resamples: int, rng: np.random.Generator
) -> list[Floats]:
    """Means over the same resampled rows of several matrices.

    Args:
        matrices: each of shape (n_seeds, n_rows), the seeds its own.
        n_resamples: draws of the rows.
        rng: draws them.

    Returns:
        Of each matrix the means, shape (n_resamples, n_seeds).
    """
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


def p_told(p: float) -> str:
    """A p-value: "p < 0.001", "p = 0.026"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def signed(value: float) -> str:
    """A difference of shares in points, without the word: +2.1, −0.3."""
    return f"{100 * value:+z.1f}".replace("-", "−")
