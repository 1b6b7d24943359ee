"""Workers as threads of this process: for Tune trials, tests and machines without Ray."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from red_ray.config import RunConfig
from red_ray.core.partition import Subsets
from red_ray.encoding import EncoderSpec, TunedWeights, TuningRows, open_encoder, tune_once
from red_ray.experts import ExpertHost, ExpertSpec
from red_ray.judges import PoolStats, ValidatorPool
from red_ray.model import TextEncoder
from red_ray.training.fleet import Crew, ExpertHandle, RouterHandle
from red_ray.training.reduction import umap_reduce
from red_ray.training.router_host import RouterHost
from red_ray.types import Question, Verdict

Floats = NDArray[np.float32]

logger = logging.getLogger(__name__)


class Threaded:
    """Calls a plain object's methods on a thread pool, as an actor handle would on an actor."""

    def __init__(self, target: object, threads: ThreadPoolExecutor, *first: Any) -> None:
        self._target = target
        self._threads = threads
        self._first = first

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method: Callable[..., Any] = getattr(self._target, name)

        def call(*args: Any) -> Awaitable[Any]:
            loop = asyncio.get_running_loop()
            return loop.run_in_executor(self._threads, partial(method, *self._first, *args))

        return call


class PoolValidator:
    """A validator pool of this process, as the loop asks it.

    Args:
        pool: asks the judge.
        judge_name: part of every question's key.
        run: names the run in the ledger; empty where none goes on after a stop.
    """

    def __init__(self, pool: ValidatorPool, judge_name: str, run: str = "") -> None:
        self._pool = pool
        self._run = run
        self.judge_name = judge_name

    async def validate(self, questions: Sequence[Question], round_number: int) -> Sequence[Verdict]:
        """See `ValidatorPool.validate`."""
        asked_in = f"{self._run}/{round_number}" if self._run else ""
        return await self._pool.validate(questions, asked_in=asked_in)

    async def stats(self) -> PoolStats:
        """See `ValidatorPool.stats`."""
        return self._pool.stats()


class LocalFleet:
    """A fleet of threads; close it after the run."""

    router_kind: type[RouterHost] = RouterHost

    def __init__(self, encoder: TextEncoder, *, n_threads: int = 2) -> None:
        self._encoder = encoder
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="red-ray")

    async def encode(self, texts: Sequence[str]) -> Floats:
        """See `Fleet.encode`."""
        return await asyncio.to_thread(self._encoder.encode, texts)

    async def tune(self, config: RunConfig, rows: TuningRows, name: str) -> TunedWeights:
        """See `Fleet.tune`."""
        logger.info("fine_tuning", extra={"on": name, "n_rows": len(rows.texts)})
        work = partial(tune_once, config.encoder, rows, config.setfit, seed=config.seed)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def encode_tuned(
        self, config: RunConfig, texts: Sequence[str], weights: TunedWeights
    ) -> Floats:
        """See `Fleet.encode_tuned`."""
        encode = partial(encode_tuned, config, texts, weights)
        return await asyncio.get_running_loop().run_in_executor(self._threads, encode)

    async def encoder_spec(self) -> EncoderSpec | None:
        """See `Fleet.encoder_spec`."""
        return getattr(self._encoder, "spec", None)

    async def open(
        self,
        config: RunConfig,
        vectors: Floats,
        texts: Sequence[str],
        subsets: Subsets,
        specs: Sequence[ExpertSpec],
        gate: ExpertSpec | None,
    ) -> Crew:
        """See `Fleet.open`."""
        everyone = [*specs, gate] if gate else [*specs]
        host = ExpertHost(everyone)
        host.load(vectors)
        handles = [Threaded(host, self._threads, position) for position in range(len(everyone))]
        router = self.router_kind(config, sum(len(subset) for subset in subsets))
        router.load(vectors, texts, subsets)
        return Crew(
            experts=tuple(cast("list[ExpertHandle]", handles[: len(specs)])),
            gate=cast("ExpertHandle", handles[-1]) if gate else None,
            router=cast("RouterHandle", Threaded(router, self._threads)),
            shared=lambda vectors: vectors,
        )

    async def reduce(self, embeddings: Floats, n_dims: int, seed: int) -> Floats:
        """See `Fleet.reduce`."""
        return await asyncio.to_thread(umap_reduce, embeddings, n_dims, seed)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()


def encode_tuned(config: RunConfig, texts: Sequence[str], weights: TunedWeights) -> Floats:
    """Vectors by the fine-tuned encoder, through its store, shape (n_texts, dim)."""
    with closing(open_encoder(config.encoder, n_threads=1, tuned=weights)) as encoder:
        return encoder.encode(texts)
