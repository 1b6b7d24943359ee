from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import fisher_exact

from red_ray.core.two_samples import (
    holm,
    least_share,
    p_changed,
    p_exceeds,
    p_grew,
    power,
    ratio,
    rows_to_see,
)

COUNTS = [(5, 100, 3, 200), (0, 10, 5, 50), (30, 1000, 20, 3000), (7, 7, 7, 7), (0, 4, 0, 9)]


@pytest.mark.parametrize(("hits", "n", "before", "n_before"), COUNTS)
def test_one_sided_p_values_are_those_of_scipys_fisher_test(hits, n, before, n_before):
    table = [[hits, n - hits], [before, n_before - before]]
    expected = fisher_exact(table, alternative="greater").pvalue
    assert float(p_grew(hits, n, before, n_before)) == pytest.approx(expected, rel=1e-9)


def test_many_are_tested_at_once_and_a_fall_is_a_change_too():
    p = p_changed([30, 2, 10], 1000, [20, 60, 30], 3000)
    assert p.shape == (3,)
    assert p[0] < 1e-5
    assert p[1] < 1e-3
    assert p[2] == 1.0
    assert float(p_grew(2, 1000, 60, 3000)) > 0.99


def test_a_share_before_that_is_not_quite_known_counts_as_hides_a_change_best():
    p = p_changed(
        [60, 5, 30], 1000, [40, 50, 40], [3000, 3010, 3100], ([30, 45, 20], [3050, 3100, 3000])
    )
    known = [p_changed(hits, 1000, b, n)[()] for hits, b, n in ((60, 40, 3000), (5, 45, 3100))]
    assert p[:2] == pytest.approx(known)
    assert p[2] == pytest.approx(p_changed(30, 1000, 40, 3100))


def test_exceedances_are_as_rare_as_draws_alike_have_them():
    rng = np.random.default_rng(4)
    values = rng.random((20_000, 150))
    recent, before = values[:, :50], np.sort(values[:, 50:], axis=1)
    n_above = (recent > before[:, -5:-4]).sum(axis=1)  # above the fifth largest of 100
    for n in (3, 6, 9):
        assert p_exceeds(n, 50, 5, 100) == pytest.approx((n_above >= n).mean(), abs=0.012)
    assert p_exceeds(0, 50, 5, 100) == pytest.approx(1.0)
    # Few others, and nearly all above them: seen all the same.
    assert p_exceeds(40, 50, 2, 20) < 1e-7


def test_holm_multiplies_by_what_is_left_and_keeps_the_order():
    # By hand: 4 x 0.01, 3 x 0.013 = 0.039 but not below 0.04, 2 x 0.02 = 0.04, 1 x 0.9.
    assert holm([0.9, 0.013, 0.01, 0.02]) == pytest.approx([0.9, 0.04, 0.04, 0.04])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert len(holm([])) == 0


def test_the_level_holds_for_many_labels_at_once():
    """400 draws of two samples alike: at level 0.05 some 20 may alarm, by chance not above 34."""
    rng = np.random.default_rng(5)
    shares = rng.dirichlet(np.ones(40))
    alarms = 0
    for _ in range(400):
        recent, before = rng.multinomial(300, shares), rng.multinomial(900, shares)
        alarms += holm(p_changed(recent, 300, before, 900)).min() <= 0.05
    assert 0 < alarms <= 34


def test_the_ratio_is_finite_without_a_hit():
    assert ratio(20, 1000, 0, 1000) == pytest.approx(41)
    assert ratio(0, 1000, 20, 1000) == pytest.approx(1 / 41)
    assert ratio(10, 1000, 10, 1000) == pytest.approx(1)


def test_power_is_the_share_of_draws_that_are_found():
    rng = np.random.default_rng(1)
    hits = rng.binomial(200, 0.1, size=2000)
    drawn = float((p_grew(hits, 200, np.full(2000, 20), 1000) <= 0.001).mean())
    assert power(0.1, 200, 20, 1000, 0.001) == pytest.approx(drawn, abs=0.03)
    assert power(0.9, 1, 20, 1000, 0.001) == 0.0  # not even a hit would do


def test_what_could_have_been_seen_agrees_with_the_power():
    share = least_share(500, 20, 1000, 0.001, 0.8)
    assert power(share, 500, 20, 1000, 0.001) >= 0.8 > power(share - 0.001, 500, 20, 1000, 0.001)
    n = rows_to_see(0.06, 20, 1000, 0.001, 0.8)
    assert power(0.06, n, 20, 1000, 0.001) >= 0.8 > power(0.06, n // 2, 20, 1000, 0.001)


def test_what_no_number_of_rows_shows_is_none():
    assert rows_to_see(0.03, 1, 100, 5e-5, 0.8) is None
    assert least_share(1, 20, 1000, 0.001, 0.8) is None
