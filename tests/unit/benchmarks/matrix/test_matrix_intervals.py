"""How sure a mean over few seeds is: the level that is kept, and what narrows or widens an end."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.special import ndtri

from benchmarks.matrix.intervals import Spread, interval_of, mean_interval, moderated, spread_of
from red_ray.core.two_samples import holm

PAIRS = list(combinations(range(6), 2))


def shares_with_a_false_difference(seed_sd, unequal, *, moderate, n_seeds=3, n_matrices=500):
    """Of matrices of six columns that are alike: standard error 1 by the rows of each pair."""
    rng = np.random.default_rng([n_seeds, round(10 * seed_sd), unequal])
    scale = np.array([0.3, 0.3, 0.3, 1, 1, 3] if unequal else [1] * 6)[:, None]
    found = 0
    for _ in range(n_matrices):
        seeds = rng.normal(size=(6, n_seeds)) * scale * seed_sd * np.sqrt(n_seeds / 2)
        rows = rng.normal(size=6) / np.sqrt(2)
        moved = [(seeds[a] - seeds[b], rows[a] - rows[b]) for a, b in PAIRS]
        spreads = [Spread(1.0, float(one.var(ddof=1)), n_seeds, n_seeds - 1) for one, _ in moved]
        spreads = moderated(spreads) if moderate else spreads
        p = [
            one.p(float(by_seed.mean() + by_row))
            for one, (by_seed, by_row) in zip(spreads, moved, strict=True)
        ]
        found += bool((holm(p) <= 0.05).any())
    return found / n_matrices


@pytest.mark.parametrize(
    ("seed_sd", "unequal"), [(0.0, False), (0.5, False), (2.0, False), (1.0, True), (2.0, True)]
)
def test_of_six_columns_that_are_alike_none_is_told_apart_in_95_percent(seed_sd, unequal):
    """500 matrices leave 2 points of doubt."""
    assert shares_with_a_false_difference(seed_sd, unequal, moderate=True) <= 0.07


def test_without_it_seeds_that_agree_by_luck_are_taken_at_their_word():
    assert shares_with_a_false_difference(2.0, False, moderate=False) > 0.15


def test_the_quantile_is_the_rows_or_the_seeds():
    assert Spread(1.0, 0.0, 1, 0).quantile(0.05) == pytest.approx(1.96, abs=0.001)
    assert Spread(1.0, 0.01, 3, 2).quantile(0.05) == pytest.approx(1.96, abs=0.01)
    assert Spread(0.0, 1.0, 3, 2).quantile(0.05) == pytest.approx(4.303, abs=0.001)
    assert Spread(0.0, 1.0, 3, 2).freedom == pytest.approx(2)


def test_a_pair_whose_seeds_agree_has_some_of_the_spread_of_the_others():
    seeds = [(4.0, 3), (1.0, 3), (10.0, 3), (0.0, 1)]
    found = moderated([Spread(1.0, one, n, n - 1) for one, n in seeds])
    assert [one.seed for one in found] == [4.5, 3.0, 10.0, 5.0]
    assert [one.seed_freedom for one in found] == [4, 4, 2, 2]


def test_two_pairs_say_too_little_of_each_other():
    spreads = [Spread(1.0, 4.0, 3, 2), Spread(1.0, 1.0, 3, 2), Spread(1.0, 0.0, 1, 0)]
    assert moderated(spreads) == spreads


def test_an_interval_keeps_the_shape_of_the_rows_and_takes_the_seeds_in():
    rng = np.random.default_rng(0)
    rows = rng.exponential(size=(4000, 1)) - 1
    drawn = rows + np.array([0.4, 0.5, 0.6])
    alone = interval_of(0.5, drawn[:, 1:2], spread_of(drawn[:, 1:2], np.array([0.5])))
    low, high = np.quantile(drawn[:, 1] - rows.mean(), [0.025, 0.975])
    assert alone == pytest.approx((low, high), abs=0.01)
    three = interval_of(0.5, drawn, spread_of(drawn, np.array([-1.0, 0.5, 2.0])))
    assert three[1] - three[0] > 1.3 * (high - low)
    skew = (three[1] - 0.5) / (0.5 - three[0])
    assert skew == pytest.approx((high - 0.5) / (0.5 - low), rel=0.05)


def test_the_interval_of_a_mean_holds_it_95_times_in_100():
    """Shares of 200 rows and three seeds, of 80 % in truth, a seed 3 points more or less."""
    rng, hits = np.random.default_rng(1), 0
    for number in range(200):
        hard = rng.normal(size=200)
        skill = 0.8 + 0.03 * rng.normal(size=3)
        right = hard[None, :] < ndtri(skill)[:, None]
        low, high = mean_interval(right, rng=np.random.default_rng(number)).interval
        hits += low <= 0.8 <= high
    assert 0.9 <= hits / 200 <= 0.99


def test_a_share_that_no_row_is_a_case_of_has_wilsons_interval():
    found = mean_interval(np.zeros((3, 56), bool), rng=np.random.default_rng(0))
    assert found.value == 0
    assert found.interval == pytest.approx((0, 0.064), abs=0.001)
    found = mean_interval(np.ones((1, 56), bool), rng=np.random.default_rng(0))
    assert found.interval == pytest.approx((0.936, 1), abs=0.001)


def test_p_of_a_figure_without_any_spread():
    assert Spread(0.0, 0.0, 3, 2).p(0.0) == 1
    assert Spread(0.0, 0.0, 3, 2).p(0.1) == 0
