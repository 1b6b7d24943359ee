"""Batches of fixed shape."""

from __future__ import annotations

import numpy as np
import pytest

from red_ray.encoding.batches import Batch, TokenTable, bucket_lengths, cut_batches


@pytest.mark.parametrize(
    ("max_tokens", "expected"),
    [
        (256, [16, 32, 48, 64, 96, 128, 192, 256]),
        (48, [16, 32, 48]),
        (50, [16, 32, 48, 50]),
        (9, [9]),
    ],
)
def test_buckets_end_at_the_longest_text(max_tokens: int, expected: list[int]) -> None:
    assert bucket_lengths(max_tokens).tolist() == expected


def test_every_text_is_in_one_batch_that_is_long_enough_and_not_longer() -> None:
    buckets = bucket_lengths(64)
    lengths = np.random.default_rng(0).integers(1, 65, size=300)
    batches = cut_batches(lengths, buckets, batch_rows=16)
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == list(range(300))
    for batch in batches:
        assert len(batch.rows) <= 16
        needed = buckets[np.searchsorted(buckets, lengths[batch.rows])]
        assert set(needed.tolist()) == {batch.length}


def test_the_longest_batches_come_first() -> None:
    batches = cut_batches(np.array([3, 60, 20, 4]), bucket_lengths(64), batch_rows=2)
    assert [batch.length for batch in batches] == [64, 32, 16]


def test_no_texts_make_no_batches() -> None:
    table = TokenTable.from_ids([])
    assert cut_batches(table.lengths, bucket_lengths(64), batch_rows=2) == []


def test_fill_pads_rows_and_adds_dummies_that_attend_to_one_token() -> None:
    table = TokenTable.from_ids([[5, 6, 7], [8], [1, 2, 3, 4]])
    ids, mask = table.fill(Batch(np.array([2, 1]), length=5), batch_rows=3, pad_id=9)
    assert ids.tolist() == [[1, 2, 3, 4, 9], [8, 9, 9, 9, 9], [9, 9, 9, 9, 9]]
    assert mask.tolist() == [[1, 1, 1, 1, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
