"""From whom a row is held back, so that nothing that has learned it says how well it is known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from red_ray.core.text import text_key
from red_ray.data.splits import stratified_folds
from red_ray.labels.draft import NEW, Draft
from red_ray.model import RedModel
from red_ray.training.crossfit import Crossfit

Ints = NDArray[np.int64]


def folds_of(before: RedModel, crossfit: Crossfit | None, draft: Draft, old: Ints) -> Ints:
    """In which fold each row of a draft is held back, -1 for never, shape (n_rows,).

    Old rows keep their fold; new ones, and those that a split divides, are dealt out anew.

    Of a fine-tuned model only what is new to its encoders is: the encoder of a fold has learned all
    rows but those of the fold, also the ones that left meanwhile.

    Args:
        before: the model before the change.
        crossfit: of it, or None.
        draft: what it shall be.
        old: folds of the rows before the change.
    """
    rows, config = draft.rows, before.config
    was_there = rows.origins != NEW
    folds = np.full(len(rows.texts), -1)
    folds[was_there] = old[rows.origins[was_there]]
    # A row that was never held back is not from now on: of those there are enough.
    dealt = rows.redrawn & (~was_there | (folds >= 0))
    if before.tuned is not None:
        gone = {} if crossfit is None else crossfit.gone
        keys = {row: text_key(rows.texts[row]) for row in np.flatnonzero(~was_there)}
        back = [row for row, key in keys.items() if key in gone]
        folds[back] = [gone[keys[row]] for row in back]
        dealt &= ~was_there
        dealt[back] = False
    drawn = np.flatnonzero(dealt)
    rng = np.random.default_rng([config.seed, 2, len(rows.texts)])
    folds[drawn] = stratified_folds(rows.labels[drawn], config.router.folds, rng)
    return folds if before.tuned is None else _with_one_to_learn(folds, rows.labels)


def _with_one_to_learn(folds: Ints, labels: Ints) -> Ints:
    """With one row not held back of a label that has all of them in one fold: it would be unknown
    where they are held back.
    """
    folds = folds.copy()
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        if (folds[mine] == folds[mine[0]]).all():
            folds[mine[0]] = -1
    return folds


def crossfitted(
    crossfit: Crossfit | None, draft: Draft, positions: frozenset[int]
) -> tuple[int, ...]:
    """Positions of the experts of which held-out scores are wanted: those that are fitted anew, and
    those that have learned a new row already: one that left and is back, or that a judge refused.
    """
    if crossfit is None:
        return tuple(range(len(draft.subsets)))
    new, rows = draft.rows.origins == NEW, draft.rows
    keys = {text_key(rows.texts[row]) for row in np.flatnonzero(new)}
    if not keys.isdisjoint(crossfit.gone):
        return tuple(range(len(draft.subsets)))
    refused = [text_key(text) in keys for text in crossfit.refused.texts]
    of_expert = crossfit.refused.of_expert
    learned = {
        position
        for position, origin in enumerate(draft.origins)
        if origin != NEW and any(refused[one] for one in of_expert[origin])
    }
    return tuple(sorted(positions | learned))


def gone_rows(
    before: RedModel, crossfit: Crossfit | None, draft: Draft, old: Ints
) -> Mapping[str, int]:
    """Rows that left by this change or an earlier one, and are not back; see `Crossfit.gone`."""
    left = np.setdiff1d(np.arange(len(old)), draft.rows.origins)
    gone = {} if crossfit is None else dict(crossfit.gone)
    gone |= {text_key(before.example_texts[row]): int(old[row]) for row in left}
    back = set(map(text_key, draft.rows.texts)) if gone else set()
    return {key: fold for key, fold in gone.items() if key not in back}
