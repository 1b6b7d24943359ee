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
        between_labels: bool = False,
    ) -> None:
        """Take in the probabilities of the texts from `first` on.

        Args:
            first: position in the pool.
            distribution: over labels and *none*, shape (n_some, n_labels + 1).
            kind: measure of uncertainty.
            none_threshold: see `says_none`.
            between_labels: measure by `label_uncertainty` instead.
        """
        some = slice(first, first + len(distribution))
        measure = label_uncertainty if between_labels else uncertainty
        self.unsure[some] = measure(distribution, kind)
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


def label_uncertainty(distribution: Doubles, kind: Literal["margin", "entropy"]) -> Doubles:
    """How unsure the model is between labels, times the probability that one fits, in [0, 1].

    Where the labelled rows are those that a prior found, like their names all of them, an ordinary
    text looks strange; asked about what may be *none*, a judge teaches little (Banking77 from label
    names, one seed: 90.7 % instead of 88.5 % with `uncertainty`).
    """
    fits = 1 - distribution[:, -1:]
    labels = distribution[:, :-1] / np.maximum(fits, 1e-12)
    given = np.hstack([labels, np.zeros_like(fits)])
    return uncertainty(given, kind) * fits[:, 0]


def poor_labels(labels: Ints, n_labels: int) -> Doubles:
    """What a text's worth is multiplied by where it seems to be of a label, shape (n_labels,).

    The fewer rows a label has, the more: one over the root of their number, one on average.

    Args:
        labels: of the labelled rows, shape (n_rows,).
        n_labels: how many there are.
    """
    counts = np.bincount(labels, minlength=n_labels)
    weights = 1 / np.sqrt(np.maximum(counts, 1))
    return np.asarray(weights / weights.mean())


def confused_pairs(best: Ints, predicted: Ints, labels: Ints, n_labels: int) -> Doubles:
    """What a text's worth is multiplied by for the pair of its two best labels, shape (n_texts,).

    Two for the pair that is confused most often, one for a pair that never is. Off by default:
    Banking77 from 10 per label, 1,000 calls to a simulated judge right 90 %: 90.5 % with it, 91.6 %
    without, mean of three seeds; the pairs that few rows confuse go short.

    Args:
        best: the two most probable labels of each text, shape (n_texts, 2).
        predicted: most probable labels of labelled rows, by a model that had not seen them.
        labels: their own labels, shape (n_rows,).
        n_labels: how many there are.
    """
    wrong = predicted != labels
    pairs, counts = np.unique(
        _pair_codes(predicted[wrong], labels[wrong], n_labels), return_counts=True
    )
    if not len(pairs):
        return np.ones(len(best))
    asked = _pair_codes(best[:, 0], best[:, 1], n_labels)
    at = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    return np.asarray(1 + np.where(pairs[at] == asked, counts[at], 0) / counts.max())


def _pair_codes(first: Ints, second: Ints, n_labels: int) -> Ints:
    """One number for a pair of labels, whichever comes first."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    return np.asarray(low.astype(np.int64) * n_labels + high)


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
