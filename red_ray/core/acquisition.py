"""Which texts of the pool are worth a question."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

OVERSAMPLE = 10
"""The diverse choice is made among this many times the wanted number of most uncertain texts."""


def uncertainty(distribution: Doubles, kind: Literal["margin", "entropy"]) -> Doubles:
    """How unsure the model is, shape (n_texts,), in [0, 1].

    `margin` is one minus the difference of the two largest probabilities, `entropy` the Shannon
    entropy over its maximum.

    Args:
        distribution: over labels and *none*, shape (n_texts, n_labels + 1), rows sum to 1.
        kind: which measure.

    Source: Settles, Active Learning Literature Survey (2009), section 3.1.
    """
    if kind == "entropy":
        return np.asarray(entr(distribution).sum(axis=1) / np.log(distribution.shape[1]))
    top = -np.partition(-distribution, 1, axis=1)[:, :2]
    return np.asarray(1 - (top[:, 0] - top[:, 1]))


def select_diverse(scores: Doubles, vectors: Floats, n: int, *, diversity: float) -> Ints:
    """Choose `n` texts, high in score and unlike each other, best first.

    Greedy: each choice lowers the score of the others by `diversity` times their similarity to
    it, so that one cluster of near-equal texts does not eat the budget. Deterministic.

    Args:
        scores: worth of each text, shape (n_texts,), non-negative.
        vectors: embeddings, shape (n_texts, dim), unit length.
        n: how many; fewer are returned where there are fewer texts.
        diversity: 0 takes the highest scores, 1 refuses an exact repeat.

    Returns:
        Positions in `scores`, shape (min(n, n_texts),).
    """
    ranked = np.argsort(-scores, kind="stable")[: OVERSAMPLE * n]
    near = np.zeros(len(ranked))
    chosen: list[int] = []
    for _ in range(min(n, len(ranked))):
        worth = scores[ranked] * (1 - diversity * near)
        worth[chosen] = -np.inf
        best = int(worth.argmax())
        chosen.append(best)
        near = np.maximum(near, np.clip(vectors[ranked] @ vectors[ranked[best]], 0, 1))
    return np.asarray(ranked[chosen], dtype=np.int64)
