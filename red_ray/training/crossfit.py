"""What models that had not seen a run's labelled rows said of them: kept for changes of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from red_ray.config import RunConfig
from red_ray.data.splits import stratified_folds
from red_ray.encoding import TunedWeights

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

HELD_ROWS, HELD_CELLS, MIN_HELD_ROWS = 20_000, 8_000_000, 2_000
"""Rows of the user that are held back in turn, at most, and as many of the judge's: more say
nothing new of a router with a few weights, and their evidence, a cell for each label, would grow
with the square of the labels. 8,000 rows at 1,000 labels."""


MAX_CELLS = 2**24
"""Scores that are kept at most: 32 MB. Of more, a change of labels cross-fits every expert."""

MAX_REFUSED = 2**14
"""Refused texts that are kept at most: 25 MB of embeddings with 384 dimensions."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Texts without a label that a judge denied some labels: hard negatives of their experts.

    Attributes:
        texts: the texts.
        vectors: their embeddings, shape (n_refused, dim).
        of_expert: positions of the texts that each expert learns as noise.
    """

    texts: tuple[str, ...]
    vectors: Floats
    of_expert: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Crossfit:
    """Held-out scores of the labelled rows, in the model's order of rows, labels and experts.

    Attributes:
        folds: in which each row was held back, -1 for never, shape (n_rows,).
        gate: log-probabilities by the gate, shape (n_rows, n_labels), or None without one; what
            a row of fold -1 holds is nothing.
        experts: the same by each expert, shape (n_rows, labels of its subset + 1).
        refused: what the experts learn beside the labelled rows.
        encoders: of a run with SetFit experts, what was fine-tuned without each fold.
        gone: rows that left with a change of labels, by `text_key`, with the fold in which each
            was held back, -1 for never: what was fitted before that has learned them.
    """

    folds: Ints
    gate: Floats | None
    experts: tuple[Floats, ...]
    refused: Refused
    encoders: tuple[TunedWeights, ...] = ()
    gone: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_small(self) -> bool:
        """Whether it is kept."""
        n_columns = sum(scores.shape[1] for scores in self.experts)
        n_columns += 0 if self.gate is None else self.gate.shape[1]
        n_cells = int((self.folds >= 0).sum()) * n_columns
        return n_cells <= MAX_CELLS and len(self.refused.texts) <= MAX_REFUSED


def draw_folds(config: RunConfig, labels: Ints, n_first: int, n_labels: int) -> Ints:
    """The fold of each labelled row, -1 for one that is never held back, shape (n_rows,).

    Args:
        config: seed and number of folds.
        labels: of the rows, the user's first, shape (n_rows,).
        n_first: how many are the user's; all of them where a judge labelled the first ones.
        n_labels: how many labels there are.
    """
    rng = np.random.default_rng([config.seed, 2])
    folds = stratified_folds(labels, config.router.folds, rng)
    first = held_first_rows(config, n_first, n_labels)
    judged = np.arange(len(labels) - n_first) < max(int(first.sum()), MIN_HELD_ROWS)
    folds[~np.concatenate([first, judged])] = -1
    return folds


def held_first_rows(config: RunConfig, n_first: int, n_labels: int) -> Bools:
    """Which of the first rows are ever held back: always the same, so that estimates compare."""
    most = min(HELD_ROWS, max(MIN_HELD_ROWS, HELD_CELLS // n_labels))
    rng = np.random.default_rng([config.seed, 9])
    held = np.zeros(n_first, dtype=bool)
    held[rng.permutation(n_first)[:most]] = True
    return held
