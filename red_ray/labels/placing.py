"""Which expert takes a label, and which ones a change concerns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from red_ray.core.partition import label_embeddings, partition
from red_ray.encoding import plain_part
from red_ray.labels.draft import Draft
from red_ray.model import TextEncoder
from red_ray.training.job import readable

Floats = NDArray[np.float32]

N_NEAR = 3
"""Nearest labels whose experts learn of a change: they are whom the label is mistaken for."""

MOST = 4
"""Experts that a change refits at most, but for those whose own labels change: these all are."""

MOST_TIMES = 2
"""So many times `subset_size` an expert may grow; then it becomes two."""


def label_points(draft: Draft, encoder: TextEncoder) -> Floats:
    """Where each label lies, as the partition sees it, shape (n_labels, dim)."""
    pairs = zip(draft.descriptions, draft.labels, strict=True)
    described = [description or readable(name) for description, name in pairs]
    names = plain_part(encoder).encode(described)
    return label_embeddings(draft.rows.vectors, draft.rows.labels, names)


def near_labels(points: Floats, label: int, n: int = N_NEAR) -> list[int]:
    """The labels nearest to one, itself left out, nearest first; ties by position."""
    similarity = points @ points[label]
    similarity[label] = -np.inf
    nearest = np.argsort(-similarity, kind="stable")[: min(n, len(points) - 1)]
    return [int(one) for one in nearest]


def with_room(draft: Draft, near: Sequence[int], size: int, but: int | None = None) -> int | None:
    """Of the experts of some labels the first that is not full; None where all are."""
    for label in near:
        position = draft.expert_of(label)
        if position != but and len(draft.subsets[position]) < size:
            return position
    return None


def receiving(draft: Draft, near: Sequence[int], size: int) -> int:
    """The expert that takes a new label: the nearest with room, else the nearest.

    Args:
        draft: without the label.
        near: labels nearest to it, nearest first.
        size: labels that an expert has at most where another near one has room.
    """
    found = with_room(draft, near, size)
    return draft.expert_of(near[0]) if found is None else found


def balanced(draft: Draft, points: Floats, size: int, seed: int) -> Draft:
    """With no changed expert much too large, and none of a single label where a near one has room.

    Args:
        draft: changed.
        points: where its labels lie, shape (n_labels, dim).
        size: labels that an expert should have at most.
        seed: of ties.
    """
    for position in sorted(draft.changed):
        if len(draft.subsets[position]) >= MOST_TIMES * size:
            draft = draft.divided(position, _half(points, draft.subsets[position], size, seed))
    for label in _alone(draft):
        home = draft.expert_of(label)
        if len(draft.subsets[home]) > 1:  # another lone one joined it meanwhile
            continue
        other = with_room(draft, near_labels(points, label), size, but=home)
        if other is not None:
            draft = draft.moved(label, other)
    return draft


def _half(points: Floats, subset: Sequence[int], size: int, seed: int) -> list[int]:
    rng = np.random.default_rng([seed, 0])
    parts = partition(points[list(subset)], subset_size=size, strategy="similar", rng=rng)
    return [subset[one] for part in parts[1:] for one in part]


def _alone(draft: Draft) -> list[int]:
    changed = (draft.subsets[position] for position in sorted(draft.changed))
    return [subset[0] for subset in changed if len(subset) == 1]


def concerned(draft: Draft, points: Floats, labels: Sequence[int]) -> tuple[int, ...]:
    """Positions of the experts to refit: the changed ones, and holders of near labels up to `MOST`.

    Args:
        draft: changed.
        points: where its labels lie, shape (n_labels, dim).
        labels: those that the change is about, as they are in the draft.
    """
    chosen = set(draft.changed)
    for label in labels:
        for near in near_labels(points, label):
            if len(chosen) < MOST:
                chosen.add(draft.expert_of(near))
    return tuple(sorted(chosen))
