"""Which texts of the pool are worth a question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from red_ray.core.router import says_none, top_labels

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

OVERSAMPLE = 10
"""The diverse choice is made among this many times the wanted number of most uncertain texts."""


@dataclass(frozen=True, slots=True)
class WeighedPool:
    """What is kept of each text of a pool: its probabilities, one for each label, are not.

    Attributes:
        unsure: see `uncertainty`, shape (n_texts,); not a number where nothing is known yet.
        is_none: whether no label fits, shape (n_texts,).
        best: the most probable labels, best first, shape (n_texts, top_k).
    """

    unsure: Doubles
    is_none: NDArray[np.bool_]
    best: NDArray[np.int32]

    @classmethod
    def empty(cls, n_texts: int, top_k: int) -> Self:
        """A pool of which nothing is known yet."""
        best = np.zeros((n_texts, top_k), dtype=np.int32)
        return cls(np.full(n_texts, np.nan), np.zeros(n_texts, dtype=bool), best)

    def take_in(
        self,
        first: int,
        distribution: Doubles,
        *,
        kind: Literal["margin", "entropy"],
        none_threshold: float,
    ) -> None:
        """Take in the probabilities of the texts from `first` on.

        Args:
            first: position in the pool.
            distribution: over labels and *none*, shape (n_some, n_labels + 1).
            kind: measure of uncertainty.
            none_threshold: see `says_none`.
        """
        some = slice(first, first + len(distribution))
        self.unsure[some] = uncertainty(distribution, kind)
        self.is_none[some] = says_none(distribution, none_threshold)
        self.best[some] = top_labels(distribution[:, :-1], self.best.shape[1])


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
    others, rows = distribution.copy(), np.arange(len(distribution))
    best = distribution.argmax(axis=1)
    others[rows, best] = -np.inf
    return np.asarray(1 - (distribution[rows, best] - others.max(axis=1)))


def most_uncertain(scores: Doubles, n: int) -> Ints:
    """The positions among which the diverse choice of `n` is made, highest score first."""
    return np.asarray(np.argsort(-scores, kind="stable")[: OVERSAMPLE * n], dtype=np.int64)


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
    ranked = most_uncertain(scores, n)
    near = np.zeros(len(ranked))
    chosen: list[int] = []
    for _ in range(min(n, len(ranked))):
        worth = scores[ranked] * (1 - diversity * near)
        worth[chosen] = -np.inf
        best = int(worth.argmax())
        chosen.append(best)
        near = np.maximum(near, np.clip(vectors[ranked] @ vectors[ranked[best]], 0, 1))
    return np.asarray(ranked[chosen], dtype=np.int64)
