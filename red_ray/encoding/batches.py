"""Token ids cut into batches of fixed shape.

A forward pass over other shapes may pick other kernels and give other bits. So every batch is
filled up to the same number of rows (unless the encoder saw that it need not be), and to a length
that its texts' own length decides: a row's bits depend neither on its company nor on its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

# Multiples of 16: torch's attention works in blocks of 16 tokens (measured: 12 cost more than
# 16, 24 as much as 32). Few of them, since every length in use pays for one half-filled batch.
_LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192)


def bucket_lengths(max_tokens: int) -> npt.NDArray[np.int64]:
    """Lengths that batches are padded to, ascending, ending at `max_tokens`."""
    return np.array([n for n in _LENGTHS if n < max_tokens] + [max_tokens], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Batch:
    """Which texts go through the model together, and padded to what.

    Attributes:
        rows: indices of the texts, shape (m,), m at most the rows of a batch.
        length: tokens per row.
    """

    rows: npt.NDArray[np.int64]
    length: int


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The token ids of many texts, end to end.

    Attributes:
        flat: all ids, shape (n_tokens,).
        starts: where each text begins in `flat`, shape (n_texts,).
        lengths: tokens of each text, shape (n_texts,), each at least 1.
    """

    flat: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    @classmethod
    def from_ids(cls, ids: Sequence[Sequence[int]]) -> TokenTable:
        """Lay out `ids`, the tokens of each text."""
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=int(lengths.sum()))
        return cls(flat=flat, starts=np.cumsum(lengths) - lengths, lengths=lengths)

    def fill(
        self, batch: Batch, *, batch_rows: int, pad_id: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The input of one forward pass.

        Returns:
            `input_ids` and `attention_mask`, each of shape (`batch_rows`, `batch.length`).
            Rows beyond the batch's texts are dummies of one pad token: a row that attends to
            nothing would be NaN.
        """
        columns = np.arange(batch.length)
        used = columns < self.lengths[batch.rows][:, None]
        source = np.where(used, self.starts[batch.rows][:, None] + columns, 0)
        input_ids = np.full((batch_rows, batch.length), pad_id, dtype=np.int64)
        mask = np.zeros_like(input_ids)
        mask[:, 0] = 1
        n_texts = len(batch.rows)
        input_ids[:n_texts] = np.where(used, self.flat[source], pad_id)
        mask[:n_texts] = used
        return input_ids, mask


def cut_batches(
    lengths: npt.NDArray[np.int64], buckets: npt.NDArray[np.int64], batch_rows: int
) -> list[Batch]:
    """Group texts of one bucket into batches, the longest first.

    Longest first, so that no thread starts the dearest batch when the others are done.

    Args:
        lengths: tokens of each text, shape (n_texts,), at most `buckets[-1]`.
        buckets: what batches are padded to, ascending.
        batch_rows: texts per batch.
    """
    bucket_of = np.searchsorted(buckets, lengths)
    batches: list[Batch] = []
    for bucket in np.unique(bucket_of)[::-1]:
        rows, length = np.flatnonzero(bucket_of == bucket), int(buckets[bucket])
        starts = range(0, len(rows), batch_rows)
        batches += [Batch(rows[start : start + batch_rows], length) for start in starts]
    return batches
