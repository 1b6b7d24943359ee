import re
from collections import Counter

import numpy as np
import pytest

from red_ray.core.text import text_key
from red_ray.data.splits import (
    assert_disjoint,
    sample_per_class,
    stratified_folds,
    stratified_split,
    without_leaks,
)
from red_ray.errors import ConfigError, DataError

SIZES = {"a": 1, "b": 2, "c": 3, "d": 10, "e": 41}
LABELS = [label for label, size in SIZES.items() for _ in range(size)]


def rng(seed=0):
    return np.random.default_rng(seed)


def shuffled(labels, seed):
    return [labels[i] for i in rng(seed).permutation(len(labels))]


def occurrences(labels, rows):
    """Which occurrence of its label each row is: independent of how labels are interleaved."""
    seen = Counter()
    number = []
    for label in labels:
        number.append((label, seen[label]))
        seen[label] += 1
    return sorted(number[row] for row in rows)


class TestSamplePerClass:
    @pytest.mark.parametrize("n", [1, 3, 100])
    @pytest.mark.parametrize("seed", range(5))
    def test_each_label_gives_n_rows_or_all_it_has(self, n, seed):
        labels = shuffled(LABELS, seed)
        rows = sample_per_class(labels, n, rng(seed))
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()
        drawn = Counter(labels[row] for row in rows)
        assert drawn == {label: min(n, size) for label, size in SIZES.items()}

    def test_the_seed_decides_the_draw(self):
        first = sample_per_class(LABELS, 3, rng(1))
        assert np.array_equal(first, sample_per_class(LABELS, 3, rng(1)))
        assert not np.array_equal(first, sample_per_class(LABELS, 3, rng(2)))

    def test_it_is_not_always_the_first_rows_that_are_drawn(self):
        draws = {tuple(sample_per_class(["x"] * 5, 1, rng(seed))) for seed in range(60)}
        assert draws == {(0,), (1,), (2,), (3,), (4,)}

    def test_no_labels_give_no_rows(self):
        assert sample_per_class([], 3, rng()).tolist() == []

    @pytest.mark.parametrize("seed", range(3))
    def test_the_order_of_the_labels_does_not_leak_into_the_draw(self, seed):
        other = shuffled(LABELS, seed)
        assert other != LABELS
        first = occurrences(LABELS, sample_per_class(LABELS, 3, rng(7)))
        assert occurrences(other, sample_per_class(other, 3, rng(7))) == first


class TestStratifiedSplit:
    @pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
    @pytest.mark.parametrize("seed", range(5))
    def test_every_row_once_and_every_label_keeps_one(self, fraction, seed):
        labels = shuffled(LABELS, seed)
        rest, held = stratified_split(labels, fraction, rng(seed))
        assert rest.dtype == held.dtype == np.int64
        assert sorted([*rest, *held]) == list(range(len(labels)))
        assert (np.diff(rest) > 0).all()
        assert (np.diff(held) > 0).all()
        assert {labels[row] for row in rest} == set(SIZES)
        assert "a" not in {labels[row] for row in held}

    @pytest.mark.parametrize("seed", range(5))
    def test_a_label_gets_the_whole_number_beside_its_share(self, seed):
        _, held = stratified_split(LABELS, 0.25, rng(seed))
        counts = Counter(LABELS[row] for row in held)
        assert counts["e"] in {10, 11}
        assert counts["d"] in {2, 3}
        assert counts["b"] in {0, 1}

    @pytest.mark.parametrize("seed", range(5))
    def test_small_shares_add_up_to_the_fraction(self, seed):
        labels = [f"label {n}" for n in range(100) for _ in range(4)]
        _, held = stratified_split(labels, 0.1, rng(seed))
        assert len(held) in {40, 41}

    def test_the_seed_decides_the_split(self):
        first, same, other = (stratified_split(LABELS, 0.3, rng(seed))[1] for seed in (1, 1, 2))
        assert np.array_equal(first, same)
        assert not np.array_equal(first, other)

    def test_the_order_of_the_labels_does_not_leak_into_the_split(self):
        other = shuffled(LABELS, 3)
        held = stratified_split(LABELS, 0.3, rng(7))[1]
        held_other = stratified_split(other, 0.3, rng(7))[1]
        assert occurrences(other, held_other) == occurrences(LABELS, held)

    def test_no_labels_give_two_empty_parts(self):
        rest, held = stratified_split([], 0.5, rng())
        assert (rest.tolist(), held.tolist()) == ([], [])

    @pytest.mark.parametrize("fraction", [-0.1, 0, 1, 1.5])
    def test_a_fraction_out_of_range(self, fraction):
        message = re.escape(f"between 0 and 1, got {fraction!r}")
        with pytest.raises(ConfigError, match=message):
            stratified_split(LABELS, fraction, rng())


