"""The rows of the seed's table: its short texts get test rows that nothing else holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.red_data import halved, has_honest_test, labels_elsewhere, load
from red_ray.core.text import text_key
from red_ray.data.prepare import LabelledRows

ROWS = LabelledRows(
    tuple(f"text {n}" for n in range(1000)), tuple(f"label {n % 7}" for n in range(1000))
)


def pairs(rows):
    return set(zip(rows.texts, rows.labels, strict=True))


class TestHalved:
    def test_every_row_is_in_one_half_with_its_label(self):
        pool, test = halved(ROWS)
        assert len(pool) + len(test) == len(ROWS)
        assert pairs(pool) | pairs(test) == pairs(ROWS)

    def test_the_halves_are_near_equal(self):
        """Within five standard deviations of a fair coin."""
        pool, _ = halved(ROWS)
        assert abs(len(pool) - 500) < 5 * 1000**0.5 / 2

    def test_neither_order_nor_company_moves_a_row(self):
        pool, test = halved(ROWS)
        turned = halved(ROWS.take(range(999, 499, -1)))
        assert pairs(turned[0]) <= pairs(pool)
        assert pairs(turned[1]) <= pairs(test)
        assert pairs(turned[0]) | pairs(turned[1]) == pairs(ROWS.take(range(500, 1000)))

    def test_texts_that_count_as_the_same_share_a_half(self):
        loud = LabelledRows(tuple(f"  {text.upper()} " for text in ROWS.texts), ROWS.labels)
        assert [len(half) for half in halved(loud)] == [len(half) for half in halved(ROWS)]
        assert text_key(halved(loud)[0].texts[0]) == text_key(halved(ROWS)[0].texts[0])


class TestLabelsElsewhere:
    OTHERS = (
        LabelledRows(("A fine  cream", "too sweet", "disputed"), ("feel", "taste", "feel")),
        LabelledRows(("too sweet", "disputed", "nobody asks"), ("taste", "taste", "feel")),
    )

    def test_a_label_is_found_whatever_case_and_space(self):
        found = labels_elsewhere(["a fine cream", "too sweet"], self.OTHERS)
        assert found == LabelledRows(("a fine cream", "too sweet"), ("feel", "taste"))

    def test_what_no_file_labels_is_left_out(self):
        assert labels_elsewhere(["unheard of"], self.OTHERS) == LabelledRows((), ())

    def test_what_two_files_dispute_is_left_out(self):
        found = labels_elsewhere(["disputed", "too sweet"], self.OTHERS)
        assert found.texts == ("too sweet",)


@pytest.mark.parametrize(
    ("name", "per_label", "has"),
    [("seed_short_text", 30, True), ("seed_short_text", 50, False), ("clinc150", 100, True)],
)
def test_only_the_short_texts_beyond_thirty_lack_test_rows(name, per_label, has):
    assert has_honest_test(name, per_label) is has


@pytest.mark.data
class TestPublished:
    @pytest.fixture(autouse=True)
    def folder(self, monkeypatch):
        default = Path(__file__).resolve().parents[4] / "shared" / "data"
        place = Path(os.environ.get("RED_RAY_DATA", default))
        if not place.is_dir():
            pytest.skip(f"no data sets at {place}: set RED_RAY_DATA to where they are")
        monkeypatch.setenv("RED_RAY_DATA", str(place))
        return place

    @pytest.mark.parametrize(
        ("name", "per_label", "sizes"),
        [
            ("banking77", 30, (2310, 7689, 3073)),
            ("banking77", 100, (7437, 2562, 3073)),
            ("clinc150", 100, (15000, 2997, 4498)),  # its pool is val.csv
            ("seed_short_text", 30, (866, 488, 507)),
        ],
    )
    def test_no_text_is_in_two_parts_and_the_judge_knows_the_whole_pool(
        self, name, per_label, sizes
    ):
        _, inputs, test = load(name, per_label, 0, {})
        parts = [inputs.train.texts, inputs.pool, test.rows.texts]
        keys = [{text_key(text) for text in part} for part in parts]
        assert tuple(len(part) for part in parts) == sizes
        assert not keys[0] & keys[1]
        assert not (keys[0] | keys[1]) & keys[2]
        assert all(inputs.hidden.of(text) is not None for text in inputs.pool)
        assert set(test.rows.labels) <= set(inputs.train.labels)

    def test_the_short_texts_at_fifty_are_refused(self):
        with pytest.raises(ValueError, match="no honest test set"):
            load("seed_short_text", 50, 0, {})

    def test_the_seed_of_a_run_moves_no_row_between_pool_and_test(self):
        first, second = (load("seed_short_text", 30, seed, {}) for seed in (0, 1))
        assert first[1].pool == second[1].pool
        assert first[2].rows == second[2].rows
