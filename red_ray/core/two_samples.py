"""Whether shares differ between two samples: exact tests, a correction for many, and their power.

Counts are of texts, and each text counts once. All tests hold their level for any counts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, hypergeom

Doubles = NDArray[np.float64]

MOST_ROWS = 2**20
"""Beyond so many rows no number is said to be enough."""


def p_grew(hits: ArrayLike, n: ArrayLike, hits_before: ArrayLike, n_before: ArrayLike) -> Doubles:
    """P-values of "the share did not grow", one for each pair of counts.

    Args:
        hits: of `n` rows, those in question; shape (n_tests,).
        n: rows; one number, or shape (n_tests,).
        hits_before: the same of `n_before` others; shape (n_tests,).
        n_before: rows of these; as `n`.

    Source: Fisher (1935), as `scipy.stats.fisher_exact(alternative="greater")`, vectorised.
    """
    hits, hits_before = np.asarray(hits), np.asarray(hits_before)
    n, n_before = np.asarray(n), np.asarray(n_before)
    # Drawn are the hits, not the rows: it is the same, and scipy adds up a term for each.
    p = hypergeom.sf(hits - 1, n + n_before, n, hits + hits_before)
    return np.asarray(np.minimum(p, 1.0), dtype=np.float64)


def p_changed(
    hits: ArrayLike,
    n: ArrayLike,
    hits_before: ArrayLike,
    n_before: ArrayLike,
    least: tuple[ArrayLike, ArrayLike] | None = None,
) -> Doubles:
    """P-values of "the share is the same", twice the smaller one-sided ones; as of `p_grew`.

    Args:
        hits: see `p_grew`.
        n: the same.
        hits_before: the same.
        n_before: the same.
        least: hits and rows of before if the share was the smallest that it may have been, where
            it is not quite known; the other two are then those of the largest.

    Source: the central version of Fisher's test, Fay (2010), Biostatistics 11(2).
    """
    grew = p_grew(hits, n, hits_before, n_before)
    shrank = p_grew(*((hits_before, n_before) if least is None else least), hits, n)
    return np.asarray(np.minimum(2 * np.minimum(grew, shrank), 1.0))


def p_exceeds(n_above: int, n: int, rank: int, n_before: int) -> float:
    """P-value of "no more than before", where `n_above` values exceed one of those before.

    Args:
        n_above: of `n` values, those above the one that is the `rank`-th largest of the others.
        n: values.
        rank: chosen before any value was seen, 1 for the largest.
        n_before: the other values.

    So many or more are above where, of the `n_above + rank - 1` largest of all, fewer than `rank`
    are others. However few the others are, a far shift is seen; of a share of the largest of all
    it is not, once the new ones alone fill it.

    Source: the exceedance test, Gumbel and von Schelling (1950), Annals of Math. Stat. 21(2).
    """
    return float(hypergeom.cdf(rank - 1, n + n_before, n_before, n_above + rank - 1))


def holm(p: ArrayLike) -> Doubles:
    """P-values corrected for their number, shape (n_tests,).

    Where all that are at most `level` are called findings, the chance of a single false one among
    all tests is at most `level`, however the tests depend on each other.

    Source: Holm (1979), Scandinavian Journal of Statistics 6(2).
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.arange(len(p), 0, -1) * p[order]
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def ratio(hits: int, n: int, hits_before: int, n_before: int) -> float:
    """How often over the share is what it was; finite, as each side gets half a hit more."""
    return ((hits + 0.5) / (n + 1)) / ((hits_before + 0.5) / (n_before + 1))


def power(share: float, n: int, hits_before: int, n_before: int, level: float) -> float:
    """Chance that `p_grew` of `n` rows, of which `share` are hits, is at most `level`."""
    # The p-value falls with the hits: the first that is small enough is found by halving.
    low, high = 0, n + 1
    while low < high:
        middle = (low + high) // 2
        if float(p_grew(middle, n, hits_before, n_before)) <= level:
            high = middle
        else:
            low = middle + 1
    return float(binom.sf(low - 1, n, share)) if low <= n else 0.0


def least_share(
    n: int, hits_before: int, n_before: int, level: float, wanted: float
) -> float | None:
    """The smallest share that shows in `n` rows with power `wanted`; None where none does."""
    if power(1.0, n, hits_before, n_before, level) < wanted:
        return None
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        shows = power(middle, n, hits_before, n_before, level) >= wanted
        low, high = (low, middle) if shows else (middle, high)
    return high


def rows_to_see(
    share: float, hits_before: int, n_before: int, level: float, wanted: float
) -> int | None:
    """Rows in which `share` shows with power `wanted`; None where no number is enough.

    Power is not quite monotone in the rows, as counts are whole: the number is right within a
    few per cent.
    """

    def enough(n: int) -> bool:
        return power(share, n, hits_before, n_before, level) >= wanted

    return _least(enough)


def _least(enough: Callable[[int], bool]) -> int | None:
    high = 1
    while not enough(high):
        high *= 2
        if high > MOST_ROWS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