class TestStratifiedFolds:
    codes = np.array([ord(label) for label in LABELS])

    @pytest.mark.parametrize("n_folds", [2, 5, 20])
    @pytest.mark.parametrize("seed", range(5))
    def test_the_rows_of_a_label_are_spread_evenly(self, n_folds, seed):
        labels = rng(seed).permutation(self.codes)
        folds = stratified_folds(labels, n_folds, rng(seed))
        assert folds.dtype == np.int64
        assert folds.shape == labels.shape
        for label in np.unique(labels):
            counts = np.bincount(folds[labels == label] + 1, minlength=n_folds + 1)
            if label == ord("a"):
                assert counts[0] == 1
            else:
                assert counts[0] == 0
                assert counts[1:].max() - counts[1:].min() <= 1

    @pytest.mark.parametrize("seed", range(5))
    def test_a_row_that_is_held_out_leaves_its_label_another(self, seed):
        folds = stratified_folds(self.codes, 5, rng(seed))
        for fold in range(5):
            left = set(self.codes[folds != fold])
            assert set(self.codes[folds == fold]) <= left

    def test_neighbours_in_the_file_do_not_follow_each_other_in_the_folds(self):
        folds = stratified_folds(np.zeros(1000, dtype=np.int64), 5, rng())
        follows = (folds[1:] - folds[:-1]) % 5 == 1
        assert 0.1 < follows.mean() < 0.3

    def test_small_labels_start_at_different_folds(self):
        folds = stratified_folds(np.repeat(np.arange(200), 2), 5, rng())
        sizes = np.bincount(folds)
        assert sizes.min() > 50
        assert len(sizes) == 5

    def test_the_seed_decides_the_folds(self):
        first, same, other = (stratified_folds(self.codes, 5, rng(seed)) for seed in (1, 1, 2))
        assert np.array_equal(first, same)
        assert not np.array_equal(first, other)

    def test_the_order_of_the_labels_does_not_leak_into_the_folds(self):
        other = np.array([ord(label) for label in shuffled(LABELS, 3)])
        folds, folds_other = (stratified_folds(codes, 5, rng(7)) for codes in (self.codes, other))
        for label in np.unique(self.codes):
            assert np.array_equal(folds[self.codes == label], folds_other[other == label])

    def test_one_fold_is_refused(self):
        with pytest.raises(ConfigError, match="at least 2 folds, got 1"):
            stratified_folds(self.codes, 1, rng())


class TestLeaks:
    def test_rows_that_were_seen_are_dropped_and_counted(self):
        seen = frozenset({text_key("one"), text_key("three")})
        kept, n_dropped = without_leaks(["One ", "two", "three", "four", "ONE"], seen)
        assert kept.tolist() == [1, 3]
        assert kept.dtype == np.int64
        assert n_dropped == 3

    def test_nothing_seen_drops_nothing(self):
        kept, n_dropped = without_leaks(["a", "b"], frozenset())
        assert (kept.tolist(), n_dropped) == ([0, 1], 0)

    def test_disjoint_splits_pass(self):
        assert_disjoint({"train": ["a", "b"], "pool": ["c"], "test": ["d"], "none": []})

    def test_an_overlap_is_refused_without_its_text(self):
        splits = {"train": ["a", "my secret"], "pool": ["c"], "test": ["d", " MY  secret", "A"]}
        with pytest.raises(DataError, match="'train' and 'test' share 2 texts") as e:
            assert_disjoint(splits)
        assert "secret" not in str(e.value).lower()
