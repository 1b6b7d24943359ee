"""Handles of actors, as the plain classes that use them await them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import ActorDiedError, ObjectLostError, RayActorError

from red_ray.config import SetFitConfig
from red_ray.core.partition import Subsets
from red_ray.encoding import TunedWeights
from red_ray.errors import ForgottenError
from red_ray.experts import Expert, FitRows
from red_ray.training.job import Estimate
from red_ray.training.router_host import (
    CandidateView,
    Contradiction,
    PoolView,
    RouterParts,
    Scores,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

RESTARTS = 10
"""Of one actor for one call: a process that dies so often will not live."""

RESTART_S, MAX_RESTART_S = 1.0, 30.0
"""Before the first and the last look whether an actor is back, each twice the one before: a process
is started again in a second or two, a lost machine is noticed after fifteen seconds, and another
one may take minutes to come."""

LOST = (RayActorError, ObjectLostError)
"""What a call ends with whose process or machine is gone, or what it gave back with it."""


class Remote:
    """Awaits an actor's methods; what is cancelled here is cancelled there too.

    A time-out alone would leave a call running, and a judge's call paying.
    """

    def __init__(self, actor: Any, *first: Any) -> None:
        self._actor = actor
        self._first = first

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("__"):
            raise AttributeError(name)  # pickle asks before `_actor` is there
        method = getattr(self._actor, name)

        async def call(*args: Any) -> Any:
            reference = method.remote(*self._first, *args)
            try:
                return await reference
            except asyncio.CancelledError:
                ray.cancel(reference)
                raise

        return call

    def __getstate__(self) -> tuple[Any, tuple[Any, ...]]:
        return self._actor, self._first

    def __setstate__(self, state: tuple[Any, tuple[Any, ...]]) -> None:
        self._actor, self._first = state


def waits_s() -> Iterator[float]:
    """How long to wait after each failure of a call, in seconds, before it is made again."""
    return (min(RESTART_S * 2**n, MAX_RESTART_S) for n in range(RESTARTS))


class Restarted:
    """An actor's handle that gives it what it must hold again where its process was lost.

    Args:
        actor: to be called.
        first: arguments that stand before those of each call.
    """

    def __init__(self, actor: Any, *first: Any) -> None:
        self._host = Remote(actor)
        self._target = Remote(actor, *first)
        self._is_in_doubt = False

    async def give_again(self) -> None:
        """Give the actor what it must hold; what it held before is replaced."""
        raise NotImplementedError

    async def _call(self, name: str, *args: Any) -> Any:
        has_all = False
        for wait_s in (*waits_s(), None):
            try:
                if self._is_in_doubt:
                    await self.give_again()
                    self._is_in_doubt, has_all = False, True
                return await getattr(self._target, name)(*args)
            except ActorDiedError:  # Ray will not start it again
                raise
            except ForgottenError:
                if wait_s is None or (has_all and not self._is_in_doubt):
                    raise  # what it lacks is not ours to give
                self._is_in_doubt = True
            except LOST:
                # Where only the answer was lost, the call was made, and must not be made on top.
                self._is_in_doubt, has_all = True, False
                if wait_s is None:
                    raise
                await asyncio.sleep(wait_s)
        raise AssertionError("the last try returns or raises")


class RestartedEncoder(Restarted):
    """An encoder actor's handle."""

    async def give_again(self) -> None:
        """Nothing: it has its store."""

    async def encode(self, texts: Sequence[str]) -> Floats:
        """See `EncoderActor.encode`."""
        vectors: Floats = await self._call("encode", texts)
        return vectors

    async def encode_tuned(self, texts: Sequence[str], weights: Any) -> Floats:
        """See `EncoderActor.encode_tuned`; `weights` are a reference to them."""
        vectors: Floats = await self._call("encode_tuned", texts, weights)
        return vectors

    async def tune(self, rows: Any, settings: SetFitConfig, seed: int) -> TunedWeights:
        """See `EncoderActor.tune`."""
        weights: TunedWeights = await self._call("tune", rows, settings, seed)
        return weights


