"""A table cut into shards of fixed row ranges, and shards into chunks."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from red_ray.config import RunConfig
from red_ray.data.tables import iter_tables, texts_of
from red_ray.errors import DataError
from red_ray.types import Decision

CHUNK_ROWS = 2048
"""Rows at a time: enough for full batches of every length, little enough to stream."""

SHARD_ROWS = 2 * CHUNK_ROWS
"""Rows of a part file: some seconds of one processor, so that little is done again after a kill
and the processors of a small table end at about the same time."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A row range of a table: number `n` begins at row `n * SHARD_ROWS`."""

    number: int
    table: pa.Table
    is_last: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """Part of a shard: its texts, and why some of them cannot be classified.

    Attributes:
        shard: what it is of.
        ends_shard: whether it is the shard's last.
        table: its rows.
        texts: of the rows, None where there is no value.
        faults: why a text cannot be classified, None where it can.
    """

    shard: Shard
    ends_shard: bool
    table: pa.Table
    texts: list[str | None]
    faults: list[str | None]

    @property
    def given(self) -> list[str]:
        """The texts that can be classified."""
        pairs = zip(self.texts, self.faults, strict=True)
        return [text for text, fault in pairs if fault is None and text is not None]

    def whole(self, decisions: list[Decision]) -> list[Decision | None]:
        """A decision for each row, None where there is none."""
        left = iter(decisions)
        return [next(left) if fault is None else None for fault in self.faults]


def read_shards(
    source: Path, text_column: str, done: Container[int] = frozenset()
) -> Iterator[Shard]:
    """The shards of a table but for those in `done`; it is opened and checked at once.

    Raises:
        DataError: as `iter_tables`.
    """
    tables = iter_tables(source, text_column=text_column, chunk_rows=SHARD_ROWS)
    return (shard for shard in _numbered(tables) if shard.number not in done)


def _numbered(tables: Iterator[pa.Table]) -> Iterator[Shard]:
    number, held = 0, None
    try:
        for table in tables:
            if held is not None:
                yield Shard(number, held, is_last=False)
                number += 1
            held = table
    except DataError:  # what was read before is good
        if held is not None:
            yield Shard(number, held, is_last=False)
        raise
    if held is not None:
        yield Shard(number, held, is_last=True)


def cut_chunks(shard: Shard, config: RunConfig) -> Iterator[Chunk]:
    """The chunks of a shard, in order."""
    n_rows = shard.table.num_rows
    for start in range(0, n_rows, CHUNK_ROWS):
        table = shard.table.slice(start, CHUNK_ROWS)
        texts = texts_of(table, config.text_column)
        faults = [_fault(text, config.max_chars) for text in texts]
        yield Chunk(shard, start + CHUNK_ROWS >= n_rows, table, texts, faults)


def _fault(text: str | None, max_chars: int) -> str | None:
    if text is None:
        return "no text"
    if not text.strip():
        return "empty text"
    return f"over {max_chars} characters" if len(text) > max_chars else None
