"""Evidence that needs no fit: how similar a text is to the labelled examples of each label.

Additive per label: a new example changes the evidence of its own label and of no other, so a
pool is kept up to date for the price of its similarities to the new examples alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

MISSING = np.float32(-1.0)
"""Similarity to a label without examples: the least a cosine can be."""

BLOCK_TEXTS = 512
"""Texts at a time, so that what is compared stays in the processor's cache."""

FEW_TEXTS = 8
"""So many are compared in a few steps over all turns: a step for each turn takes longer."""

N_NEAREST = 3
"""Nearest examples of a label whose mean is evidence beside the very nearest."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Examples cut into turns, each with one example of every label that has one left.

    Attributes:
        present: the labels that occur, those with most examples first.
        counts: examples of each of them.
        order: the examples' positions, turn by turn, each in the order of `present`.
        sizes: how many examples each turn has.
        places: which example each turn has of each label, past the end where it has none, shape
            (n_turns, n_present); None where most would be past the end.
    """

    present: Ints
    counts: Ints
    order: Ints
    sizes: Ints
    places: Ints | None

    @classmethod
    def of(cls, labels: Ints) -> Turns:
        """The turns of examples with these labels, shape (n_examples,)."""
        found, label_at, counts = np.unique(labels, return_inverse=True, return_counts=True)
        by_count = np.argsort(-counts, kind="stable")
        place = np.argsort(by_count)[label_at]
        together = np.argsort(place, kind="stable")
        starts = np.cumsum(counts[by_count]) - counts[by_count]
        turn = np.empty(len(labels), dtype=np.int64)
        turn[together] = np.arange(len(labels)) - np.repeat(starts, counts[by_count])
        order, sizes = np.lexsort((place, turn)), np.bincount(turn)
        places = None
        if 0 < len(sizes) * len(found) <= 2 * len(labels):
            in_turn = np.arange(len(found))
            starts = (np.cumsum(sizes) - sizes)[:, None]
            past_end = np.append(order, len(labels))
            places = past_end[np.where(in_turn < sizes[:, None], starts + in_turn, len(labels))]
        return cls(found[by_count], counts[by_count], order, sizes, places)


class LabelSimilarity:
    """Running similarity of some texts to the examples of each label.

    Keeps the sum over the examples and the `n_nearest` largest, for each text and label.
    """

    def __init__(self, n_texts: int, n_labels: int, n_nearest: int = N_NEAREST) -> None:
        self._sum = np.zeros((n_labels, n_texts), dtype=np.float32)
        self._top = np.full((n_nearest, n_labels, n_texts), MISSING)  # the largest last
        self._counts = np.zeros(n_labels, dtype=np.int64)

    def add(self, similarity: Floats, turns: Turns) -> None:
        """Take in new examples.

        Args:
            similarity: dot product of each text with each new example, shape (n_texts, n_new).
            turns: of the new examples.
        """
        self.add_blocks([similarity], turns)

    def add_blocks(self, blocks: Iterable[Floats], turns: Turns) -> None:
        """As `add`, the texts coming some at a time, each block as `similarity` there."""
        first = 0
        for similarity in blocks:
            for start in range(0, len(similarity), BLOCK_TEXTS):
                self._take_in(similarity[start : start + BLOCK_TEXTS], turns, first + start)
            first += len(similarity)
        self._counts[turns.present] += turns.counts

    def _take_in(self, similarity: Floats, turns: Turns, first: int) -> None:
        """Take in new examples for the texts from `first` on."""
        present, block = turns.present, slice(first, first + len(similarity))
        values = np.ascontiguousarray(similarity.T)
        top = self._top[:, present, block]
        if values.shape[1] <= FEW_TEXTS and turns.places is not None:
            sums, top = _taken_in_at_once(values, turns.places, top)
        else:
            sums = _taken_in(values[turns.order], turns.sizes, top)
        self._sum[present, block] += sums
        self._top[:, present, block] = top

    def centroid(self, mean_norms: Floats) -> Floats:
        """Cosine to each label's centroid, shape (n_texts, n_labels).

        The dot product with a mean is the mean of the dot products, so no centroid is needed,
        only its length.

        Args:
            mean_norms: length of each label's mean vector, shape (n_labels,).
        """
        divisor = np.maximum(self._counts, 1) * np.maximum(mean_norms, 1e-12)
        cosine = self._sum.T / divisor
        return np.where(self._counts > 0, cosine, MISSING).astype(np.float32)

    def nearest(self) -> Floats:
        """Similarity to each label's nearest example, shape (n_texts, n_labels)."""
        nearest: Floats = self._top[-1].T.copy()
        return nearest

    def nearest_mean(self) -> Floats:
        """Mean over the `n_nearest` nearest examples, or all where there are fewer."""
        n_nearest = len(self._top)
        used = np.clip(self._counts, 1, n_nearest)
        total = self._top.sum(axis=0).T - MISSING * (n_nearest - used)
        return np.where(self._counts > 0, total / used, MISSING).astype(np.float32)


def _taken_in(similarity: Floats, sizes: Ints, top: Floats) -> Floats:
    """Let the examples' similarities into `top`; their sum for each label.

    Args:
        similarity: shape (n_new, n_texts), turn by turn.
        sizes: of the turns.
        top: the largest so far, shape (n_nearest, n_present, n_texts), ascending; changed in place.
    """
    sums = np.zeros(top.shape[1:], dtype=np.float32)
    end = 0
    for size in sizes:
        values, end = similarity[end : end + size], end + size
        sums[:size] += values
        for best in top[::-1, :size]:
            smaller = np.minimum(values, best)
            np.maximum(values, best, out=best)
            values = smaller
    return sums


def _taken_in_at_once(similarity: Floats, places: Ints, top: Floats) -> tuple[Floats, Floats]:
    """As `_taken_in`, bit by bit, without a step for each turn; the sums and the new `top`.

    Args:
        similarity: shape (n_new, n_texts), in the order of the examples.
        places: of `Turns`.
        top: the largest so far, shape (n_nearest, n_present, n_texts), ascending.
    """
    padding = np.zeros((1, similarity.shape[1]), dtype=np.float32)
    values = np.concatenate([similarity, padding])[places]
    # Not `sum`, which takes another order where there is one label.
    sums = np.add.accumulate(values, axis=0)[-1]
    values[places == len(similarity)] = MISSING
    every = np.concatenate([top, values])
    if len(top) == 1:
        return sums, every.max(axis=0, keepdims=True)
    # Along the last axis, where what is sorted lies together.
    ranked = np.sort(np.moveaxis(every, 0, -1), axis=-1)
    return sums, np.moveaxis(ranked[..., -len(top) :], -1, 0)