class RestartedExpert(Restarted):
    """An expert actor's handle.

    Args:
        actor: of one or several experts.
        position: of this one.
        shared: reference to the vectors.
    """

    def __init__(self, actor: Any, position: int, shared: Any) -> None:
        super().__init__(actor, position)
        self._shared = shared
        self._tuned: Any = None
        self._fitted: FitRows | None = None

    async def give_again(self) -> None:
        """The vectors, and the rows of the last fit."""
        await self._host.load(self._shared)
        if self._tuned is not None:
            await self._target.load_tuned(self._tuned)
        if self._fitted is not None:
            await self._target.fit(self._fitted)

    async def fit(self, data: FitRows) -> None:
        """See `ExpertHost.fit`."""
        await self._call("fit", data)
        self._fitted = data

    async def load_tuned(self, vectors: Any) -> None:
        """See `ExpertHost.load_tuned`; `vectors` are a reference to them."""
        self._tuned = vectors
        await self._call("load_tuned", vectors)

    async def crossfit(self, data: FitRows, *held: Any) -> Floats:
        """See `ExpertHost.crossfit`; `held` are references."""
        scores: Floats = await self._call("crossfit", data, *held)
        return scores

    async def score(self, rows: Ints) -> Floats:
        """See `ExpertHost.score`."""
        scores: Floats = await self._call("score", rows)
        return scores

    async def export(self) -> Expert:
        """See `ExpertHost.export`."""
        expert: Expert = await self._call("export")
        return expert


class RestartedRouter(Restarted):
    """The router actor's handle; what it learned is told again in the same order, for equal bits.

    Args:
        actor: the router.
        shared: reference to the vectors.
        texts: all of them.
        subsets: of the partition.
    """

    def __init__(self, actor: Any, shared: Any, texts: Sequence[str], subsets: Subsets) -> None:
        super().__init__(actor)
        self._loaded = (shared, list(texts), subsets)
        self._calibrated: tuple[Any, ...] | None = None
        self._learned: list[tuple[str, tuple[Ints, ...]]] = []

    async def load(self) -> None:
        """Have it take its texts before it is asked; starting takes it some seconds."""
        await self._call("load", *self._loaded)

    async def give_again(self) -> None:
        """The texts, the rows of the last calibration, the pool and what was labelled in it."""
        await self._host.load(*self._loaded)
        if self._calibrated is not None:
            await self._host.calibrate(*self._calibrated)
        for name, rows in self._learned:
            await getattr(self._host, name)(*rows)

    async def calibrate(self, *seen: Any) -> Estimate:
        """See `RouterHost.calibrate`."""
        estimate: Estimate = await self._call("calibrate", *seen)
        self._calibrated = seen
        return estimate

    async def follow_pool(self, *rows: Ints) -> int:
        """See `RouterHost.follow_pool`."""
        n_at_once: int = await self._call("follow_pool", *rows)
        self._learned = [("follow_pool", rows)]
        return n_at_once

    async def learn(self, *rows: Ints) -> None:
        """See `RouterHost.learn`."""
        await self._call("learn", *rows)
        self._learned.append(("learn", rows))

    async def weigh(self, first: int, scores: Scores) -> None:
        """See `RouterHost.weigh`; what was weighed is not kept here: the scores are too many."""
        await self._call("weigh", first, scores)

    async def view_pool(self, *seen: Any) -> PoolView:
        """See `RouterHost.view_pool`."""
        view: PoolView = await self._call("view_pool", *seen)
        return view

    async def gold(self, rows: Ints) -> tuple[CandidateView, ...]:
        """See `RouterHost.gold`."""
        views: tuple[CandidateView, ...] = await self._call("gold", rows)
        return views

    async def contradicted(self) -> tuple[Contradiction, ...]:
        """See `RouterHost.contradicted`."""
        found: tuple[Contradiction, ...] = await self._call("contradicted")
        return found

    async def export(self) -> RouterParts:
        """See `RouterHost.export`."""
        parts: RouterParts = await self._call("export")
        return parts
