"""Figures of a cell: right against scikit-learn, and with every row in the denominator."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from benchmarks.matrix.metrics import Counts, macro_f1, mcc, quality
from red_ray.core.metrics import class_report, wilson_interval

LABELS = ("no", "yes")


def rows(n=300, k=4, seed=0, right=0.7):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, k, n)
    return true, np.where(rng.random(n) < right, true, rng.integers(0, k, n))


def test_figures_are_those_of_scikit_learn():
    true, answered = rows()
    found = quality(true, answered, "abcd", None, 0)
    assert found["macro_f1"] == pytest.approx(f1_score(true, answered, average="macro"))
    assert found["mcc"] == pytest.approx(matthews_corrcoef(true, answered))
    assert found["macro_f1"] == pytest.approx(class_report(true, answered, 4).macro_f1)
    assert found["by_label"]["b"]["f1"] == pytest.approx(f1_score(true == 1, answered == 1))
    assert found["binary"] is None


def test_unreadable_counts_as_a_label_that_is_never_true():
    true, answered = rows(k=2)
    answered[:30] = -1
    found = quality(true, answered, LABELS, 1, 0)
    assert found["n_unreadable"] == 30
    assert found["n"] == 300
    assert found["accuracy"] == pytest.approx((true == answered).sum() / 300)
    assert found["mcc"] == pytest.approx(matthews_corrcoef(true, answered))
    # Over the two labels, not over "unreadable" as a third.
    assert found["macro_f1"] == pytest.approx(
        f1_score(true, answered, average="macro", labels=[0, 1])
    )


def test_unreadable_stays_in_the_denominator_of_each_share():
    """Of 4 positives and 6 negatives one each is unreadable, all others are right."""
    true = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    answered = np.array([-1, 1, 1, 1, -1, 0, 0, 0, 0, 0])
    found = quality(true, answered, LABELS, 1, 0)
    two = found["binary"]
    assert found["accuracy"] == 0.8
    assert (two["tp"], two["fn"], two["fp"], two["tn"]) == (3, 1, 0, 5)
    assert two["recall"] == 0.75
    assert two["specificity"] == pytest.approx(5 / 6)
    assert two["precision"] == 1.0
    assert two["balance_gap"] == pytest.approx(5 / 6 - 0.75)
    assert two["specificity_ci"] == list(wilson_interval(5, 6))
    assert found["by_label"]["yes"]["recall"] == 0.75


def test_positive_chooses_the_side():
    true, answered = rows(k=2)
    one, other = (quality(true, answered, LABELS, at, 0)["binary"] for at in (0, 1))
    assert (one["positive"], other["positive"]) == LABELS
    assert one["recall"] == other["specificity"]
    assert one["recall"] != other["recall"]


def test_each_figure_has_an_interval_around_it():
    true, answered = rows(k=2)
    found = quality(true, answered, LABELS, 1, 0)
    flat = found | found["binary"]
    names = [name.removesuffix("_ci") for name in flat if name.endswith("_ci")]
    assert set(names) == {
        *("accuracy", "macro_f1", "mcc", "precision", "recall", "specificity", "f1"),
        "balance_gap",
    }
    for name in set(names) - {"balance_gap"}:
        low, high = flat[f"{name}_ci"]
        assert low < flat[name] < high, name


def test_one_answer_for_all_has_no_correlation():
    found = quality(np.array([0, 1, 1, 0, 1]), np.ones(5, int), LABELS, 1, 1)
    assert found["mcc"] == 0.0
    assert found["majority"] == {"label": "yes", "share": 0.6}
    assert found["binary"]["balance_gap"] == 1.0


def test_several_draws_are_counted_at_once():
    true, answered = rows()
    draws = np.random.default_rng(1).integers(0, 300, (5, 300))
    at_once = Counts.of(true[draws], answered[draws], 4)
    for at, draw in enumerate(draws):
        one = Counts.of(true[draw], answered[draw], 4)
        assert mcc(at_once)[at] == pytest.approx(float(mcc(one)))
        assert macro_f1(at_once)[at] == pytest.approx(float(macro_f1(one)))
