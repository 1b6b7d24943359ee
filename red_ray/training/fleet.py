"""Where a run's workers live, and what they can be asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from red_ray.config import RunConfig
from red_ray.core.partition import Subsets
from red_ray.encoding import EncoderSpec, TunedWeights, TuningRows
from red_ray.experts import Expert, ExpertSpec, FitRows
from red_ray.judges import PoolStats
from red_ray.training.job import Estimate
from red_ray.training.router_host import (
    CandidateView,
    Contradiction,
    PoolView,
    RouterParts,
    Scores,
)
from red_ray.types import Question, Verdict

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class ExpertHandle(Protocol):
    """An expert, wherever it lives; see `ExpertHost`."""

    def load_tuned(self, vectors: Any) -> Awaitable[None]: ...
    def fit(self, data: FitRows) -> Awaitable[None]: ...
    def crossfit(self, data: FitRows, *held: Any) -> Awaitable[Floats]: ...
    def score(self, rows: Ints) -> Awaitable[Floats]: ...
    def export(self) -> Awaitable[Expert]: ...


class RouterHandle(Protocol):
    """The router, wherever it lives; see `RouterHost`."""

    def calibrate(
        self,
        rows: Ints,
        labels: Ints,
        folds: Ints,
        n_trusted: int,
        scores: Scores,
        by_judge: bool = False,
    ) -> Awaitable[Estimate]: ...
    def follow_pool(self, pool: Ints, rows: Ints, labels: Ints) -> Awaitable[int]: ...
    def learn(self, rows: Ints, labels: Ints) -> Awaitable[None]: ...
    def weigh(self, first: int, scores: Scores) -> Awaitable[None]: ...
    def view_pool(self, left: NDArray[np.bool_], phase: str, draw: int) -> Awaitable[PoolView]: ...
    def gold(self, rows: Ints) -> Awaitable[tuple[CandidateView, ...]]: ...
    def contradicted(self) -> Awaitable[tuple[Contradiction, ...]]: ...
    def export(self) -> Awaitable[RouterParts]: ...


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers of one partition.

    `shared` makes of an array what `load_tuned` and `crossfit` take of it: sent once, for all.
    """

    experts: tuple[ExpertHandle, ...]
    gate: ExpertHandle | None
    router: RouterHandle
    shared: Callable[[Floats], Any]


class Fleet(Protocol):
    """Where the workers live."""

    async def encode(self, texts: Sequence[str]) -> Floats:
        """Embeddings of `texts`, shape (n_texts, dim), unit length."""

    async def tune(self, config: RunConfig, rows: TuningRows, name: str) -> TunedWeights:
        """Fine-tune the encoder; see `red_ray.encoding.tune_once`. `name` says on what rows."""

    async def encode_tuned(
        self, config: RunConfig, texts: Sequence[str], weights: TunedWeights
    ) -> Floats:
        """As `encode`, by the encoder with these weights."""

    async def encoder_spec(self) -> EncoderSpec | None:
        """What makes the embeddings; None where that cannot be said."""

    async def open(
        self,
        config: RunConfig,
        vectors: Floats,
        texts: Sequence[str],
        subsets: Subsets,
        specs: Sequence[ExpertSpec],
        gate: ExpertSpec | None,
    ) -> Crew:
        """Place the workers of a partition over the shared arrays; replaces the ones before.

        `texts` are those of the first `vectors`; the router takes no look at those behind them.
        """

    async def reduce(self, embeddings: Floats, n_dims: int, seed: int) -> Floats:
        """Reduce label embeddings by UMAP, shape (n_labels, n_dims)."""


class Validator(Protocol):
    """Asks the judge; see `ValidatorPool`."""

    judge_name: str

    async def validate(self, questions: Sequence[Question], round_number: int) -> Sequence[Verdict]:
        """Verdicts in any order; a question that the budget left unasked has none.

        The same round of a run that was cut short gets what it got before, failures too.
        """

    async def stats(self) -> PoolStats | None:
        """How far it is; None where that cannot be said just now."""
