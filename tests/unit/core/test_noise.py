"""Noise rows: what an expert learns of the rest of the world."""

from __future__ import annotations

import numpy as np
import pytest

from red_ray.core.noise import draw_noise
from red_ray.core.partition import unit_rows


def rows(n=200, n_own=20):
    """Rows on an arc: the first `n_own` are the expert's, the others lie farther and farther."""
    angle = np.linspace(0, np.pi, n)
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    return unit_rows(vectors), np.arange(n) < n_own


def draw(vectors, own, cap=4000, factor=None, seed=0):
    return draw_noise(vectors, own, cap=cap, factor=factor, rng=np.random.default_rng(seed))


def test_all_other_rows_are_noise_up_to_the_cap():
    """Defect 4: the noise class holds every row of the other subsets."""
    vectors, own = rows()
    assert draw(vectors, own, cap=180).tolist() == list(range(20, 200))


@pytest.mark.parametrize("cap", [1, 2, 4000])
@pytest.mark.parametrize("factor", [None, 0.001, 2.0])
def test_noise_is_never_empty_while_another_subset_has_a_row(cap, factor):
    """Defect 4: neither a small cap nor a small factor empties the noise class."""
    vectors, own = rows(n=21, n_own=20)
    assert draw(vectors, own, cap=cap, factor=factor).tolist() == [20]


@pytest.mark.parametrize("factor", [None, 2.0])
def test_noise_is_empty_only_where_there_are_no_other_rows(factor):
    vectors, own = rows(n=5, n_own=5)
    assert draw(vectors, own, factor=factor).tolist() == []


@pytest.mark.parametrize(("cap", "factor"), [(50, None), (4000, None), (50, 4.0), (4000, 2.0)])
def test_noise_is_sorted_without_repeats_and_never_the_experts_own(cap, factor):
    vectors, own = rows()
    drawn = draw(vectors, own, cap=cap, factor=factor)
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert not own[drawn].any()


@pytest.mark.parametrize(
    ("cap", "factor", "expected"),
    [(50, None, 50), (4000, 2.0, 40), (30, 2.0, 30), (4000, 100.0, 180)],
)
def test_cap_and_factor_limit_the_rows(cap, factor, expected):
    vectors, own = rows()
    assert len(draw(vectors, own, cap=cap, factor=factor)) == expected


def test_beyond_the_cap_half_are_the_nearest_and_half_reach_farther():
    vectors, own = rows()
    drawn = draw(vectors, own, cap=40)
    assert drawn[:20].tolist() == list(range(20, 40))
    assert drawn[20:].min() >= 40
    assert drawn[20:].max() > 100


def test_the_drawn_half_favours_near_rows():
    """Weights fall in a line from 1 to 0: the nearer half of the rest holds 3 of 4 draws."""
    vectors, own = rows()
    far = [(draw(vectors, own, cap=20, seed=seed)[10:] >= 115).mean() for seed in range(100)]
    assert 0.2 < np.mean(far) < 0.3


@pytest.mark.parametrize("factor", [None, 2.0])
def test_the_draw_follows_the_seed(factor):
    """Defect 22: the same generator draws the same rows."""
    vectors, own = rows()
    first = draw(vectors, own, cap=40, factor=factor, seed=1)
    assert first.tolist() == draw(vectors, own, cap=40, factor=factor, seed=1).tolist()
    assert first.tolist() != draw(vectors, own, cap=40, factor=factor, seed=2).tolist()
