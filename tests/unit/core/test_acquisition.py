"""Acquisition: the texts most worth a question, none twice."""

from __future__ import annotations

import numpy as np
import pytest

from red_ray.core.acquisition import (
    WeighedPool,
    confused_pairs,
    label_uncertainty,
    most_uncertain,
    poor_labels,
    select_diverse,
    uncertainty,
)
from red_ray.core.partition import unit_rows

ROWS = np.array([[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0], [0.2, 0.1, 0.6, 0.1]])


def test_margin_is_one_minus_the_lead_of_the_best():
    np.testing.assert_allclose(uncertainty(ROWS, "margin"), [0, 1, 1, 0.6])


def test_entropy_is_a_share_of_its_maximum():
    expected = [0, 1, 0.5, -np.sum(ROWS[3] * np.log(ROWS[3])) / np.log(4)]
    np.testing.assert_allclose(uncertainty(ROWS, "entropy"), expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["margin", "entropy"])
def test_none_counts_as_a_rival(kind):
    """The last column is *none*: a text torn between it and a label is worth a question."""
    torn = np.array([[0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])
    assert uncertainty(torn, kind)[0] > 0.6 > uncertainty(torn, kind)[1]


def crowd():
    """Three near-equal texts of the highest scores, then three unlike each other."""
    vectors = np.eye(6, dtype=np.float32)
    vectors[1:3] = vectors[0] + 0.01 * np.eye(6, dtype=np.float32)[1:3]
    return np.array([0.9, 0.89, 0.88, 0.8, 0.7, 0.6]), unit_rows(vectors)


def test_without_diversity_the_highest_scores_are_taken():
    assert select_diverse(*crowd(), 4, diversity=0.0).tolist() == [0, 1, 2, 3]


def test_diversity_leaves_a_crowd_for_texts_that_are_unlike():
    assert select_diverse(*crowd(), 4, diversity=0.5).tolist() == [0, 3, 4, 5]


@pytest.mark.parametrize("diversity", [0.0, 0.5, 1.0])
def test_no_text_is_chosen_twice(diversity):
    """Defect 9: not even where exact repeats fill the pool and nothing else is left."""
    vectors = np.zeros((5, 4), dtype=np.float32)
    vectors[:4, 0] = vectors[4, 1] = 1
    chosen = select_diverse(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), vectors, 5, diversity=diversity)
    assert sorted(chosen.tolist()) == [0, 1, 2, 3, 4]


def test_full_diversity_refuses_an_exact_repeat_while_there_is_another():
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    chosen = select_diverse(np.array([0.9, 0.8, 0.2, 0.1]), vectors, 3, diversity=1.0)
    assert chosen.tolist() == [0, 2, 3]


@pytest.mark.parametrize(("n_texts", "n", "expected"), [(6, 9, 6), (6, 0, 0), (0, 3, 0)])
def test_no_more_are_chosen_than_there_are(n_texts, n, expected):
    scores, vectors = crowd()
    chosen = select_diverse(scores[:n_texts], vectors[:n_texts], n, diversity=0.5)
    assert len(chosen) == expected


def test_equal_scores_keep_the_order_of_the_pool():
    """Defect 22: a tie is no reason for chance."""
    vectors = np.eye(4, dtype=np.float32)
    assert select_diverse(np.full(4, 0.5), vectors, 2, diversity=0.5).tolist() == [0, 1]


def test_the_last_text_of_a_large_pool_can_be_the_first_chosen():
    """Defects 6 and 7: the score decides, not the place in the file."""
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng.standard_normal((5000, 8)).astype(np.float32))
    scores = rng.random(5000) * 0.5
    scores[-1] = 1.0
    assert select_diverse(scores, vectors, 10, diversity=0.5)[0] == 4999


def test_the_choice_among_the_most_uncertain_is_that_among_all():
    """What lets a large pool be chosen from without a copy of its vectors."""
    rng = np.random.default_rng(1)
    vectors = unit_rows(rng.standard_normal((500, 8)).astype(np.float32))
    scores = rng.integers(0, 40, 500) / 40
    few = most_uncertain(scores, 7)
    among = few[select_diverse(scores[few], vectors[few], 7, diversity=0.5)]
    assert among.tolist() == select_diverse(scores, vectors, 7, diversity=0.5).tolist()


@pytest.mark.parametrize("kind", ["margin", "entropy"])
def test_a_pool_taken_in_by_parts_is_the_pool_taken_in_whole(kind):
    """Bit by bit."""
    proba = np.random.default_rng(2).dirichlet(np.full(9, 0.3), size=50)
    whole, parts = WeighedPool.empty(50, 3), WeighedPool.empty(50, 3)
    whole.take_in(0, proba, kind=kind, none_threshold=0.2)
    for start in (40, 0, 13, 26):
        end = min(50, start + 14)
        parts.take_in(start, proba[start:end], kind=kind, none_threshold=0.2)
    assert parts.unsure.tobytes() == whole.unsure.tobytes() == uncertainty(proba, kind).tobytes()
    assert (parts.best == np.argsort(-proba[:, :-1], axis=1)[:, :3]).all()
    assert (parts.is_none == (proba[:, -1] >= 0.2)).all()
    assert 0 < parts.is_none.sum() < 50


def test_the_margin_of_two_equals_is_one():
    torn = np.array([[0.4, 0.2, 0.4], [0.0, 1.0, 0.0]])
    before = torn.copy()
    assert uncertainty(torn, "margin").tolist() == [1.0, 0.0]
    assert (torn == before).all()


def test_between_labels_none_only_lowers_the_worth():
    sure_of_none = np.array([[0.05, 0.05, 0.9], [0.5, 0.5, 0.0], [0.9, 0.0, 0.1]])
    worth = label_uncertainty(sure_of_none, "margin")
    np.testing.assert_allclose(worth, [0.1, 1.0, 0.0], atol=1e-9)


def test_labels_with_few_rows_are_worth_more_and_one_on_average():
    weights = poor_labels(np.array([0, 0, 0, 0, 1]), 3)
    assert weights[0] < weights[1] == weights[2]
    assert weights.mean() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(2)


def test_pairs_that_cross_fitted_rows_confuse_count_up_to_twice():
    predicted, labels = np.array([0, 1, 2, 2]), np.array([1, 0, 0, 2])
    best = np.array([[1, 0], [0, 2], [1, 2]])
    np.testing.assert_allclose(confused_pairs(best, predicted, labels, 3), [2.0, 1.5, 1.0])


def test_without_confusions_every_pair_counts_the_same():
    same = np.array([0, 1])
    assert confused_pairs(np.array([[0, 1]]), same, same, 2).tolist() == [1.0]
