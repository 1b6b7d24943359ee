"""Evidence that needs no fit: how similar a text is to the labelled examples of each label.

Additive per label: a new example changes the evidence of its own label and of no other, so a
pool is kept up to date for the price of its similarities to the new examples alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

MISSING = np.float32(-1.0)
"""Similarity to a label without examples: the least a cosine can be."""

N_NEAREST = 3
"""Nearest examples of a label whose mean is evidence beside the very nearest."""


class LabelSimilarity:
    """Running similarity of some texts to the examples of each label.

    Keeps the sum over the examples and the `N_NEAREST` largest, for each text and label.
    """

    def __init__(self, n_texts: int, n_labels: int) -> None:
        self._sum = np.zeros((n_texts, n_labels), dtype=np.float32)
        self._top = np.full((n_texts, n_labels, N_NEAREST), MISSING)
        self._counts = np.zeros(n_labels, dtype=np.int64)

    def add(self, similarity: Floats, labels: Ints) -> None:
        """Take in new examples.

        Args:
            similarity: dot product of each text with each new example, shape (n_texts, n_new).
            labels: the new examples' labels, shape (n_new,).
        """
        order = np.argsort(labels, kind="stable")
        present, starts = np.unique(labels[order], return_index=True)
        ends = np.append(starts[1:], len(labels))
        for label, start, end in zip(present, starts, ends, strict=True):
            block = similarity[:, order[start:end]]
            self._sum[:, label] += block.sum(axis=1)
            self._top[:, label] = _largest(self._top[:, label], block)
            self._counts[label] += end - start

    def centroid(self, mean_norms: Floats) -> Floats:
        """Cosine to each label's centroid, shape (n_texts, n_labels).

        The dot product with a mean is the mean of the dot products, so no centroid is needed,
        only its length.

        Args:
            mean_norms: length of each label's mean vector, shape (n_labels,).
        """
        divisor = np.maximum(self._counts, 1) * np.maximum(mean_norms, 1e-12)
        return np.where(self._counts > 0, self._sum / divisor, MISSING).astype(np.float32)

    def nearest(self) -> Floats:
        """Similarity to each label's nearest example, shape (n_texts, n_labels)."""
        return np.asarray(self._top.max(axis=2))

    def nearest_mean(self) -> Floats:
        """Mean over the `N_NEAREST` nearest examples, or all where there are fewer."""
        used = np.clip(self._counts, 1, N_NEAREST)
        total = self._top.sum(axis=2) - MISSING * (N_NEAREST - used)
        return np.where(self._counts > 0, total / used, MISSING).astype(np.float32)


def _largest(top: Floats, block: Floats) -> Floats:
    """The `N_NEAREST` largest of each row of `top` and `block` together."""
    joined = np.concatenate([top, block], axis=1)
    return np.asarray(np.partition(joined, -N_NEAREST, axis=1)[:, -N_NEAREST:])
