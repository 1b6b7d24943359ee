"""Classifies tables of any size, a chunk at a time; a bad row is told apart, not dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from red_ray.data.tables import TableWriter, iter_tables, texts_of
from red_ray.model import RedModel
from red_ray.types import Decision

CHUNK_ROWS = 2048
"""Rows at a time: enough for full batches of every length, little enough to stream."""

COLUMNS = (
    pa.field("label", pa.string()),
    pa.field("confidence", pa.float64()),
    pa.field("decision", pa.string()),
    pa.field("source", pa.string()),
    pa.field("alternatives", pa.string()),
    pa.field("expert", pa.string()),
    pa.field("error", pa.string()),
)
"""What is added to the input's columns; `alternatives` is JSON."""


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """Rows of a finished table, by what was decided; `errors` are rows that have no usable text."""

    rows: int
    accepted: int
    none: int
    errors: int


def classify_table(
    model: RedModel, source: Path, target: Path, *, top_k: int = 3
) -> Iterator[BatchCounts]:
    """Classify a table into another one; yields the counts so far after each chunk.

    Every input column is kept; one that has the name of an output column comes out as
    `input_NAME`. The target appears when all is written.

    Raises:
        DataError: the source cannot be read.
        OutputError: the target cannot be written.
        StorageError: the disk is full.
    """
    config = model.config
    tables = iter_tables(source, text_column=config.text_column, chunk_rows=CHUNK_ROWS)
    counts = BatchCounts(0, 0, 0, 0)
    with TableWriter(target) as writer:
        for table, texts, decisions in _decided(model, tables, top_k):
            errors = [_fault(text, config.max_chars) for text in texts]
            writer.write(_with_decisions(table, decisions, errors))
            counts = _counted(counts, decisions)
            yield counts


def _decided(
    model: RedModel, tables: Iterator[pa.Table], top_k: int
) -> Iterator[tuple[pa.Table, list[str | None], list[Decision | None]]]:
    """Each table with its texts and decisions; None for a row without a usable text."""
    config = model.config
    waiting: list[tuple[pa.Table, list[str | None], list[bool]]] = []

    def batches() -> Iterator[list[str]]:
        for table in tables:
            texts = texts_of(table, config.text_column)
            usable = [_fault(text, config.max_chars) is None for text in texts]
            waiting.append((table, texts, usable))
            pairs = zip(texts, usable, strict=True)
            yield [text for text, fine in pairs if fine and text is not None]

    for distribution in model.distributions(batches()):
        table, texts, usable = waiting.pop(0)
        decided = iter(model.decide(distribution, top_k=top_k))
        yield table, texts, [next(decided) if fine else None for fine in usable]


def _fault(text: str | None, max_chars: int) -> str | None:
    if text is None:
        return "no text"
    if not text.strip():
        return "empty text"
    return f"over {max_chars} characters" if len(text) > max_chars else None


def _with_decisions(
    table: pa.Table, decisions: Sequence[Decision | None], errors: Sequence[str | None]
) -> pa.Table:
    result = table.rename_columns(_input_names(table.column_names))
    for column in COLUMNS[:-1]:
        values = [None if one is None else _value(one, column.name) for one in decisions]
        result = result.append_column(column, pa.array(values, column.type))
    return result.append_column(COLUMNS[-1], pa.array(errors, COLUMNS[-1].type))


def _input_names(names: Sequence[str]) -> list[str]:
    """The input's columns, renamed where an output column or another one has the name."""
    taken = {column.name for column in COLUMNS} | set(names)
    ours = {column.name for column in COLUMNS}
    renamed = []
    for name in names:
        new = name
        while new in taken if new != name else new in ours:
            new = f"input_{new}"
        taken.add(new)
        renamed.append(new)
    return renamed


def _value(decision: Decision, column: str) -> object:
    if column == "alternatives":
        return json.dumps([asdict(one) for one in decision.alternatives], ensure_ascii=False)
    return getattr(decision, column)


def _counted(counts: BatchCounts, decisions: Sequence[Decision | None]) -> BatchCounts:
    kinds = [None if one is None else one.decision for one in decisions]
    return BatchCounts(
        rows=counts.rows + len(kinds),
        accepted=counts.accepted + kinds.count("accept"),
        none=counts.none + kinds.count("none"),
        errors=counts.errors + kinds.count(None),
    )
