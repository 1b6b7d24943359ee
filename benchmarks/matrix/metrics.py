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
from red_ray.core.metrics import bootstrap_interval, wilson_interval

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Counts:
    """What the figures of some rows are made of.

    Attributes:
        n: rows.
        hits: rows of each label that were answered right, shape (n_labels,).
        true: rows of each label, shape (n_labels,).
        answered: rows answered with each label, and last the unreadable, shape (n_labels + 1,).
    """

    n: int
    hits: Ints
    true: Ints
    answered: Ints

    @classmethod
    def of(cls, true: Ints, answered: Ints, n_labels: int) -> Counts:
        """Count rows; `answered` holds `UNREADABLE` where there is no label."""
        told = np.where(answered == UNREADABLE, n_labels, answered)
        return cls(
            n=len(true),
            hits=np.bincount(true[true == answered], minlength=n_labels),
            true=np.bincount(true, minlength=n_labels),
            answered=np.bincount(told, minlength=n_labels + 1),
        )

    @property
    def f1(self) -> Floats:
        """F1 of each label; an unreadable answer is a missed row of its true label."""
        return np.asarray(2 * self.hits / np.maximum(self.true + self.answered[:-1], 1))


def macro_f1(counts: Counts) -> float:
    """Mean F1 of the labels that are true or answered somewhere; unreadable is no label of these.

    As `red_ray.core.metrics.class_report`, which takes no unreadable answers.
    """
    seen = (counts.true + counts.answered[:-1]) > 0
    return float(counts.f1[seen].mean()) if seen.any() else 0.0


def mcc(counts: Counts) -> float:
    """Matthews' correlation, -1 to 1; 0 where all rows or all answers are alike.

    Unreadable counts as one more answer that is never true.

    Source: Gorodkin (2004), Computational Biology and Chemistry 28(5), for any number of labels.
    """
    true, answered = counts.true / counts.n, counts.answered / counts.n
    shared = counts.hits.sum() / counts.n - true @ answered[:-1]
    spread = (1 - true @ true) * (1 - answered @ answered)
    # Shares of rows: what should be 0 is some 1e-16, and the least spread else is above 1e-12.
    return float(shared / np.sqrt(spread)) if spread > 1e-13 else 0.0


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

    def around(statistic: Callable[[Counts], float]) -> list[float]:
        return list(
            bootstrap_interval(
                lambda rows: statistic(Counts.of(true[rows], answered[rows], len(labels))),
                len(true),
                rng=rng,
            )
        )

    return {
        "n": counts.n,
        "n_right": right,
        "n_unreadable": int(counts.answered[-1]),
        "accuracy": right / max(1, counts.n),
        "accuracy_ci": list(wilson_interval(right, counts.n)),
        "macro_f1": macro_f1(counts),
        "macro_f1_ci": around(macro_f1),
        "mcc": mcc(counts),
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
    around: Callable[[Callable[[Counts], float]], list[float]],
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
        "f1_ci": around(lambda found: float(found.f1[positive])),
        "balance_gap": _gap(counts, positive),
        "balance_gap_ci": around(lambda found: _gap(found, positive)),
    }


def _gap(counts: Counts, positive: int) -> float:
    """|recall - specificity|: how one-sided the answers are, 0 to 1."""
    recall = counts.hits / np.maximum(counts.true, 1)
    return float(abs(recall[positive] - recall[1 - positive]))


def _share(name: str, hits: int, n: int) -> Figures:
    """A share, 0 where it divides by nothing, which its interval of 0 to 1 then says."""
    return {name: hits / max(1, n), f"{name}_ci": list(wilson_interval(hits, n))}


def _by_label(counts: Counts, labels: Sequence[str]) -> dict[str, Figures]:
    """Of each label; 0 where undefined. Recall divides by all its rows, unreadable ones too."""
    precision = counts.hits / np.maximum(counts.answered[:-1], 1)
    recall = counts.hits / np.maximum(counts.true, 1)
    return {
        label: {
            "n": int(counts.true[at]),
            "precision": float(precision[at]),
            "recall": float(recall[at]),
            "f1": float(counts.f1[at]),
        }
        for at, label in enumerate(labels)
    }
