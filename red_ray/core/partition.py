"""Cuts the labels into subsets, one expert each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Subsets = tuple[tuple[int, ...], ...]

NAME_WEIGHT = 0.25
"""Share of the name's or description's embedding in a label's embedding: the examples say more
about where a label lies than its name, but a label with one example needs the name."""

UMAP_LABELS_PER_DIM = 4
"""UMAP needs several labels per dimension it keeps; below that it would only add noise."""


def label_embeddings(vectors: Floats, labels: Ints, name_vectors: Floats) -> Floats:
    """Where each label lies: the mean of its examples blended with its name or description.

    Args:
        vectors: embeddings of the labelled rows, shape (n_rows, dim), rows of unit length.
        labels: label index of each row, shape (n_rows,).
        name_vectors: embeddings of the labels' descriptions, shape (n_labels, dim), unit length.

    Returns:
        Shape (n_labels, dim), rows of unit length.
    """
    sums = np.zeros_like(name_vectors)
    np.add.at(sums, labels, vectors)
    blended = (1 - NAME_WEIGHT) * unit_rows(sums) + NAME_WEIGHT * name_vectors
    return unit_rows(blended)


def unit_rows(matrix: Floats) -> Floats:
    """Scale each row to unit length; a row of zeros stays zero."""
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.maximum(norms, 1e-12), dtype=np.float32)


def enough_labels_for_umap(n_labels: int, n_dims: int) -> bool:
    """Whether a reduction of `n_labels` points to `n_dims` dimensions means anything."""
    return n_labels >= UMAP_LABELS_PER_DIM * n_dims


def partition(
    embeddings: Floats,
    *,
    subset_size: int,
    strategy: Literal["similar", "dissimilar", "random"],
    rng: np.random.Generator,
) -> Subsets:
    """Cut the labels greedily into subsets of at most `subset_size`.

    `similar` opens a subset with the label that has the nearest neighbour among those left and
    adds the label most similar to the mean of the subset so far; `dissimilar` is the reference's
    rule, the least similar one; `random` deals the labels out.

    Args:
        embeddings: one per label, shape (n_labels, dim), rows of unit length.
        subset_size: most labels in a subset.
        strategy: which labels share an expert.
        rng: used by `random` and, in the other two, for nothing but exact ties.

    Returns:
        Subsets of label indices, each sorted; every label stands in exactly one, and their
        sizes differ by at most one.
    """
    n_labels = len(embeddings)
    sizes = _subset_sizes(n_labels, subset_size)
    order = rng.permutation(n_labels)
    if strategy == "random":
        ends = np.cumsum(sizes)
        groups = [order[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    else:
        groups = _greedy(embeddings[order], sizes, nearest=strategy == "similar")
        groups = [order[group] for group in groups]
    return tuple(tuple(sorted(int(label) for label in group)) for group in groups)


def _subset_sizes(n_labels: int, subset_size: int) -> list[int]:
    """As few subsets as fit, of near-equal size, so that none ends with one label."""
    n_subsets = -(-n_labels // subset_size)
    base, larger = divmod(n_labels, n_subsets)
    return [base + 1] * larger + [base] * (n_subsets - larger)


def _greedy(embeddings: Floats, sizes: Sequence[int], *, nearest: bool) -> list[Ints]:
    similarity = embeddings @ embeddings.T
    sign = 1.0 if nearest else -1.0
    left = np.ones(len(embeddings), dtype=bool)
    partners = _Partners(sign * similarity)
    groups = []
    for size in sizes:
        first = partners.most_extreme(left)
        group = [first]
        left[first] = False
        to_group = similarity[first].copy()
        while len(group) < size:
            scores = np.where(left, sign * to_group, -np.inf)
            chosen = int(scores.argmax())
            group.append(chosen)
            left[chosen] = False
            to_group += similarity[chosen]
        groups.append(np.array(group, dtype=np.int64))
    return groups


class _Partners:
    """The best partner of each label among those left.

    It changes only where it was taken, so that all subsets together cost near the square of the
    number of labels, not its cube.
    """

    def __init__(self, scores: Floats) -> None:
        np.fill_diagonal(scores, -np.inf)
        self._scores = scores
        self._best = scores.argmax(axis=1)

    def most_extreme(self, left: NDArray[np.bool_]) -> int:
        """The label left whose best partner among those left scores highest."""
        rows = np.flatnonzero(left)
        if len(rows) == 1:
            return int(rows[0])
        stale = rows[~left[self._best[rows]]]
        self._best[stale] = rows[self._scores[np.ix_(stale, rows)].argmax(axis=1)]
        return int(rows[self._scores[rows, self._best[rows]].argmax()])
