"""The learned router score: features by hand, what it learns, and when it is used."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from red_ray.core.evidence import Column
from red_ray.core.risk import (
    MIN_ERRORS,
    SURE,
    crossfitted_risk,
    fit_risk,
    is_better,
    plain_risk,
    risk_features,
    usage,
)
from red_ray.core.router import router_columns

ALL = router_columns(gate=True, experts=True, lexical=True)
N_AHEAD = len(ALL) - 1  # all columns but noise


def evidence_of(*rows):
    """Evidence whose every column says the same: the row's numbers by label."""
    values = np.array(rows, dtype=np.float32)
    return np.repeat(values[:, :, None], len(Column), axis=2)


def test_features_by_hand():
    """Scores of log 6, log 3 and log 1: probabilities 0.6, 0.3 and 0.1."""
    evidence = evidence_of([1.0, 4.0, 2.0])
    evidence[0, 1, Column.NOISE], evidence[0, 1, Column.NEAREST] = -7.0, 0.5
    scores = np.log([[3.0, 6.0, 1.0]])
    got = risk_features(evidence, scores, ALL)[0]
    entropy = -(0.6 * np.log(0.6) + 0.3 * np.log(0.3) + 0.1 * np.log(0.1))
    told = [logit(0.6), np.log(2), np.log(3), entropy, np.log(10), -7.0, 0.5]
    assert got[:7] == pytest.approx(told)
    ahead = dict(zip([c for c in ALL if c != Column.NOISE], got[7:-1], strict=True))
    assert ahead.pop(Column.NEAREST) == pytest.approx(0.5 - 2.0)
    assert set(ahead.values()) == {2.0}
    assert got[-1] == N_AHEAD - 1


def test_a_column_that_the_router_does_not_read_has_no_say():
    scores = np.log([[3.0, 6.0, 1.0]])
    few = router_columns(gate=False, experts=True, lexical=False)
    evidence = evidence_of([1.0, 4.0, 2.0])
    changed = evidence.copy()
    changed[:, :, Column.GATE] = 99.0
    assert np.array_equal(risk_features(evidence, scores, few), risk_features(changed, scores, few))
    assert not np.array_equal(
        risk_features(evidence, scores, ALL), risk_features(changed, scores, ALL)
    )


@pytest.mark.parametrize("n_labels", [1, 2, 3])
def test_few_labels_give_finite_features(n_labels):
    rng = np.random.default_rng(0)
    evidence = rng.normal(size=(5, n_labels, len(Column))).astype(np.float32)
    got = risk_features(evidence, rng.normal(size=(5, n_labels)), ALL)
    assert got.shape == (5, 8 + N_AHEAD)
    assert np.isfinite(got).all()


def test_no_text_has_no_features():
    nothing = np.zeros((0, 4, len(Column)), np.float32)
    assert risk_features(nothing, np.zeros((0, 4)), ALL).shape == (0, 8 + N_AHEAD)


def test_plain_risk_is_what_the_confidence_lacks():
    scores = np.log([[3.0, 6.0, 1.0], [8.0, 1.0, 1.0]])
    features = risk_features(np.zeros((2, 3, len(Column)), np.float32), scores, ALL)
    assert plain_risk(features) == pytest.approx([0.4, 0.2])


def test_a_confidence_of_one_is_still_a_number():
    scores = np.array([[800.0, 0.0, 0.0]])
    features = risk_features(np.zeros((1, 3, len(Column)), np.float32), scores, ALL)
    assert plain_risk(features) == pytest.approx([SURE], rel=1e-3)


