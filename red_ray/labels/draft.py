"""A model between two sets of labels: rows and subsets as they shall be, experts as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from red_ray.core.partition import Subsets
from red_ray.core.text import text_key
from red_ray.model import RedModel
from red_ray.training.crossfit import Refused

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
T = TypeVar("T")

NEW = -1
"""Origin of a row or an expert that was not there before."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled rows, those of the user first.

    Attributes:
        texts: the texts.
        vectors: their embeddings, shape (n_rows, dim).
        labels: positions of their labels, shape (n_rows,).
        n_seed: how many of them, the first ones, the user labelled.
        origins: where each stood before the change, `NEW` where it did not, shape (n_rows,).
        redrawn: whether the fold of a row is drawn anew, shape (n_rows,).
    """

    texts: tuple[str, ...]
    vectors: Floats
    labels: Ints
    n_seed: int
    origins: Ints
    redrawn: Bools

    def take(self, rows: Ints) -> Rows:
        """The rows at these positions, ascending."""
        return Rows(
            texts=tuple(self.texts[row] for row in rows),
            vectors=self.vectors[rows],
            labels=self.labels[rows],
            n_seed=int((rows < self.n_seed).sum()),
            origins=self.origins[rows],
            redrawn=self.redrawn[rows],
        )

    def with_more(
        self, texts: Sequence[str], vectors: Floats, labels: Ints, *, judged: bool
    ) -> Rows:
        """With new rows: behind the user's, or behind all where a judge labelled them."""
        at = len(self.texts) if judged else self.n_seed
        n = len(texts)
        where = np.full(n, at)
        return Rows(
            texts=(*self.texts[:at], *texts, *self.texts[at:]),
            vectors=np.insert(self.vectors, where, vectors, axis=0),
            labels=np.insert(self.labels, where, labels),
            n_seed=self.n_seed + (0 if judged else n),
            origins=np.insert(self.origins, where, NEW),
            redrawn=np.insert(self.redrawn, where, True),
        )


