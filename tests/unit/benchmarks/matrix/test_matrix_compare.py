"""Columns against each other: what is found, what is not, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.matrix.compare import (
    Comparison,
    Overlap,
    Pair,
    compare,
    compare_task,
    held,
    ranks,
)
from benchmarks.matrix.intervals import Estimate, Spread
from benchmarks.matrix.questions import pareto_front
from benchmarks.matrix.results import read_matrix
from benchmarks.matrix.summary import summary
from red_ray.core.two_samples import holm
from red_ray.errors import DataError
from tests.unit.benchmarks.matrix.planted import Planted, exactly

ZERO = Estimate(0.0, (0.0, 0.0))


def columns(planted, *names, task="sst2"):
    matrix = read_matrix(planted.folder)
    return [held(matrix, task, name) for name in names]


def drawn(share, seed, n=400):
    return np.random.default_rng(seed).random(n) < share


def test_a_planted_difference_is_found_with_its_size(tmp_path):
    planted = Planted(tmp_path)
    for seed in (0, 1, 2):
        rng = np.random.default_rng(seed)
        planted.cell("flat", rng.permutation(exactly(280 + seed, 400)), seed=seed, n=400)
        planted.cell("BERT", rng.permutation(exactly(340 - seed, 400)), seed=seed, n=400)
    found = compare_task(read_matrix(tmp_path), "sst2")
    pair = found.pair("BERT", "flat")
    low, high = pair.difference.interval
    assert 0.05 < low < 0.15 < high < 0.25
    assert pair.told_apart
    assert pair.p_corrected < 0.01
    turned = found.pair("flat", "BERT")
    assert turned.difference.interval == (-high, -low)
    assert turned.overlap.only_a_wrong == pair.overlap.only_b_wrong


def test_no_difference_is_seldom_found(tmp_path):
    """Of twelve null pairs 0.6 are told apart by chance; `test_matrix_intervals` has the level."""
    pairs = []
    for number in range(12):
        planted = Planted(tmp_path / str(number))
        for seed in (0, 1, 2):
            at = 100 * number + 10 * seed
            planted.cell("flat", drawn(0.8, at, 150), seed=seed, n=150)
            planted.cell("BERT", drawn(0.8, at + 1, 150), seed=seed, n=150)
        pairs += compare_task(read_matrix(planted.folder), "sst2").pairs
    assert len(pairs) == 12
    assert sum(one.told_apart for one in pairs) <= 2
    for one in pairs:
        low, high = one.difference.interval
        assert one.told_apart == (not low <= 0 <= high)


def test_columns_that_differ_in_no_row_leave_open_what_so_few_rows_do(tmp_path):
    planted = Planted(tmp_path)
    for seed in (0, 1, 2):
        planted.cell("flat", exactly(40, 56), seed=seed, n=56)
        planted.cell("BERT", exactly(40, 56), seed=seed, n=56)
    pair = compare_task(read_matrix(tmp_path), "sst2").pairs[0]
    low, high = pair.difference.interval
    assert (pair.difference.value, low) == (0, -high)
    assert 0.05 < high < 0.08
    assert not pair.told_apart


def test_seeds_that_disagree_tell_nothing_apart(tmp_path):
    """Ten points better on the mean of three seeds, and once worse: the rows alone would do."""
    planted = Planted(tmp_path)
    for seed, n_right in enumerate((500, 900, 850)):
        planted.cell("flat", exactly(650, 1000), seed=seed, n=1000)
        planted.cell("BERT", exactly(n_right, 1000), seed=seed, n=1000)
    pair = compare_task(read_matrix(tmp_path), "sst2").pairs[0]
    assert pair.difference.value == pytest.approx(0.1)
    assert pair.difference.value > 5 * np.sqrt(pair.spread.rows)
    assert not pair.told_apart


def test_a_column_that_learned_from_other_rows_is_refused(tmp_path):
    """Its task was changed, and the others have not run again."""
    planted = Planted(tmp_path, ("flat", "BERT", "setfit"))
    for seed in (0, 1, 2):
        planted.cell("flat", 0.8, seed=seed)
        planted.cell("setfit", 0.8, seed=seed)
        planted.cell("BERT", 0.9, seed=seed, train_key=f"ten times as many rows, seed {seed}")
    found = compare_task(read_matrix(tmp_path), "sst2")
    assert {*found.accuracy} == {"flat", "setfit"}
    assert (
        "'BERT' learned from other rows than most columns (seeds 0, 1, 2)" in found.refused["BERT"]
    )


def test_pairing_finds_what_two_intervals_hide(tmp_path):
    """One column is right wherever the other is, and on 12 rows more: their intervals overlap."""
    planted = Planted(tmp_path, seeds=(0,))
    base = drawn(0.7, 3, 300)
    more = base.copy()
    more[np.flatnonzero(~base)[:12]] = True
    planted.cell("flat", base, n=300)
    planted.cell("BERT", more, n=300)
    found = compare_task(read_matrix(tmp_path), "sst2")
    assert found.accuracy["flat"].interval[1] > found.accuracy["BERT"].interval[0]
    assert found.pair("BERT", "flat").told_apart


def test_the_spread_over_seeds_is_in_the_interval(tmp_path):
    """The same rows are right in one, other ones with each seed in the other."""
    n = 400
    planted = Planted(tmp_path)
    for seed, share in enumerate((0.6, 0.75, 0.9)):
        planted.cell("flat", exactly(300, n), seed=seed, n=n)
        planted.cell("BERT", exactly(round(share * n), n), seed=seed, n=n)
    found = compare_task(read_matrix(tmp_path), "sst2").accuracy
    steady, loose = found["flat"].interval, found["BERT"].interval
    assert found["flat"].value == pytest.approx(found["BERT"].value)
    assert loose[1] - loose[0] > 2.5 * (steady[1] - steady[0])


def test_only_seeds_that_both_have_are_compared(tmp_path):
    planted = Planted(tmp_path)
    for seed in (0, 1, 2):
        planted.cell("flat", exactly(100, 200), seed=seed)
    planted.cell("BERT", exactly(150, 200), seed=1)
    planted.hole("BERT", "failed", "no weights", seed=0)
    pair = compare_task(read_matrix(tmp_path), "sst2").pairs[0]
    assert pair.seeds == (1,)
    assert pair.difference.value == pytest.approx(0.25)


def test_overlap_says_whose_errors_they_are(tmp_path):
    planted = Planted(tmp_path, seeds=(0,))
    a, b = np.ones(100, bool), np.ones(100, bool)
    a[:30], b[20:60] = False, False
    planted.cell("flat", a, n=100)
    planted.cell("BERT", b, n=100)
    both = compare_task(read_matrix(tmp_path), "sst2").pair("flat", "BERT").overlap
    assert both.both_wrong.value == pytest.approx(0.1)
    assert both.only_a_wrong.value == pytest.approx(0.2)
    assert both.only_b_wrong.value == pytest.approx(0.3)
    assert both.both_right.value == pytest.approx(0.4)
    low, high = both.both_wrong.interval
    assert 0.03 < low < 0.1 < high < 0.2


def test_a_changing_denominator_is_refused(tmp_path):
    """One column leaves out the rows that it finds hard: its accuracy is of others."""
    planted = Planted(tmp_path, ("flat", "BERT", "setfit"), seeds=(0,))
    planted.cell("flat", exactly(150, 200), n=200)
    planted.cell("setfit", exactly(140, 200), n=200)
    planted.cell("BERT", exactly(150, 160), n=160)
    with pytest.raises(DataError, match=r"'BERT' answered other report rows \(160\) .* denominat"):
        compare(columns(planted, "flat", "BERT"), "sst2", rng=np.random.default_rng(0))
    found = compare_task(read_matrix(tmp_path), "sst2")
    assert set(found.accuracy) == {"flat", "setfit"}
    assert "changing denominator" in found.refused["BERT"]


def test_other_rows_of_the_same_number_are_refused_too(tmp_path):
    planted = Planted(tmp_path, seeds=(0,))
    planted.cell("flat", 0.8)
    planted.cell("BERT", 0.8, salt="another ")
    with pytest.raises(DataError, match="changing denominator"):
        compare(columns(planted, "flat", "BERT"), "sst2", rng=np.random.default_rng(0))


def test_figures_that_divide_by_other_rows_than_the_predictions_are_refused(tmp_path):
    planted = Planted(tmp_path, seeds=(0,))
    place = planted.cell("flat", exactly(150, 200)) / "results.json"
    figures = {"n": 160, "n_right": 150, "accuracy": 150 / 160}
    place.write_text(json.dumps(json.loads(place.read_text()) | figures))
    with pytest.raises(DataError, match="160 rows, its predictions hold 200"):
        held(read_matrix(tmp_path), "sst2", "flat")


def test_p_values_are_corrected_over_all_pairs_of_the_task(tmp_path):
    names = ("flat", "BERT", "setfit", "RED speed")
    planted = Planted(tmp_path, names, seeds=(0,))
    for at, name in enumerate(names):
        planted.cell(name, drawn(0.7 + 0.04 * at, at, 300), n=300)
    found = compare_task(read_matrix(tmp_path), "sst2")
    assert len(found.pairs) == 6
    corrected = holm([pair.p for pair in found.pairs])
    assert [pair.p_corrected for pair in found.pairs] == pytest.approx(corrected)
    assert any(pair.p_corrected > pair.p for pair in found.pairs)


def comparison(order, apart):
    """Columns in an order, told apart where `apart` names the pair."""
    pairs = []
    for at, a in enumerate(order):
        for b in order[at + 1 :]:
            p = 0.01 if a + b in apart else 0.5
            gain = Estimate(0.1, (0.0, 0.2))
            overlap = Overlap(ZERO, ZERO, ZERO, ZERO)
            pairs.append(Pair(a, b, (0,), gain, Spread(0.0004, 0.0, 1, 0), p, p, overlap))
    accuracy = {name: Estimate(1 - at / 10, (0, 1)) for at, name in enumerate(order)}
    return Comparison("t", 100, accuracy, tuple(pairs), {})


@pytest.mark.parametrize(
    ("apart", "groups"),
    [
        ({"ab", "ac", "ad", "bc", "bd", "cd"}, ("a", "b", "c", "d")),
        ({"ac", "ad", "bc", "bd"}, ("ab", "cd")),
        # a is above d alone: no cut has all pairs across it told apart.
        ({"ad"}, ("abcd",)),
        ({"ab", "ac", "ad"}, ("a", "bcd")),
        (set(), ("abcd",)),
    ],
)
def test_a_ranking_stands_only_where_all_across_a_cut_are_told_apart(apart, groups):
    found = ranks(comparison("abcd", apart))
    assert found.groups == tuple(tuple(group) for group in groups)
    assert found.is_ranking == (len(groups) > 1)


def test_places_are_what_the_sure_comparisons_leave():
    found = ranks(comparison("abcd", {"ad", "bd"}))
    assert found.places == {"a": (1, 3), "b": (1, 3), "c": (1, 4), "d": (3, 4)}


def test_pareto_front_holds_what_nothing_beats():
    points = {
        "cheap": (1.0, 0.5),
        "good": (10.0, 0.9),
        "beaten": (11.0, 0.9),
        "worst": (12.0, 0.4),
        "middle": (5.0, 0.7),
        "twin": (5.0, 0.7),
    }
    assert pareto_front(points) == ("cheap", "middle", "twin", "good")


@pytest.mark.parametrize(
    ("usd", "per_hour", "price"),
    [(0.4, None, 2.0), (0.4, 1.0, 2.0), (0.0, None, None), (0.0, 3.6, 0.01), (None, 3.6, None)],
)
def test_a_judge_whose_calls_cost_nothing_costs_the_machines_time(tmp_path, usd, per_hour, price):
    """200 rows; 100 texts a second."""
    planted = Planted(tmp_path, ("judge",), seeds=(0,), usd_per_hour=per_hour)
    batch = {"texts": 320, "batch_size": 32, "per_s": 100.0}
    planted.cell("judge", 0.8, usd=usd, throughput_per_s=batch)
    matrix = read_matrix(tmp_path)
    found = summary(held(matrix, "sst2", "judge"), matrix.config).figures.get("usd_per_1000")
    assert (found and found.value) == (price and pytest.approx(price))
