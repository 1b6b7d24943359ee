"""Which rows of other subsets an expert learns as noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def draw_noise(
    vectors: Floats,
    own: NDArray[np.bool_],
    *,
    cap: int,
    factor: float | None,
    rng: np.random.Generator,
) -> Ints:
    """Draw an expert's noise rows from the rows of other subsets.

    All of them up to `cap`; beyond it half are the rows nearest to the subset and half are
    drawn with weights that fall with the distance, so that the cost of all experts stays near
    linear in the number of labels.

    Args:
        vectors: embeddings of all labelled rows, shape (n_rows, dim), unit length.
        own: whether a row belongs to the expert's subset, shape (n_rows,).
        cap: most noise rows.
        factor: at most this many times the expert's own rows (the reference uses 2, drawn
            uniformly); None for no such limit.
        rng: source of the random half.

    Returns:
        Sorted row indices, never one of `own`; empty only if no other subset has a row.
    """
    others = np.flatnonzero(~own)
    if factor is not None:
        wanted = min(len(others), cap, max(1, round(factor * int(own.sum()))))
        return np.sort(rng.choice(others, size=wanted, replace=False))
    if len(others) <= cap:
        return others
    return np.sort(_nearest_and_weighted(vectors, own, others, cap, rng))


def _nearest_and_weighted(
    vectors: Floats,
    own: NDArray[np.bool_],
    others: Ints,
    cap: int,
    rng: np.random.Generator,
) -> Ints:
    centre = vectors[own].mean(axis=0)
    closeness = vectors[others] @ centre
    ranked = others[np.argsort(-closeness, kind="stable")]
    n_nearest = cap // 2
    rest = ranked[n_nearest:]
    # Weights fall from 1 for the nearest of the rest to near 0 for the farthest.
    weights = np.linspace(1.0, 1e-3, len(rest))
    drawn = rng.choice(rest, size=cap - n_nearest, replace=False, p=weights / weights.sum())
    return np.concatenate([ranked[:n_nearest], drawn])
