"""The actors: each a plain class of another package, made remote in `fleet.py`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from red_ray.config import EncoderConfig, RunConfig
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.encoding import CachedEncoder, EncoderSpec, open_encoder
from red_ray.experts import ExpertHost
from red_ray.judges import Ledger, PoolStats, ValidatorPool, make_judge
from red_ray.judges.votes import lexical_votes
from red_ray.training import Fleet, Trainer, TrainingJob
from red_ray.training.fleet import Validator
from red_ray.training.router_host import RouterHost
from red_ray.types import Question, Verdict

Floats = NDArray[np.float32]


class EncoderActor:
    """Encodes texts through the store of its machine."""

    def __init__(self, config: EncoderConfig, n_threads: int) -> None:
        self._config = config
        self._n_threads = n_threads

    @cached_property
    def _encoder(self) -> CachedEncoder:
        # Not in the constructor: what it raises there, Ray keeps as text alone.
        return open_encoder(self._config, n_threads=self._n_threads)

    def encode(self, texts: Sequence[str]) -> Floats:
        """See `CachedEncoder.encode`."""
        return self._encoder.encode(texts)

    def spec(self) -> EncoderSpec:
        """What decides the vectors."""
        return self._encoder.spec

    def counts(self) -> tuple[int, int]:
        """Texts encoded, and texts found in the store."""
        return self._encoder.n_encoded, self._encoder.n_found


class ExpertActor(ExpertHost):
    """One or several experts; its actor name says which labels they serve."""


class RouterActor(RouterHost):
    """Evidence, router and acquisition of a run."""


class ValidatorPoolActor:
    """The async validator pool of one judge."""

    def __init__(
        self,
        config: RunConfig,
        ledger: str,
        examples: LabelledRows,
        hidden: HiddenLabels | None,
    ) -> None:
        self._config = config
        self._place = ledger
        self._examples = examples
        self._hidden = hidden

    async def open(self) -> str:
        """Open the judge and the ledger; the judge's name, part of every question's key."""
        # Not in the constructor: what it raises there, Ray keeps as text alone.
        judge = make_judge(
            self._config.judge,
            seed=self._config.seed,
            hidden=self._hidden.of if self._hidden else None,
            votes=lexical_votes(self._examples.texts, self._examples.labels),
        )
        self._ledger = Ledger(self._place)
        self._pool = ValidatorPool(judge, self._ledger, self._config.judge)
        return judge.name

    async def validate(self, questions: Sequence[Question]) -> list[Verdict]:
        """See `ValidatorPool.validate`."""
        return await self._pool.validate(questions)

    async def exhausted(self) -> bool:
        """Whether the budget is used up."""
        return self._pool.exhausted

    async def stats(self) -> PoolStats:
        """What the pool did so far."""
        return self._pool.stats()

    async def close(self) -> None:
        """Close the judge's connections and the ledger."""
        await self._pool.close()
        self._ledger.close()


class CoordinatorActor(Trainer):
    """Drives a run; holds no model, only handles of those who do."""

    def __init__(self, job: TrainingJob, fleet: Fleet, validator: Validator | None) -> None:
        # Ray keeps what a worker logs; the root logger would pass warnings alone.
        logging.basicConfig(level=logging.INFO)
        super().__init__(job, fleet, validator)
