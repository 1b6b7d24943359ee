"""What is known about a text and a label before anything is decided: eight numbers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from red_ray.core.partition import Subsets

Floats = NDArray[np.float32]

LOG_FLOOR = np.float32(-20.0)
"""Log-probability of a label that a model has never seen; near the least that float32 fits give."""


class Column(IntEnum):
    """Columns of an evidence array, last axis."""

    GATE = 0
    EXPERT = 1
    NOISE = 2
    CENTROID = 3
    NEAREST = 4
    NEAREST_3 = 5
    LEXICAL_CENTROID = 6
    LEXICAL_NEAREST = 7


GATE_COLUMNS = (Column.GATE,)
EXPERT_COLUMNS = (Column.EXPERT, Column.NOISE)
SIMILARITY_COLUMNS = (Column.CENTROID, Column.NEAREST, Column.NEAREST_3)
LEXICAL_COLUMNS = (Column.LEXICAL_CENTROID, Column.LEXICAL_NEAREST)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the evidence about some texts, as their makers give them.

    Attributes:
        gate: log-probabilities of the flat model, shape (n_texts, n_labels), or None.
        experts: log-probabilities of each expert, shape (n_texts, labels of its subset + 1),
            the last column noise.
        similarity: centroid, nearest, mean of three nearest; each (n_texts, n_labels).
        lexical: centroid, nearest, by n-grams; each (n_texts, n_labels), or None.
    """

    gate: Floats | None
    experts: tuple[Floats, ...]
    similarity: tuple[Floats, Floats, Floats]
    lexical: tuple[Floats, Floats] | None


def assemble(parts: Parts, subsets: Subsets) -> Floats:
    """Lay the parts out as one array, shape (n_texts, n_labels, len(Column)).

    A column whose part is None stays zero, and a router that was fitted without it never
    reads it. A label's noise is that of its own expert.
    """
    shape = parts.similarity[0].shape
    evidence = np.zeros((*shape, len(Column)), dtype=np.float32)
    if parts.gate is not None:
        evidence[:, :, Column.GATE] = parts.gate
    # All experts at once: a step for each would cost more than the rest where there is one text.
    labels, sizes = _layout(subsets)
    if len(sizes) != len(parts.experts):
        raise ValueError(f"scores of {len(parts.experts)} experts for {len(sizes)} subsets")
    evidence[:, labels, Column.EXPERT] = np.concatenate([s[:, :-1] for s in parts.experts], axis=1)
    noise = np.concatenate([scores[:, -1:] for scores in parts.experts], axis=1)
    evidence[:, labels, Column.NOISE] = np.repeat(noise, sizes, axis=1)
    for column, values in zip(SIMILARITY_COLUMNS, parts.similarity, strict=True):
        evidence[:, :, column] = values
    for column, values in zip(LEXICAL_COLUMNS, parts.lexical or (), strict=False):
        evidence[:, :, column] = values
    return evidence


@lru_cache(maxsize=8)
def _layout(subsets: Subsets) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The labels in the order of the experts' columns, and how many each expert has."""
    labels = np.array([label for subset in subsets for label in subset], dtype=np.int64)
    return labels, np.array([len(subset) for subset in subsets], dtype=np.int64)
