"""Figures of quality of a cell. An unreadable answer is wrong, and stays in every denominator.

No figure here drops a row: `UNREADABLE` is an outcome of its own beside the labels, that is never
true. How it enters each figure is said where that is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.matrix.methods.base import UNREADABLE
from red_ray.core.metrics import wilson_interval

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Figures = dict[str, Any]
Statistic = Callable[["Counts"], Floats]

N_RESAMPLES = 300
"""As `red_ray.core.metrics.bootstrap_interval`; here all figures are of the same draws."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the figures of some rows are made of, or of several draws of rows at once.

    Attributes:
        n: rows, of each draw.
        hits: rows of each label that were answered right, shape (..., n_labels).
        true: rows of each label, shape (..., n_labels).
        answered: rows answered with each label, and last the unreadable, (..., n_labels + 1).
    """

    n: int
    hits: Ints
    true: Ints
    answered: Ints

    @classmethod
    def of(cls, true: Ints, answered: Ints, n_labels: int) -> Counts:
        """Count rows, shape (..., n_rows); an answer may be `UNREADABLE`."""
        told = np.where(answered == UNREADABLE, n_labels, answered)
        missed = np.where(true == answered, true, n_labels)
        return cls(
            n=true.shape[-1],
            hits=_counted(missed, n_labels + 1)[..., :-1],
            true=_counted(true, n_labels),
            answered=_counted(told, n_labels + 1),
        )

    @property
    def f1(self) -> Floats:
        """F1 of each label; an unreadable answer is a missed row of its true label."""
        return np.asarray(2 * self.hits / np.maximum(self.true + self.answered[..., :-1], 1))

    @property
    def recall(self) -> Floats:
        """Of each label, 0 without rows; an unreadable answer stays in what it divides by."""
        return np.asarray(self.hits / np.maximum(self.true, 1))

    @property
    def precision(self) -> Floats:
        """Of each label, 0 where it is never answered."""
        return np.asarray(self.hits / np.maximum(self.answered[..., :-1], 1))


def macro_f1(counts: Counts) -> Floats:
    """Mean F1 of the labels that are true or answered somewhere; unreadable is no label of these.

    As `red_ray.core.metrics.class_report`, which takes no unreadable answers.
    """
    seen = (counts.true + counts.answered[..., :-1]) > 0
    return np.asarray((counts.f1 * seen).sum(axis=-1) / np.maximum(seen.sum(axis=-1), 1))


def mcc(counts: Counts) -> Floats:
    """Matthews' correlation, -1 to 1; 0 where all rows or all answers are alike.

    Unreadable counts as one more answer that is never true.

    Source: Gorodkin (2004), Computational Biology and Chemistry 28(5), for any number of labels.
    """
    n = max(1, counts.n)
    true, answered = counts.true / n, counts.answered / n
    shared = counts.hits.sum(axis=-1) / n - (true * answered[..., :-1]).sum(axis=-1)
    spread = (1 - (true**2).sum(axis=-1)) * (1 - (answered**2).sum(axis=-1))
    # Shares of rows: what should be 0 is some 1e-16, and the least spread else is above 1e-12.
    is_spread = spread > 1e-13
    return np.asarray(np.where(is_spread, shared / np.sqrt(np.where(is_spread, spread, 1)), 0.0))


def quality(
    true: Ints,
    answered: Ints,
    labels: Sequence[str],
    positive: int | None,
    majority: int,
    *,
    rng: np.random.Generator | None = None,
) -> Figures:
    """The figures of quality that `results.json` holds, each with its 95 % interval.

    Shares have Wilson's interval, the others a bootstrap's over the report rows. Both are of this
    cell alone: what another seed would change is in none of them (see `compare`).

    Args:
        true: index of each row's label, shape (n_rows,).
        answered: of each answer's, `UNREADABLE` where there is none, shape (n_rows,).
        labels: names.
        positive: of two labels the one that is sought; None with more labels.
        majority: index of train's most frequent label.
        rng: draws the resamples; by default the same ones for every cell.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    true, answered = np.asarray(true, np.int64), np.asarray(answered, np.int64)
    counts = Counts.of(true, answered, len(labels))
    right = int(counts.hits.sum())

    draws = rng.integers(0, len(true), size=(N_RESAMPLES, len(true)))
    drawn = Counts.of(true[draws], answered[draws], len(labels))

    def around(statistic: Statistic) -> list[float]:
        low, high = np.quantile(statistic(drawn), [0.025, 0.975])
        return [float(low), float(high)]

    return {
        "n": counts.n,
        "n_right": right,
        "n_unreadable": int(counts.answered[-1]),
        "accuracy": right / max(1, counts.n),
        "accuracy_ci": list(wilson_interval(right, counts.n)),
        "macro_f1": float(macro_f1(counts)),
        "macro_f1_ci": around(macro_f1),
        "mcc": float(mcc(counts)),
        "mcc_ci": around(mcc),
        "by_label": _by_label(counts, labels),
        "binary": None if positive is None else binary(counts, labels, positive, around),
        "majority": {
            "label": labels[majority],
            "share": int(counts.true[majority]) / max(1, counts.n),
        },
    }


def binary(
    counts: Counts,
    labels: Sequence[str],
    positive: int,
    around: Callable[[Statistic], list[float]],
) -> Figures:
    """Figures of a task with two labels, one of them sought.

    An unreadable answer to a positive row is a miss (`fn`). One to a negative row is no true
    negative, yet no false alarm either: it is in none of the four counts, but in what specificity
    divides by, which is all negative rows. So `tp + fn` are all positives, and `fp + tn` all
    negatives without the unreadable ones.

    Args:
        counts: of the rows.
        labels: names, two.
        positive: index of the one sought.
        around: from a statistic of counts to its 95 % interval.
    """
    negative = 1 - positive
    tp, tn = int(counts.hits[positive]), int(counts.hits[negative])
    n_positive, n_negative = int(counts.true[positive]), int(counts.true[negative])
    called = int(counts.answered[positive])
    return {
        "positive": labels[positive],
        "tp": tp,
        "fp": called - tp,
        "fn": n_positive - tp,
        "tn": tn,
        **_share("precision", tp, called),
        **_share("recall", tp, n_positive),
        **_share("specificity", tn, n_negative),
        "f1": float(counts.f1[positive]),
        "f1_ci": around(lambda found: found.f1[..., positive]),
        "balance_gap": float(balance_gap(counts)),
        "balance_gap_ci": around(balance_gap),
    }


def balance_gap(counts: Counts) -> Floats:
    """|recall - specificity| of two labels: how one-sided the answers are, 0 to 1."""
    return np.asarray(np.abs(counts.recall[..., 0] - counts.recall[..., 1]))


def _share(name: str, hits: int, n: int) -> Figures:
    """A share, 0 where it divides by nothing, which its interval of 0 to 1 then says."""
    return {name: hits / max(1, n), f"{name}_ci": list(wilson_interval(hits, n))}


def _by_label(counts: Counts, labels: Sequence[str]) -> dict[str, Figures]:
    return {
        label: {
            "n": int(counts.true[at]),
            "precision": float(counts.precision[at]),
            "recall": float(counts.recall[at]),
            "f1": float(counts.f1[at]),
        }
        for at, label in enumerate(labels)
    }


def _counted(values: Ints, size: int) -> Ints:
    """How often each number below `size` stands in each row of `values`, shape (..., size)."""
    flat = values.reshape(-1, values.shape[-1])
    places = flat + size * np.arange(len(flat))[:, None]
    found = np.bincount(places.ravel(), minlength=size * len(flat))
    return found.reshape(*values.shape[:-1], size)
