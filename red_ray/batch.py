"""Classifies tables of any size, a chunk at a time; a bad row is told apart, not dropped."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from red_ray.config import RunConfig
from red_ray.data.tables import TableWriter, iter_tables, texts_of
from red_ray.model import Assessment, RedModel, TextEncoder
from red_ray.types import Decision

Floats = NDArray[np.float32]
Escalate = Callable[[Sequence[str], Floats, Assessment, Sequence[Decision]], Future[list[Decision]]]
"""Begins to ask a judge about escalated texts; see `Escalator.decide`."""

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
    """Rows of a finished table, by what was decided; `errors` are rows that have no usable text.

    `escalated`: that would ask a judge, and did not. `abstained`: on which the judge gave no
    result. Of the rest, `by_judge` and `by_person` were answered by one.
    """

    rows: int
    accepted: int
    none: int
    errors: int
    escalated: int = 0
    abstained: int = 0
    by_judge: int = 0
    by_person: int = 0


def classify_table(
    model: RedModel,
    source: Path,
    target: Path,
    *,
    top_k: int = 3,
    escalate: Escalate | None = None,
) -> Generator[BatchCounts, None, None]:
    """Classify a table into another one; yields the counts so far after each chunk.

    Every input column is kept; one that has the name of an output column comes out as
    `input_NAME`. The target appears when all is written.

    Args:
        model: decides.
        source: table of texts.
        target: where the decisions go.
        top_k: a decision carries the `top_k - 1` next labels.
        escalate: asks a judge about what the model escalates, a chunk at a time; the next one is
            encoded meanwhile. By default nobody is asked.

    Raises:
        DataError: the source cannot be read.
        OutputError: the target cannot be written.
        StorageError: the disk is full.
        JudgeError: the judge refuses or cannot be reached.
    """
    config = model.config
    tables = iter_tables(source, text_column=config.text_column, chunk_rows=CHUNK_ROWS)
    counts = BatchCounts(0, 0, 0, 0)
    if escalate is None:
        decided = _decided(model, tables, top_k)
    else:
        decided = _escalated(model, tables, top_k, escalate)
    with TableWriter(target) as writer:
        for chunk, answers in decided:
            decisions = chunk.whole(answers)
            errors = [_fault(text, config.max_chars) for text in chunk.texts]
            writer.write(_with_decisions(chunk.table, decisions, errors))
            counts = _counted(counts, decisions)
            yield counts


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Part of a table: its texts, and which of them can be classified."""

    table: pa.Table
    texts: list[str | None]
    usable: list[bool]

    @property
    def given(self) -> list[str]:
        """The usable texts."""
        pairs = zip(self.texts, self.usable, strict=True)
        return [text for text, fine in pairs if fine and text is not None]

    def whole(self, decisions: Sequence[Decision]) -> list[Decision | None]:
        """A decision for each text, None for one that cannot be used."""
        left = iter(decisions)
        return [next(left) if fine else None for fine in self.usable]


Decided = tuple[_Chunk, list[Decision]]


def _chunks(
    config: RunConfig, tables: Iterator[pa.Table], waiting: deque[_Chunk]
) -> Iterator[list[str]]:
    """The usable texts of each table, which waits for what becomes of them."""
    for table in tables:
        texts = texts_of(table, config.text_column)
        usable = [_fault(text, config.max_chars) is None for text in texts]
        waiting.append(_Chunk(table, texts, usable))
        yield waiting[-1].given


def _decided(model: RedModel, tables: Iterator[pa.Table], top_k: int) -> Iterator[Decided]:
    """Each chunk with its decisions."""
    waiting: deque[_Chunk] = deque()
    for assessment in model.assessments(_chunks(model.config, tables, waiting)):
        yield waiting.popleft(), model.decide(assessment, top_k=top_k)


def _escalated(
    model: RedModel, tables: Iterator[pa.Table], top_k: int, escalate: Escalate
) -> Iterator[Decided]:
    """As `_decided`, after the judge; a chunk's questions are out while the next is assessed."""
    waiting: deque[_Chunk] = deque()
    encoder = _Keeping(model.loaded_encoder)
    keeping = replace(model, encoder=encoder)
    pending: tuple[_Chunk, Future[list[Decision]]] | None = None
    for assessment in keeping.assessments(_chunks(model.config, tables, waiting)):
        chunk, vectors = waiting.popleft(), encoder.kept.popleft()
        decisions = model.decide(assessment, top_k=top_k)
        asked = escalate(chunk.given, vectors, assessment, decisions)
        if pending is not None:
            yield pending[0], pending[1].result()
        pending = chunk, asked
    if pending is not None:
        yield pending[0], pending[1].result()


class _Keeping:
    """Encodes, and keeps the vectors of the batches that are not decided yet."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self.kept: deque[Floats] = deque()

    def encode(self, texts: Sequence[str]) -> Floats:
        vectors = self._encoder.encode(texts)
        self.kept.append(vectors)
        return vectors


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
    answered = [one.source for one in decisions if one and one.decision in ("accept", "none")]
    return BatchCounts(
        rows=counts.rows + len(kinds),
        accepted=counts.accepted + kinds.count("accept"),
        none=counts.none + kinds.count("none"),
        errors=counts.errors + kinds.count(None),
        escalated=counts.escalated + kinds.count("escalate"),
        abstained=counts.abstained + kinds.count("abstain"),
        by_judge=counts.by_judge + answered.count("judge"),
        by_person=counts.by_person + answered.count("human"),
    )
