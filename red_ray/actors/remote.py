"""Handles of actors, as the plain classes that use them await them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError

from red_ray.errors import ForgottenError
from red_ray.experts import Expert, FitRows

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

RESTARTS = 10
"""Of one actor for one call: a process that dies so often will not live."""

RESTART_S = 1.0
"""Between two looks whether an actor is back; Ray takes a second or two to start it again."""


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


class RestartedExpert:
    """An expert actor's handle that gives it its rows again where its process was lost.

    Args:
        actor: of one or several experts.
        position: of this one.
        shared: reference to the vectors.
    """

    def __init__(self, actor: Any, position: int, shared: Any) -> None:
        self._host = Remote(actor)
        self._expert = Remote(actor, position)
        self._shared = shared
        self._fitted: FitRows | None = None

    async def fit(self, data: FitRows) -> None:
        """See `ExpertHost.fit`."""
        self._fitted = data
        await self._call("fit", data)

    async def crossfit(self, data: FitRows) -> Floats:
        """See `ExpertHost.crossfit`."""
        scores: Floats = await self._call("crossfit", data)
        return scores

    async def score(self, rows: Ints) -> Floats:
        """See `ExpertHost.score`."""
        scores: Floats = await self._call("score", rows)
        return scores

    async def export(self) -> Expert:
        """See `ExpertHost.export`."""
        expert: Expert = await self._call("export")
        return expert

    async def _call(self, name: str, *args: Any) -> Any:
        for _ in range(RESTARTS):
            try:
                return await getattr(self._expert, name)(*args)
            except ForgottenError:
                await self._give_again()
            except RayActorError:
                await asyncio.sleep(RESTART_S)
        return await getattr(self._expert, name)(*args)

    async def _give_again(self) -> None:
        try:
            await self._host.load(self._shared)
            if self._fitted is not None:
                await self._expert.fit(self._fitted)
        except RayActorError:
            await asyncio.sleep(RESTART_S)
