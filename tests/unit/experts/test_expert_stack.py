"""Experts asked at once say what each of them says alone."""

from __future__ import annotations

import numpy as np
import pytest

from red_ray.core.evidence import LOG_FLOOR
from red_ray.core.partition import unit_rows
from red_ray.experts import ExpertSpec, ExpertStack, make_expert

SIZES = (3, 2, 4, 1)


def vectors_of(n, seed=0):
    drawn = np.random.default_rng(seed).standard_normal((n, 10))
    return unit_rows(drawn.astype(np.float32))


def experts(*kinds):
    """One of each kind, of different sizes; the last of the columns of each is noise."""
    made = []
    for number, kind in enumerate(kinds):
        n_labels = SIZES[number]
        expert = make_expert(ExpertSpec("e", tuple(range(n_labels)), kind, number))
        expert.fit(vectors_of(60, number), np.arange(60) % (n_labels + 1))
        made.append(expert)
    return made


@pytest.mark.parametrize(
    "kinds",
    [
        ("logistic_regression",) * 4,
        ("logistic_regression",),
        ("random_forest", "random_forest"),
        ("logistic_regression", "random_forest"),
    ],
)
@pytest.mark.parametrize("n_texts", [0, 1, 7])
def test_the_scores_are_those_of_each_expert(kinds, n_texts):
    made, asked = experts(*kinds), vectors_of(n_texts, seed=9)
    found = ExpertStack(made).score(asked)
    assert len(found) == len(made)
    for scores, expert in zip(found, made, strict=True):
        expected = expert.score(asked)
        assert (scores.shape, scores.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_column_without_rows_is_at_the_floor():
    """And takes nothing from the experts beside it."""
    made = experts("logistic_regression", "logistic_regression")
    made[0].fit(vectors_of(40), np.arange(40) % 2 * 3)
    scores, other = ExpertStack(made).score(vectors_of(5, seed=9))
    assert (scores[:, [1, 2]] == LOG_FLOOR).all()
    np.testing.assert_allclose(np.exp(other).sum(axis=1), 1, rtol=1e-5)


def test_an_expert_that_was_not_fitted_is_refused():
    spec = ExpertSpec("e", (0, 1), "logistic_regression", 0)
    with pytest.raises(RuntimeError, match="only after it was fitted"):
        ExpertStack([make_expert(spec)])