@dataclass(frozen=True, slots=True)
class Draft:
    """See the module.

    Attributes:
        labels: names.
        descriptions: of each label.
        subsets: the labels of each expert.
        origins: which expert each was before, `NEW` for none.
        rows: what it learns from.
        refused: what its experts learn beside them.
        changed: positions of the experts whose labels or rows are others than before.
    """

    labels: tuple[str, ...]
    descriptions: tuple[str, ...]
    subsets: Subsets
    origins: tuple[int, ...]
    rows: Rows
    refused: Refused
    changed: frozenset[int] = frozenset()

    @classmethod
    def of(cls, model: RedModel, refused: Refused | None = None) -> Draft:
        """Nothing changed yet."""
        n_rows, n_experts = len(model.example_labels), len(model.subsets)
        dim = model.example_vectors.shape[1]
        nothing = Refused((), np.zeros((0, dim), dtype=np.float32), ((),) * n_experts)
        return cls(
            labels=model.labels,
            descriptions=model.descriptions,
            subsets=model.subsets,
            origins=tuple(range(n_experts)),
            rows=Rows(
                texts=model.example_texts,
                vectors=model.example_vectors,
                labels=model.example_labels,
                n_seed=model.n_seed,
                origins=np.arange(n_rows),
                redrawn=np.zeros(n_rows, dtype=bool),
            ),
            refused=nothing if refused is None else refused,
        )

    def expert_of(self, label: int) -> int:
        """Position of the expert that decides on a label."""
        return next(p for p, subset in enumerate(self.subsets) if label in subset)

    def with_label(self, name: str, description: str, position: int) -> Draft:
        """With a label behind all others, which stays so; the expert at `position` takes it."""
        subsets = list(self.subsets)
        subsets[position] = (*subsets[position], len(self.labels))
        return replace(
            self,
            labels=(*self.labels, name),
            descriptions=(*self.descriptions, description),
            subsets=tuple(subsets),
            changed=self.changed | {position},
        )

    def renamed(self, label: int, name: str, description: str | None = None) -> Draft:
        """With another name for a label, in its place; None keeps the description."""
        names, described = list(self.labels), list(self.descriptions)
        names[label] = name
        if description is not None:
            described[label] = description
        return replace(self, labels=tuple(names), descriptions=tuple(described))

    def relabelled(self, rows: Bools, label: int) -> Draft:
        """With some rows under another label; their folds stay."""
        labels = np.where(rows, label, self.rows.labels)
        gained = self.expert_of(label)
        lost = {self.expert_of(int(old)) for old in np.unique(self.rows.labels[rows])}
        changed = self.changed | {gained} | lost
        return replace(self, rows=replace(self.rows, labels=labels), changed=changed)

    def without_rows(self, rows: Bools) -> Draft:
        """Without some rows."""
        return replace(self, rows=self.rows.take(np.flatnonzero(~rows)))

    def without_label(self, label: int) -> Draft:
        """Without a label that has no row left; those behind it move up.

        An expert that had no other label goes with it.
        """
        position = self.expert_of(label)
        subsets = [tuple(one for one in subset if one != label) for subset in self.subsets]
        moved = tuple(tuple(one - (one > label) for one in subset) for subset in subsets)
        labels = self.rows.labels - (self.rows.labels > label)
        draft = replace(
            self,
            labels=_without(self.labels, label),
            descriptions=_without(self.descriptions, label),
            subsets=moved,
            rows=replace(self.rows, labels=labels),
            changed=self.changed | {position},
        )
        return draft if moved[position] else draft.without_expert(position)

    def without_expert(self, position: int) -> Draft:
        """Without an expert that has no label; those behind it move up."""
        changed = {one - (one > position) for one in self.changed if one != position}
        return replace(
            self,
            subsets=_without(self.subsets, position),
            origins=_without(self.origins, position),
            refused=replace(self.refused, of_expert=_without(self.refused.of_expert, position)),
            changed=frozenset(changed),
        )

    def moved(self, label: int, position: int) -> Draft:
        """With a label at another expert; the one it leaves goes where it has no other."""
        before = self.expert_of(label)
        subsets = [tuple(one for one in subset if one != label) for subset in self.subsets]
        subsets[position] = tuple(sorted((*subsets[position], label)))
        draft = replace(
            self.refusing(self.refused.of_expert[before], position),
            subsets=tuple(subsets),
            changed=self.changed | {before, position},
        )
        return draft if subsets[before] else draft.without_expert(before)

    def with_rows(self, rows: Rows) -> Draft:
        """With other rows; a refused text that is one of them is refused no more."""
        labelled = set(map(text_key, rows.texts))
        kept = [text_key(text) not in labelled for text in self.refused.texts]
        of_expert = tuple(
            tuple(one for one in theirs if kept[one]) for theirs in self.refused.of_expert
        )
        return replace(self, rows=rows, refused=replace(self.refused, of_expert=of_expert))

    def refusing(self, refused: Sequence[int], position: int) -> Draft:
        """With refused texts as noise of one more expert."""
        theirs = list(self.refused.of_expert)
        theirs[position] = tuple(sorted({*theirs[position], *refused}))
        return replace(self, refused=replace(self.refused, of_expert=tuple(theirs)))

    def divided(self, position: int, away: Sequence[int]) -> Draft:
        """With some labels of an expert at a new one behind all others."""
        subsets = list(self.subsets)
        subsets[position] = tuple(one for one in subsets[position] if one not in set(away))
        return replace(
            self,
            subsets=(*subsets, tuple(sorted(away))),
            origins=(*self.origins, NEW),
            refused=replace(
                self.refused,
                of_expert=(*self.refused.of_expert, self.refused.of_expert[position]),
            ),
            changed=self.changed | {position, len(subsets)},
        )


def _without(items: tuple[T, ...], position: int) -> tuple[T, ...]:
    return (*items[:position], *items[position + 1 :])
