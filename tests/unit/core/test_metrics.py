"""Figures of quality, against scikit-learn and cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from red_ray.core.metrics import (
    N_BINS,
    auroc,
    bootstrap_interval,
    brier_score,
    class_report,
    expected_calibration_error,
    fpr_at_recall,
    reliability_bins,
    wilson_interval,
)


def answers(n_labels, seed):
    """True and predicted labels, most right, label `n_labels - 1` in neither."""
    rng = np.random.default_rng(seed)
    true = rng.integers(n_labels - 2, size=200)
    wrong = rng.integers(n_labels - 1, size=200)  # label n_labels - 2 is predicted only
    return true, np.where(rng.random(200) < 0.7, true, wrong)


@pytest.mark.parametrize("seed", range(3))
def test_averages_equal_scikit_learns(seed):
    true, predicted = answers(9, seed)
    report = class_report(true, predicted, 9)
    weighted = {"average": "weighted", "zero_division": 0}
    assert report.macro_f1 == pytest.approx(f1_score(true, predicted, average="macro"))
    assert report.f1_weighted == pytest.approx(f1_score(true, predicted, **weighted))
    assert report.recall_weighted == pytest.approx(recall_score(true, predicted, **weighted))
    expected = precision_score(true, predicted, **weighted)
    assert report.precision_weighted == pytest.approx(expected)
    assert report.recall_weighted == pytest.approx(accuracy_score(true, predicted))


def test_no_rows_give_zeros():
    none = np.zeros(0, dtype=np.int64)
    assert class_report(none, none, 3) == class_report(np.array([0]), np.array([1]), 3)


@pytest.mark.parametrize("seed", range(3))
def test_auroc_equals_scikit_learns_ties_included(seed):
    rng = np.random.default_rng(seed)
    positive, negative = rng.integers(2, 9, size=80) / 8, rng.integers(0, 7, size=120) / 8
    truth = np.repeat([1, 0], [80, 120])
    expected = roc_auc_score(truth, np.concatenate([positive, negative]))
    assert auroc(positive, negative) == pytest.approx(expected)


@pytest.mark.parametrize("n_positive", [20, 21, 80, 100])
def test_fpr_at_recall_is_the_first_point_that_reaches_the_recall(n_positive):
    rng = np.random.default_rng(n_positive)
    positive, negative = rng.normal(1, 1, n_positive), rng.normal(0, 1, 120)
    truth = np.repeat([1, 0], [n_positive, 120])
    scores = np.concatenate([positive, negative])
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert fpr_at_recall(positive, negative) == pytest.approx(fpr[tpr >= 0.95].min())


def test_brier_by_hand():
    proba = np.array([[1.0, 0, 0], [0.5, 0.3, 0.2], [0, 1.0, 0]])
    by_row = [0.0, 0.5**2 + 0.7**2 + 0.2**2, 2.0]
    assert brier_score(proba, np.array([0, 1, 2])) == pytest.approx(np.mean(by_row))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe (1998), table I
        (15, 148, 0.0624, 0.1605),  # the same
        (1, 29, 0.0061, 0.1718),  # the same
    ],
)
def test_wilson_known_values(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=6e-5)


def test_wilson_says_nothing_of_no_rows_and_stays_in_range():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    for successes in (0, 1, 3):
        low, high = wilson_interval(successes, 3)
        assert 0 <= low <= successes / 3 <= high <= 1


def test_wilson_narrows_with_rows_and_widens_with_confidence():
    low, high = wilson_interval(80, 100)
    wide_low, wide_high = wilson_interval(80, 100, confidence=0.99)
    assert wide_low < low < wilson_interval(800, 1000)[0]
    assert wide_high > high > wilson_interval(800, 1000)[1]


def test_bootstrap_covers_a_mean_as_its_standard_error_says():
    values = np.random.default_rng(0).normal(5, 2, 400)
    rng = np.random.default_rng(1)
    low, high = bootstrap_interval(lambda rows: float(values[rows].mean()), 400, rng=rng)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)


def test_ece_of_perfect_confidence_is_zero():
    assert expected_calibration_error(np.ones(40), np.ones(40, bool)) == 0


def test_ece_of_sure_and_wrong_is_one():
    assert expected_calibration_error(np.ones(40), np.zeros(40, bool)) == 1


def test_ece_by_hand():
    """15 bins of 2 rows: half of them are right half the time at 0.5, half always at 0.9."""
    confidence = np.concatenate([np.full(16, 0.5), np.full(14, 0.9)])
    correct = np.concatenate([np.tile([True, False], 8), np.ones(14, bool)])
    assert expected_calibration_error(confidence, correct) == pytest.approx(14 * 0.1 / 30)


def test_ece_bins_hold_equal_mass():
    """All confidences lie in [0.90, 0.99]: bins of equal width would see one bin, with no gap."""
    confidence = np.repeat([0.90, 0.99], 150)
    correct = np.repeat([True, False], 150)
    correct[:30] = False  # 0.8 right at 0.90, never right at 0.99
    # Bins of 20 rows; the second holds right and wrong ones, the eighth both confidences.
    gaps = [20 * 0.9, 10 * 0.9 - 10 * 0.1, *[20 * 0.1] * 5, 10 * 0.99 - 10 * 0.1, *[20 * 0.99] * 7]
    expected = sum(gaps) / 300
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_ece_does_not_depend_on_row_order():
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(100), rng.random(100) < 0.5
    order = rng.permutation(100)
    got = expected_calibration_error(confidence[order], correct[order])
    assert got == pytest.approx(expected_calibration_error(confidence, correct))


@pytest.mark.parametrize("n", [4, 100])
def test_reliability_bins_add_up_to_the_error(n):
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(n), rng.random(n) < 0.5
    bins = reliability_bins(confidence, correct)
    assert len(bins) == min(n, N_BINS)
    assert sum(rows for _, _, rows in bins) == n
    error = sum(abs(mean - share) * rows for mean, share, rows in bins) / n
    assert error == pytest.approx(expected_calibration_error(confidence, correct))
