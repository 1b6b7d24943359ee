"""Acquisition: the texts most worth a question, none twice."""

from __future__ import annotations

import numpy as np
import pytest

from red_ray.core.acquisition import select_diverse, uncertainty
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
