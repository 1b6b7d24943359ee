"""What a change did to the other labels: accuracy of each before and after, on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from red_ray.calibration import CROSS_FITTED, ROWS, calibration_rows
from red_ray.data.inputs import KnownRows
from red_ray.labels.draft import NEW
from red_ray.model import RedModel, TextEncoder

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CHANCE = 0.05
"""Of a label whose rows a change only shuffles: how often it may seem worse beyond chance."""


@dataclass(frozen=True, slots=True)
class LabelEffect:
    """A label's rows before and after.

    Attributes:
        label: its name after the change.
        n_rows: rows of it.
        before: share of them whose best label was the true one; of a merged label, each row by the
            name that it had. None of a label that is new or a part of another, or of rows that were
            not there.
        after: the same by the changed model.
        n_lost: rows that were right and are wrong.
        n_gained: rows that were wrong and are right.
        is_altered: whether the change made it or altered it.
    """

    label: str
    n_rows: int
    before: float | None
    after: float
    n_lost: int
    n_gained: int
    is_altered: bool = False

    @property
    def is_regression(self) -> bool:
        """Whether it lost more rows than it gained."""
        return self.before is not None and self.n_lost > self.n_gained

    @property
    def is_beyond_chance(self) -> bool:
        """Whether rows that a coin turns one way or the other would seldom be lost so often.

        The exact sign test, one-sided, of this label alone: five rows lost and none gained are the
        fewest that tell.
        """
        n = self.n_lost + self.n_gained
        if not self.is_regression:
            return False
        return bool(binomtest(self.n_lost, n, alternative="greater").pvalue <= CHANCE)


@dataclass(frozen=True, slots=True)
class Effect:
    """See the module.

    Attributes:
        source: `rows` for calibration rows, `cross_fitted` for training rows by models that had
            not seen them: an estimate.
        n_rows: rows of labels that are the same before and after.
        before: accuracy on them; None where there are none.
        after: the same by the changed model.
        n_lost: of these rows those that were right and are wrong.
        n_gained: those that were wrong and are right.
        labels: of every label that has rows.
        own: of labels that are new or altered and have no calibration row: on their own examples,
            each by models that had not seen it, an estimate.
        unknown: such labels of which no example was held back, so that nothing is known of them.
    """

    source: str
    n_rows: int
    before: float | None
    after: float | None
    n_lost: int
    n_gained: int
    labels: tuple[LabelEffect, ...]
    own: tuple[LabelEffect, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def regressions(self) -> tuple[LabelEffect, ...]:
        """Labels that got worse, by the rows they lost, most first."""
        worse = [one for one in self.labels if one.is_regression]
        return tuple(sorted(worse, key=lambda one: (one.n_gained - one.n_lost, one.label)))


def measure(
    before: RedModel,
    after: RedModel,
    old_folds: Ints,
    folds: Ints,
    origins: Ints,
    known: tuple[KnownRows, KnownRows] | None,
    encoder: TextEncoder,
) -> Effect:
    """Compare two models on the calibration rows, or on cross-fitted training rows without them.

    Args:
        before: the model before the change.
        after: the model after it.
        old_folds: of the rows of `before`, shape (n_rows_before,).
        folds: of the rows of `after`, shape (n_rows,).
        origins: where each row of `after` stood in `before`, `NEW` for none, shape (n_rows,).
        known: calibration rows under their old and under their new names, if any.
        encoder: of both.
    """
    found = _on_training_rows(before, after, old_folds, folds, origins)
    on_rows = found if known is None else _on_rows(before, after, *known, encoder)
    return _with_bare(on_rows, found, _altered(before, after, origins))


def _altered(before: RedModel, after: RedModel, origins: Ints) -> frozenset[str]:
    """Labels that are new, got rows of another one, or gave it some."""
    there = np.flatnonzero(origins != NEW)
    olds = before.example_labels[origins[there]]
    pairs = zip(olds, after.example_labels[there], strict=True)
    names = ((before.labels[old], after.labels[new]) for old, new in pairs)
    moved = {name for pair in names if pair[0] != pair[1] for name in pair}
    return frozenset(after.labels) & (moved | (set(after.labels) - set(before.labels)))


def _with_bare(effect: Effect, on_training_rows: Effect, altered: frozenset[str]) -> Effect:
    """With what is known of altered labels that none of its rows has."""
    bare = altered - {one.label for one in effect.labels}
    own = tuple(one for one in on_training_rows.labels if one.label in bare)
    return replace(effect, own=own, unknown=tuple(sorted(bare - {one.label for one in own})))


def _on_training_rows(
    before: RedModel, after: RedModel, old_folds: Ints, folds: Ints, origins: Ints
) -> Effect:
    right = _by_row(before, old_folds)
    was_right, was_seen = np.zeros(len(origins), dtype=bool), np.zeros(len(origins), dtype=bool)
    there = np.flatnonzero(origins != NEW)
    for row in there:
        known_before = right.get(int(origins[row]))
        was_seen[row], was_right[row] = known_before is not None, bool(known_before)
    now, old_labels = _by_row(after, folds), set(before.labels)
    # A new row of an old label compares with nothing.
    rows = np.array(
        [
            row
            for row in sorted(now)
            if was_seen[row] or after.labels[after.example_labels[row]] not in old_labels
        ],
        dtype=np.int64,
    )
    names = [after.labels[label] for label in after.example_labels[rows]]
    old_names = [
        before.labels[before.example_labels[origins[row]]] if was_seen[row] else "" for row in rows
    ]
    return _effect(
        CROSS_FITTED,
        names,
        old_names,
        was_right[rows],
        np.array([now[int(row)] for row in rows], dtype=bool),
    )


def _by_row(model: RedModel, folds: Ints) -> dict[int, bool]:
    """Of the trusted rows that were held back, whether the model without them was right."""
    n_trusted = model.n_seed if model.labelled_by == "user" else len(folds)
    rows = np.flatnonzero(folds[:n_trusted] >= 0)
    if len(rows) != len(model.calibration.right):  # cross-fitted otherwise: by an older version
        return {}
    return {int(row): bool(right) for row, right in zip(rows, model.calibration.right, strict=True)}


def _on_rows(
    before: RedModel, after: RedModel, old: KnownRows, new: KnownRows, encoder: TextEncoder
) -> Effect:
    was = calibration_rows(before, old, encoder).right
    is_now = calibration_rows(after, new, encoder).right
    right_of = dict(zip(old.rows.texts, was, strict=True))
    name_of = dict(zip(old.rows.texts, old.rows.labels, strict=True))
    return _effect(
        ROWS,
        list(new.rows.labels),
        [name_of.get(text, "") for text in new.rows.texts],
        np.array([bool(right_of.get(text)) for text in new.rows.texts], dtype=bool),
        np.asarray(is_now, dtype=bool),
    )


def _effect(
    source: str, names: Sequence[str], old_names: Sequence[str], was: Bools, now: Bools
) -> Effect:
    """From each row's label after and before (empty where it was not there), right or not."""
    labels, of_row = np.array(names, dtype=object), np.array(old_names, dtype=object)
    altered = {name for name, old in zip(names, old_names, strict=True) if name != old}
    others = np.array([name not in altered for name in names], dtype=bool)
    lost, gained = was & ~now, ~was & now
    found = []
    for name in sorted(set(names)):
        rows = labels == name
        olds = of_row[rows]
        # Whole labels of before: all rows that had their names are its own now.
        whole = bool((olds != "").all()) and bool((labels[np.isin(of_row, olds)] == name).all())
        found.append(
            LabelEffect(
                label=name,
                n_rows=int(rows.sum()),
                before=float(was[rows].mean()) if whole else None,
                after=float(now[rows].mean()),
                n_lost=int(lost[rows].sum()) if whole else 0,
                n_gained=int(gained[rows].sum()) if whole else 0,
                is_altered=name in altered,
            )
        )
    n_rows = int(others.sum())
    return Effect(
        source=source,
        n_rows=n_rows,
        before=float(was[others].mean()) if n_rows else None,
        after=float(now[others].mean()) if n_rows else None,
        n_lost=int(lost[others].sum()),
        n_gained=int(gained[others].sum()),
        labels=tuple(found),
    )
