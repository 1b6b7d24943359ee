"""From texts to what the router makes of them, in one process or with experts elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from red_ray.model import Assessment, RedModel, joined
from serve.loaded import Loaded

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scored:
    """What is known about some texts that went through the model together.

    Attributes:
        vectors: embeddings, shape (n_texts, dim).
        evidence: shape (n_texts, n_labels, len(Column)).
        assessment: what the router makes of it.
        encode_ms, evidence_ms: time that the whole batch took.
    """

    vectors: Floats
    evidence: Floats
    assessment: Assessment
    encode_ms: float
    evidence_ms: float

    def cut(self, start: int, end: int) -> Scored:
        """The part about the texts from `start` to `end`."""
        rows, whole = slice(start, end), self.assessment
        part = Assessment(whole.label_proba[rows], whole.label_risk[rows], whole.none[rows])
        return Scored(
            self.vectors[rows], self.evidence[rows], part, self.encode_ms, self.evidence_ms
        )


def together(parts: Sequence[Scored]) -> Scored:
    """The parts of one call, at least one, as one; times are summed."""
    if len(parts) == 1:
        return parts[0]
    return Scored(
        vectors=np.concatenate([part.vectors for part in parts]),
        evidence=np.concatenate([part.evidence for part in parts]),
        assessment=joined([part.assessment for part in parts]),
        encode_ms=sum(part.encode_ms for part in parts),
        evidence_ms=sum(part.evidence_ms for part in parts),
    )


class Scorer(Protocol):
    """Assesses texts; what differs between the layouts."""

    async def score(self, loaded: Loaded, texts: Sequence[str]) -> Scored:
        """Assess some texts, at least one."""

    async def warm(self, loaded: Loaded) -> None:
        """Make ready for a model that is about to answer."""


SHORT_CHARS = 256
"""A text alone that is no longer takes some ten milliseconds, and an eighth more where another
thread is woken for it."""


class PackedScorer:
    """Encoder and experts in this process, on one thread that nobody else uses.

    Another thread for each batch, as `asyncio.to_thread` takes them, would give torch a team of
    threads for each. A short text alone stays on the event loop's: what comes in meanwhile is the
    next batch all the same.
    """

    def __init__(self, thread: Executor) -> None:
        self._thread = thread

    async def score(self, loaded: Loaded, texts: Sequence[str]) -> Scored:
        """See `Scorer.score`."""
        if len(texts) == 1 and len(texts[0]) <= SHORT_CHARS:
            return _score(loaded.model, texts)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, _score, loaded.model, texts)

    async def warm(self, loaded: Loaded) -> None:
        """See `Scorer.warm`."""


class Shard(Protocol):
    """Some of a model's experts, in a process of their own."""

    async def score(
        self, bundle: tuple[str, str], texts: Sequence[str], vectors: Floats
    ) -> list[Floats]:
        """What each of its experts makes of the texts; see `Expert.score`.

        Args:
            bundle: its id and its folder: a shard reads one that it does not have.
            texts: for experts with an encoder of their own.
            vectors: of the model's encoder, shape (n_texts, dim).
        """


class ShardedScorer:
    """The encoder and what compares texts with examples here, the experts in shards.

    Args:
        thread: the encoder's.
        shards: shard i holds the experts i, i + n, i + 2 n, … of n shards.
    """

    def __init__(self, thread: Executor, shards: Sequence[Shard]) -> None:
        self._thread = thread
        self._shards = shards

    async def score(self, loaded: Loaded, texts: Sequence[str]) -> Scored:
        """See `Scorer.score`."""
        loop, model = asyncio.get_running_loop(), loaded.model
        start = perf_counter()
        encode = model.loaded_encoder.encode
        vectors = await loop.run_in_executor(self._thread, encode, texts)
        encoded = perf_counter()
        scores = await self._experts(loaded, texts, model.expert_vectors(vectors))
        return await loop.run_in_executor(
            self._thread, _weighed, model, texts, vectors, scores, start, encoded
        )

    async def warm(self, loaded: Loaded) -> None:
        """See `Scorer.warm`."""
        model = loaded.model
        texts = model.example_texts[:1]
        vectors = model.loaded_encoder.encode(texts)
        await self._experts(loaded, texts, model.expert_vectors(vectors))

    async def _experts(self, loaded: Loaded, texts: Sequence[str], vectors: Floats) -> list[Floats]:
        bundle = (loaded.model.bundle_id, loaded.address or str(loaded.folder))
        given = await asyncio.gather(
            *(shard.score(bundle, texts, vectors) for shard in self._shards)
        )
        n_shards = len(self._shards)
        return [given[at % n_shards][at // n_shards] for at in range(len(loaded.model.subsets))]


def _score(model: RedModel, texts: Sequence[str]) -> Scored:
    start = perf_counter()
    vectors = model.loaded_encoder.encode(texts)
    return _weighed(model, texts, vectors, None, start, perf_counter())


def _weighed(
    model: RedModel,
    texts: Sequence[str],
    vectors: Floats,
    scores: Sequence[Floats] | None,
    start: float,
    encoded: float,
) -> Scored:
    evidence = np.concatenate([*model.evidence(texts, vectors, scores)])
    assessment = model.assess_evidence(evidence)
    done = perf_counter()
    return Scored(vectors, evidence, assessment, 1e3 * (encoded - start), 1e3 * (done - encoded))
