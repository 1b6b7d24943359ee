"""What novel texts are about: groups of them that are as alike as texts of one label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

NOVEL_SHARE = 0.2
"""Of all texts, the most novel ones, that are looked at. A new topic close to a known label is
only a little novel: of a held-out label of Banking77 (25 texts among 4,400) the upper 5 % hold 14
texts, the upper 20 % hold 22."""

MOST_GROUPED = 3_000
"""Texts that are grouped at most: their distances take 72 MB."""

LEAST_GROUP = 8
"""Texts of a group that is worth a test: fewer rarely tell anything after the correction."""

LIKENESS = 0.75
"""Where groups are cut, from the likeness of any two texts (0) to that of two of a label (1).
At 1 a label falls into several groups, at 0.5 neighbours join it."""


def novel_groups(vectors: Floats, novelty: Doubles, likeness: float) -> list[Ints]:
    """Groups of the most novel texts, the largest first, each as ascending positions.

    Nothing here knows which sample a text is from. So under "both are drawn alike" every group's
    texts are split between the samples as any others are, and an exact test of that holds.

    Args:
        vectors: embeddings of unit length, shape (n_texts, dim).
        novelty: higher is stranger, shape (n_texts,).
        likeness: cosine similarity that the texts of a group have on average at least.

    Source: average linkage, Sokal and Michener (1958).
    """
    n_novel = min(MOST_GROUPED, round(NOVEL_SHARE * len(novelty)))
    if n_novel < max(2, LEAST_GROUP):
        return []
    novel = np.argsort(-novelty, kind="stable")[:n_novel]
    found = AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="average", distance_threshold=1 - likeness
    ).fit_predict(vectors[novel])
    groups = [np.sort(novel[found == group]) for group in range(found.max() + 1)]
    large = [group for group in groups if len(group) >= LEAST_GROUP]
    return sorted(large, key=lambda group: (-len(group), int(group[0])))


def label_likeness(vectors: Floats, labels: Ints) -> float:
    """The cosine similarity at which `novel_groups` cuts, from labelled texts; see `LIKENESS`.

    Args:
        vectors: embeddings of unit length, shape (n_texts, dim).
        labels: label positions, shape (n_texts,).
    """
    whole = _mean_cosine(vectors)
    parts = [vectors[labels == label] for label in np.unique(labels)]
    within = [_mean_cosine(part) for part in parts if len(part) > 1]
    return whole + LIKENESS * (float(np.mean(within)) - whole) if within else whole


def most_typical(vectors: Floats, n: int) -> Ints:
    """Positions of the `n` texts nearest to the middle of all, nearest first."""
    middle = vectors.mean(axis=0)
    return np.argsort(-(vectors @ middle), kind="stable")[:n].astype(np.int64)


def _mean_cosine(vectors: Floats) -> float:
    """Over all pairs of different rows, at least two of them."""
    n = len(vectors)
    if n < 2:
        return 0.0
    total = float(np.square(vectors.sum(axis=0, dtype=np.float64)).sum())
    return (total - n) / (n * (n - 1))
