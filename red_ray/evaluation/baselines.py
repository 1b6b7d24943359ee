"""What the model has to beat, on the same rows and the same embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from red_ray.core.evidence import Column
from red_ray.core.partition import Subsets
from red_ray.experts import LogisticRegressionExpert
from red_ray.model import RedModel

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def majority(model: RedModel, n_texts: int) -> Ints:
    """The most frequent training label for every text."""
    return np.full(n_texts, int(np.bincount(model.example_labels).argmax()))


def flat(model: RedModel, vectors: Floats, *, seed_rows_only: bool = False) -> Ints:
    """Logistic regression, C=10, over all labels; on the rows that the model ended with.

    The model's gate is that very fit, and is used where there is one over the plain vectors.

    Args:
        model: whose rows to learn from.
        vectors: embeddings of the texts, shape (n_texts, dim).
        seed_rows_only: learn from the rows that the user labelled alone.

    Raises:
        ValueError: they have fewer than two labels.
    """
    vectors = model.plain_vectors(vectors)
    n_rows = model.n_seed if seed_rows_only else len(model.example_labels)
    gate = model.gate if model.tuned is None else None
    if gate is not None and n_rows == len(model.example_labels):
        return _best(gate.score(vectors))
    expert = LogisticRegressionExpert(len(model.labels))
    expert.fit(model.example_vectors[:n_rows], model.example_labels[:n_rows])
    return _best(expert.score(vectors))


def experts_only(evidence: Floats) -> Ints:
    """The label whose own expert is surest of it; no gate, no router."""
    return np.asarray(evidence[:, :, Column.EXPERT].argmax(axis=1))


def oracle_routed(evidence: Floats, subsets: Subsets, true: Ints) -> Ints:
    """The reference's protocol: the true label names the expert. A ceiling, never a result.

    A text whose true label no expert knows gets the label -1.
    """
    subset_of = {label: list(subset) for subset in subsets for label in subset}
    chosen = np.full(len(true), -1)
    for row, label in enumerate(true):
        if label >= 0:
            subset = subset_of[int(label)]
            chosen[row] = subset[int(evidence[row, subset, Column.EXPERT].argmax())]
    return chosen


def _best(scores: Floats) -> Ints:
    return np.asarray(scores[:, :-1].argmax(axis=1))
