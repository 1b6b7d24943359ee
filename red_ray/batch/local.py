"""Classifies shards in this process: the encoder on all processors, the rest beside it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from red_ray.batch.counts import BatchCounts
from red_ray.batch.parts import Finished, PartsFolder, write_part
from red_ray.batch.remote_parts import RemoteParts
from red_ray.batch.rows import with_decisions
from red_ray.batch.shards import Chunk, Shard, cut_chunks
from red_ray.model import Assessment, RedModel
from red_ray.types import Decision

Floats = NDArray[np.float32]
T = TypeVar("T")

Escalate = Callable[[Sequence[str], Floats, Assessment, Sequence[Decision]], Future[list[Decision]]]
"""Begins to ask a judge about escalated texts; see `Escalator.decide`."""


def classify_here(
    model: RedModel,
    shards: Iterable[Shard],
    parts: PartsFolder | RemoteParts,
    *,
    top_k: int = 3,
    escalate: Escalate | None = None,
) -> Generator[BatchCounts, None, None]:
    """Classify shards into their parts; yields the counts of their rows so far, chunk by chunk.

    Args:
        model: decides.
        shards: of a table.
        parts: where they go.
        top_k: a decision carries the `top_k - 1` next labels.
        escalate: asks a judge about what the model escalates, a chunk at a time; the next one is
            encoded meanwhile. By default nobody is asked.

    Raises:
        DataError: the source cannot be read on.
        OutputError: a part cannot be written.
        StorageError: the disk is full.
        JudgeError: the judge refuses or cannot be reached.
    """
    chunks = (chunk for shard in shards for chunk in cut_chunks(shard, model.config))
    gathered = _Gathered(parts.path)
    if escalate is None:
        settled = _decided(model, chunks, gathered, top_k)
    else:
        settled = _escalated(model, chunks, gathered, top_k, escalate)
    counts = BatchCounts()
    for found, finished in settled:
        counts += found
        yield counts
        if finished is not None:  # after that: who watches may find that it is of no use
            parts.add(finished)


def classify_shard(model: RedModel, shard: Shard, folder: Path | str, *, top_k: int) -> Finished:
    """Classify one shard and write its part, on one thread beside the encoder's.

    The chunks are those of `classify_here`, and so are the bits.

    Raises:
        OutputError: the part cannot be written.
        StorageError: the disk is full.
    """
    chunks = list(cut_chunks(shard, model.config))
    texts = [chunk.given for chunk in chunks]
    vectors = model.loaded_encoder.encode([text for given in texts for text in given])
    ends = list(accumulate(len(given) for given in texts))
    gathered = _Gathered(folder)
    for chunk, end in zip(chunks, ends, strict=True):
        decisions = _answers(model, chunk, vectors[end - len(chunk.given) : end], top_k)
        _, finished = gathered.take(chunk, decisions)
    if finished is None:
        raise RuntimeError("a shard has rows, and its last chunk ends it")
    return finished


Settled = tuple[BatchCounts, Finished | None]


class _Gathered:
    """The decided chunks of the shard that is under way."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = folder
        self._tables: list[pa.Table] = []
        self._counts = BatchCounts()

    def take(self, chunk: Chunk, answers: list[Decision]) -> Settled:
        """Take in a chunk; its counts, and the shard where that is finished by it."""
        decisions = chunk.whole(answers)
        counts = BatchCounts.of(decisions)
        self._tables.append(with_decisions(chunk.table, decisions, chunk.faults))
        self._counts += counts
        if not chunk.ends_shard:
            return counts, None
        shard = chunk.shard
        n_bytes = write_part(self._folder, shard.number, pa.concat_tables(self._tables))
        finished = Finished(shard.number, n_bytes, shard.is_last, self._counts)
        self._tables, self._counts = [], BatchCounts()
        return counts, finished


def _answers(model: RedModel, chunk: Chunk, vectors: Floats, top_k: int) -> list[Decision]:
    return model.decide(model.assess(chunk.given, vectors), top_k=top_k)


def _decided(
    model: RedModel, chunks: Iterable[Chunk], gathered: _Gathered, top_k: int
) -> Iterator[Settled]:
    """Each chunk decided by the model."""

    def settle(chunk: Chunk, vectors: Floats) -> Settled:
        return gathered.take(chunk, _answers(model, chunk, vectors, top_k))

    return _overlapped(model, chunks, settle)


def _escalated(
    model: RedModel,
    chunks: Iterable[Chunk],
    gathered: _Gathered,
    top_k: int,
    escalate: Escalate,
) -> Iterator[Settled]:
    """As `_decided`, after the judge; a chunk's questions are out while the next is assessed."""

    def ask(chunk: Chunk, vectors: Floats) -> tuple[Chunk, Future[list[Decision]]]:
        assessment = model.assess(chunk.given, vectors)
        decisions = model.decide(assessment, top_k=top_k)
        return chunk, escalate(chunk.given, vectors, assessment, decisions)

    pending: tuple[Chunk, Future[list[Decision]]] | None = None
    for asked in _overlapped(model, chunks, ask):
        if pending is not None:
            yield gathered.take(pending[0], pending[1].result())
        pending = asked
    if pending is not None:
        yield gathered.take(pending[0], pending[1].result())


def _overlapped(
    model: RedModel, chunks: Iterable[Chunk], work: Callable[[Chunk, Floats], T]
) -> Iterator[T]:
    """What `work` makes of each chunk and its vectors, while the next chunk is encoded."""
    encoder = model.loaded_encoder
    with ThreadPoolExecutor(1, thread_name_prefix="evidence") as worker:
        pending: Future[T] | None = None
        for chunk in chunks:
            vectors = encoder.encode(chunk.given)
            if pending is not None:
                yield pending.result()
            pending = worker.submit(work, chunk, vectors)
        if pending is not None:
            yield pending.result()