def made_rows(n=4000, seed=0, bias=-2.5):
    """Features of which the first two say by their sum how likely an error is."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4)) * [1.0, 1.0, 5.0, 1.0] + [0.0, 3.0, 0.0, 0.0]
    chance = expit(1.5 * features[:, 0] + features[:, 1] - 3 + bias)
    return features, rng.random(n) < chance, chance


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_the_risk_is_a_probability_whatever_an_error_weighs(factor):
    features, wrong, _ = made_rows()
    fitted = fit_risk(features, wrong, factor)
    fresh, _, its_chance = made_rows(seed=1)
    risk = fitted.risk(fresh)
    assert risk.mean() == pytest.approx(its_chance.mean(), abs=0.015)
    assert np.corrcoef(risk, its_chance)[0, 1] > 0.98
    assert ((risk > 0) & (risk < 1)).all()


def test_the_weight_of_an_error_has_a_say():
    features, wrong, _ = made_rows(400)
    assert fit_risk(features, wrong, 1.0).weights != pytest.approx(
        fit_risk(features, wrong, 8.0).weights, rel=1e-3
    )


def test_a_feature_that_does_not_vary_says_nothing():
    features, wrong, _ = made_rows()
    features[:, 3] = 7.0
    fitted = fit_risk(features, wrong, 1.0)
    assert fitted.weights[3] == pytest.approx(0.0, abs=1e-9)
    shifted = features.copy()
    shifted[:, 3] = 7.5
    assert fitted.risk(shifted) == pytest.approx(fitted.risk(features))


def test_each_row_is_judged_by_a_fit_that_did_not_see_its_fold():
    features, wrong, _ = made_rows(1000)
    folds = np.arange(1000) % 5
    got = crossfitted_risk(features, wrong, folds, 1.0)
    changed = wrong.copy()
    changed[folds == 2] = ~changed[folds == 2]
    other = crossfitted_risk(features, changed, folds, 1.0)
    same = folds == 2
    assert np.array_equal(got[same], other[same])
    assert not np.array_equal(got[~same], other[~same])
    expected = fit_risk(features[~same], wrong[~same], 1.0).risk(features[same])
    assert np.array_equal(got[same], expected)


@pytest.mark.parametrize("flipped", [False, True])
def test_too_few_errors_or_right_rows_teach_nothing(flipped):
    features, _, _ = made_rows(200)
    folds = np.arange(200) % 5
    for n_rare in (MIN_ERRORS - 1, MIN_ERRORS):
        rare = np.arange(200) < n_rare
        got = crossfitted_risk(features, rare ^ flipped, folds, 1.0)
        assert (got is None) == (n_rare < MIN_ERRORS)


def test_errors_that_all_stand_in_one_fold_teach_nothing():
    features, _, _ = made_rows(200)
    wrong = np.arange(200) < 40
    assert crossfitted_risk(features, wrong, np.where(wrong, 0, 1), 1.0) is None


def test_usage_by_hand():
    """Errors at ranks 1, 3, 4 and 10 of ten texts: three of four cost 0.4, all of them 1."""
    risk = np.arange(10, 0, -1) / 10
    wrong = np.isin(np.arange(10), [0, 2, 3, 9])
    assert usage(risk, wrong, (0.25,)) == pytest.approx(0.1)
    assert usage(risk, wrong, (0.75,)) == pytest.approx(0.4)
    assert usage(risk, wrong, (0.76,)) == pytest.approx(1.0)
    assert usage(risk, wrong, (0.25, 0.75)) == pytest.approx(0.25)


def test_texts_that_tie_with_an_error_are_escalated_with_it():
    risk = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    wrong = np.array([True, False, True, False, False])
    assert usage(risk, wrong, (1.0,)) == pytest.approx(0.8)


def test_a_share_of_the_errors_is_not_rounded_up_by_rounding():
    """0.55 of sixty errors are 33, although 0.55 * 60 is a little more in binary."""
    risk = np.arange(100, 0, -1) / 100
    assert usage(risk, np.arange(100) < 20, (0.95,)) == pytest.approx(0.19)
    assert usage(risk, np.arange(100) < 60, (0.55,)) == pytest.approx(0.33)


def test_a_score_is_better_only_where_it_surely_is():
    rng = np.random.default_rng(0)
    chance = rng.beta(1, 8, 3000)
    wrong = rng.random(3000) < chance
    blurred = chance + rng.normal(size=3000) * 0.1
    assert is_better(chance, blurred, wrong, np.random.default_rng(1))
    assert not is_better(blurred, chance, wrong, np.random.default_rng(1))
    assert not is_better(chance, chance, wrong, np.random.default_rng(1))
    hardly = chance + rng.normal(size=3000) * 0.002
    assert not is_better(hardly, chance, wrong, np.random.default_rng(1))


def test_without_errors_no_score_is_better():
    risk = np.linspace(0, 1, 50)
    assert not is_better(risk, risk[::-1], np.zeros(50, bool), np.random.default_rng(0))


def test_the_same_draws_decide_the_same():
    features, wrong, chance = made_rows(500)
    other = plain_risk(features)
    decided = {is_better(chance, other, wrong, np.random.default_rng(3)) for _ in range(3)}
    assert len(decided) == 1
