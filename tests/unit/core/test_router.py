"""The router: one calibrated distribution over all labels and none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from red_ray.core.evidence import EXPERT_COLUMNS, GATE_COLUMNS, LEXICAL_COLUMNS, Column
from red_ray.core.router import FEW_LABELS, fit_router, router_columns, top_labels

N_ROWS, N_LABELS = 400, 6
ALL = router_columns(gate=True, experts=True, lexical=True)


def made_evidence(n_rows=N_ROWS, seed=0, **strength):
    """Evidence whose columns speak for the true label as strongly as `strength` says."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(N_LABELS, size=n_rows)
    evidence = rng.standard_normal((n_rows, N_LABELS, len(Column)))
    for name, by in strength.items():
        evidence[np.arange(n_rows), labels, Column[name]] += by
    return evidence.astype(np.float32), labels


def mean_log_likelihood(router, evidence, labels):
    return router.label_log_proba(evidence)[np.arange(len(labels)), labels].mean()


def fit(evidence, labels, *, columns=ALL, trusted=None, none_prior=0.05):
    trusted = np.ones(len(labels), dtype=bool) if trusted is None else trusted
    return fit_router(evidence, labels, trusted=trusted, columns=columns, none_prior=none_prior)


@pytest.fixture(scope="module")
def known():
    return made_evidence(GATE=1.5, NEAREST=1.0)


@pytest.fixture(scope="module")
def router(known):
    return fit(*known)


def test_every_row_is_one_distribution(router, known):
    """Defect 5: conflicts between experts end in one answer, never in several."""
    distribution = router.distribution(known[0])
    assert distribution.shape == (N_ROWS, N_LABELS + 1)
    assert (distribution >= 0).all()
    np.testing.assert_allclose(distribution.sum(axis=1), 1, rtol=1e-9)
    none = router.none_proba(known[0])
    np.testing.assert_array_equal(distribution[:, -1], none)
    labels = np.exp(router.label_log_proba(known[0]))
    np.testing.assert_allclose(distribution[:, :-1], labels * (1 - none[:, None]), rtol=1e-9)


def test_columns_that_tell_labels_apart_get_the_weight(router):
    weights = dict(zip(map(Column, router.columns), router.weights, strict=True))
    silent = [abs(weights[column]) for column in Column if column.name not in ("GATE", "NEAREST")]
    assert weights[Column.GATE] > weights[Column.NEAREST] > 5 * max(silent)


def test_a_column_that_speaks_against_a_label_gets_a_negative_weight():
    router = fit(*made_evidence(NOISE=-1.0))
    assert router.weights[Column.NOISE] < -0.5


def gradient(router, evidence, labels):
    """Of the mean log-likelihood by finite differences, in units of the columns' spread."""
    scale = evidence.std(axis=(0, 1))[router.columns]
    slopes = []
    for step in np.diag(1e-3 / scale):
        ends = [dataclasses.replace(router, weights=router.weights + s * step) for s in (1, -1)]
        up, down = (mean_log_likelihood(end, evidence, labels) for end in ends)
        slopes.append((up - down) / 2e-3)
    return np.abs(slopes)


def test_no_small_step_of_the_weights_does_better(router, known):
    """A wrong gradient would end the fit elsewhere; the ridge leaves a slope below 0.01."""
    assert gradient(router, *known).max() < 0.01
    elsewhere = dataclasses.replace(router, weights=router.weights + 0.2)
    assert gradient(elsewhere, *known).max() > 0.02


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_the_unit_of_a_column_does_not_matter(known, router, factor):
    scaled = known[0].copy()
    scaled[:, :, Column.LEXICAL_NEAREST] *= factor
    scaled[:, :, Column.GATE] *= factor
    got = fit(scaled, known[1]).label_log_proba(scaled)
    np.testing.assert_allclose(got, router.label_log_proba(known[0]), atol=0.02)


def test_a_column_that_never_varies_takes_nothing_from_the_others(known):
    """One subset alone: no other has rows, its noise is the floor everywhere."""
    evidence, labels = known[0].copy(), known[1]
    evidence[:, :, Column.NOISE] = -20.0
    router = fit(evidence, labels)
    silent = evidence.copy()
    silent[:, :, Column.NOISE] = 0.0
    expected = mean_log_likelihood(fit(silent, labels), silent, labels)
    assert mean_log_likelihood(router, evidence, labels) == pytest.approx(expected, abs=1e-3)
    assert abs(router.weights[Column.NOISE]) < 1


def test_probabilities_are_as_sure_as_they_are_right(router):
    fresh, labels = made_evidence(4000, seed=9, GATE=1.5, NEAREST=1.0)
    proba = np.exp(router.label_log_proba(fresh))
    correct = proba.argmax(axis=1) == labels
    assert proba.max(axis=1).mean() == pytest.approx(correct.mean(), abs=0.03)


def test_only_trusted_rows_say_how_sure_to_be():
    """Half of the rows are hard and mislabelled, as those of a loop with an erring judge are."""
    evidence, labels = made_evidence(GATE=2.0)
    trusted = np.arange(N_ROWS) < N_ROWS // 2
    spoiled = np.where(trusted, labels, np.random.default_rng(1).integers(N_LABELS, size=N_ROWS))
    likelihood = {
        name: mean_log_likelihood(router, evidence[trusted], labels[trusted])
        for name, router in {
            "clean": fit(evidence[trusted], labels[trusted]),
            "distinguished": fit(evidence, spoiled, trusted=trusted),
            "mixed": fit(evidence, spoiled),
        }.items()
    }
    assert likelihood["distinguished"] > likelihood["mixed"] + 0.05
    assert likelihood["distinguished"] == pytest.approx(likelihood["clean"], abs=0.07)


