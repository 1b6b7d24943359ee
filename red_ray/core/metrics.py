"""Figures of quality, each with what it divides by said in its docstring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Interval = tuple[float, float]

N_BINS = 15
"""Equal-mass bins of the expected calibration error."""


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Confidence interval of a share.

    Source: Wilson (1927); stays inside [0, 1] and holds its level for small `n`.
    """
    if n == 0:
        return (0.0, 1.0)
    z = float(ndtri(0.5 + confidence / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def bootstrap_interval(
    statistic: Callable[[Ints], float],
    n: int,
    *,
    rng: np.random.Generator,
    n_resamples: int = 300,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of a figure that is no plain share, over resampled test rows.

    Args:
        statistic: from row indices, shape (n,), to the figure.
        n: rows.
        rng: draws the resamples.
        n_resamples: 300 fixes the ends to about a tenth of the interval's width.
        confidence: coverage of the interval.
    """
    values = [statistic(rng.integers(0, n, size=n)) for _ in range(n_resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return (float(low), float(high))


@dataclass(frozen=True, slots=True)
class ClassReport:
    """Precision, recall and F1 averaged over labels; `macro` weighs labels, `weighted` rows."""

    macro_f1: float
    precision_weighted: float
    recall_weighted: float
    f1_weighted: float


def class_report(true: Ints, predicted: Ints, n_labels: int) -> ClassReport:
    """Averages over the labels that stand in `true` or `predicted`; 0 where undefined."""
    hits = np.bincount(true[true == predicted], minlength=n_labels)
    n_true = np.bincount(true, minlength=n_labels)
    n_predicted = np.bincount(predicted, minlength=n_labels)
    precision = hits / np.maximum(n_predicted, 1)
    recall = hits / np.maximum(n_true, 1)
    f1 = 2 * hits / np.maximum(n_true + n_predicted, 1)
    seen = (n_true + n_predicted) > 0
    share = n_true / max(1, len(true))
    return ClassReport(
        macro_f1=float(f1[seen].mean()) if seen.any() else 0.0,
        precision_weighted=float(precision @ share),
        recall_weighted=float(recall @ share),
        f1_weighted=float(f1 @ share),
    )


def expected_calibration_error(confidence: Floats, correct: Bools) -> float:
    """Mean gap between confidence and accuracy over 15 equal-mass bins, weighted by rows.

    Args:
        confidence: probability of the chosen label, shape (n_rows,).
        correct: whether it was right, shape (n_rows,).
    """
    order = np.argsort(confidence, kind="stable")
    gap = confidence[order] - correct[order]
    return float(sum(abs(part.sum()) for part in np.array_split(gap, N_BINS)) / len(gap))


def reliability_bins(confidence: Floats, correct: Bools) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, rows) of each bin of `expected_calibration_error`."""
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, N_BINS) if len(part)]
    return [(float(confidence[p].mean()), float(correct[p].mean()), len(p)) for p in parts]


def brier_score(proba: Floats, true: Ints) -> float:
    """Multi-class Brier score, 0 (sure and right) to 2 (sure and wrong).

    Args:
        proba: shape (n_rows, n_labels), rows sum to 1.
        true: label indices, shape (n_rows,).
    """
    own = proba[np.arange(len(true)), true]
    return float(((proba**2).sum(axis=1) - 2 * own + 1).mean())


def auroc(positive: Floats, negative: Floats) -> float:
    """Chance that a positive scores above a negative, ties counted half."""
    ranked = np.sort(negative)
    below = np.searchsorted(ranked, positive, side="left")
    not_above = np.searchsorted(ranked, positive, side="right")
    return float((below + not_above).sum() / (2 * len(positive) * len(negative)))


def fpr_at_recall(positive: Floats, negative: Floats, recall: float = 0.95) -> float:
    """Share of negatives at or above the score that catches `recall` of the positives."""
    # The small term: a product such as 0.95 * 20 must not round up to one positive more.
    n_caught = max(1, int(np.ceil(recall * len(positive) - 1e-9)))
    threshold = np.sort(positive)[len(positive) - n_caught]
    return float((negative >= threshold).mean())