def test_none_rests_on_trusted_rows_alone(known):
    evidence, labels = known
    trusted = np.arange(N_ROWS) < N_ROWS // 2
    odd = evidence.copy()
    odd[~trusted, :, Column.NEAREST] -= 5.0
    router = fit(odd, labels, trusted=trusted)
    shifted = odd[trusted][:, :, Column.NEAREST].max(axis=1).mean()
    assert router.novelty_mean[1] == pytest.approx(shifted, abs=1e-4)


STRANGER = {"nearest falls": (Column.NEAREST, -2.0), "noise rises": (Column.NOISE, 2.0)}


@pytest.mark.parametrize("how", STRANGER)
def test_none_rises_as_a_text_gets_stranger(router, known, how):
    column, by = STRANGER[how]
    strange = known[0].copy()
    strange[:, :, column] += by
    # The noise column also weighs a little in the scores, hence the mean and not each row.
    assert router.none_slope > 0
    assert router.none_proba(strange).mean() > router.none_proba(known[0]).mean() + 0.02


def test_none_rises_as_all_scores_fall(router, known):
    strange = known[0].copy()
    strange[:, :, Column.GATE] -= 3.0
    assert (router.none_proba(strange) > router.none_proba(known[0])).all()


def test_none_is_told_from_rows_that_fit():
    """Rows that no column speaks for are stranger than those that one does."""
    evidence, labels = made_evidence(GATE=4.0, NEAREST=4.0)
    strange, _ = made_evidence(seed=5)
    router = fit(evidence, labels)
    known_none, strange_none = router.none_proba(evidence), router.none_proba(strange)
    above = (strange_none[:, None] > known_none[None, :]).mean()
    assert above > 0.95
    assert router.novelty(strange).mean() > router.novelty(evidence).mean() + 2


def test_the_prior_moves_none(known):
    rare, common = (fit(*known, none_prior=prior) for prior in (0.01, 0.5))
    np.testing.assert_array_equal(rare.novelty(known[0]), common.novelty(known[0]))
    gap = np.log(0.5 / 0.5) - np.log(0.01 / 0.99)
    assert common.none_bias - rare.none_bias == pytest.approx(gap)


SWITCHES = {
    "gate": GATE_COLUMNS,
    "experts": EXPERT_COLUMNS,
    "lexical": LEXICAL_COLUMNS,
}


@pytest.mark.parametrize("off", SWITCHES)
def test_columns_that_are_switched_off_are_never_read(known, off):
    columns = router_columns(**{name: name != off for name in SWITCHES})
    assert not set(SWITCHES[off]) & set(columns)
    evidence, labels = known
    blind = evidence.copy()
    blind[:, :, list(SWITCHES[off])] = np.nan
    seen = fit(evidence, labels, columns=columns).distribution(evidence)
    unseen = fit(blind, labels, columns=columns).distribution(blind)
    np.testing.assert_array_equal(seen, unseen)


def test_all_columns_are_used_unless_switched_off():
    assert ALL.tolist() == list(Column)
    only = router_columns(gate=False, experts=False, lexical=False)
    assert only.tolist() == [Column.CENTROID, Column.NEAREST, Column.NEAREST_3]


def test_the_same_rows_give_the_same_bits(known, router):
    """Defect 22: a fit can be repeated."""
    again = fit(*known)
    assert again.distribution(known[0]).tobytes() == router.distribution(known[0]).tobytes()


def test_top_labels_come_best_first_and_ties_by_index():
    proba = np.array([[0.1, 0.4, 0.1, 0.4], [0.7, 0.1, 0.1, 0.1]])
    assert top_labels(proba, 3).tolist() == [[1, 3, 0], [0, 1, 2]]
    assert top_labels(proba, 9).shape == (2, 4)


@pytest.mark.parametrize("k", [1, 3, FEW_LABELS, FEW_LABELS + 1])
def test_top_labels_are_those_of_a_stable_sort(k):
    """However many are wanted: few are found one by one, many by sorting."""
    proba = np.random.default_rng(0).integers(0, 9, size=(50, 40)) / 9
    expected = np.argsort(-proba, axis=1, kind="stable")[:, :k]
    before = proba.copy()
    assert top_labels(proba, k).tolist() == expected.tolist()
    assert (proba == before).all()


def test_the_distribution_of_some_rows_is_that_of_all(known, router):
    """Bit by bit: what is held at a time changes no choice."""
    whole = router.distribution(known[0])
    parts = [router.distribution(known[0][start : start + 7]) for start in range(0, N_ROWS, 7)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_wrong_labels_of_a_judge_do_not_make_it_timid():
    """One label in five is wrong: how sure to be is fitted beside that share."""
    evidence, labels = made_evidence(4000, GATE=4.0, NEAREST=2.0)
    rng = np.random.default_rng(3)
    wrong = np.where(rng.random(len(labels)) < 0.2, (labels + 1) % N_LABELS, labels)
    sureness = {}
    for by_judge in (False, True):
        router = fit_router(
            evidence,
            wrong,
            trusted=np.ones(len(labels), dtype=bool),
            columns=ALL,
            none_prior=0.05,
            by_judge=by_judge,
        )
        proba = np.exp(router.label_log_proba(evidence))
        correct = proba.argmax(axis=1) == labels
        sureness[by_judge] = abs(proba.max(axis=1).mean() - correct.mean())
    assert sureness[True] < sureness[False] / 2
