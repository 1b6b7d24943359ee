"""Joins the texts of many calls: what came in while a batch was under way is the next one."""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from red_ray.errors import RunError

Model = TypeVar("Model")
Done = TypeVar("Done")

LEARNING_RATE = 0.2
"""Weight of the newest batch in the estimate of the throughput."""


class OverloadedError(Exception):
    """The texts before this call take too long; stays inside the endpoint, which answers 503."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Piece(Generic[Model, Done]):
    model: Model
    texts: Sequence[str]
    done: asyncio.Future[Done]


class Batcher(Generic[Model, Done]):
    """Runs texts in batches, first come first served, a call's texts in one or more pieces.

    A call alone is run at once, and under load the batches fill up: nobody waits for a timer. (A
    batch of `serve.batch` is closed before the one before it is done, so that it holds one text.)

    Args:
        run: assesses some texts with a model; what it gives back goes to `cut`.
        cut: the part of a result from a position to another.
        max_texts: of a batch.
        max_wait_s: a call that would wait longer is refused.
        texts_per_s: the throughput to begin with; full batches correct it.
        lanes: batches under way at a time.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        run: Callable[[Model, Sequence[str]], Awaitable[Done]],
        cut: Callable[[Done, int, int], Done],
        *,
        max_texts: int,
        max_wait_s: float,
        texts_per_s: float,
        lanes: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._cut = cut
        self._max_texts = max_texts
        self._max_wait_s = max_wait_s
        self._lanes = lanes
        self._clock = clock
        self._waiting: deque[_Piece[Model, Done]] = deque()
        self._n_waiting = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self.texts_per_s = texts_per_s

    @property
    def wait_s(self) -> float:
        """How long a call that came now would wait for those before it, at most."""
        return self._n_waiting / self.texts_per_s

    async def submit(self, model: Model, texts: Sequence[str]) -> list[Done]:
        """The results of one call, in the order of its texts, a piece each.

        Raises:
            OverloadedError: too much waits already.
        """
        if self.wait_s > self._max_wait_s:
            raise OverloadedError(max(1, math.ceil(self.wait_s - self._max_wait_s)))
        loop = asyncio.get_running_loop()
        starts = range(0, len(texts), self._max_texts)
        pieces = [
            _Piece(model, texts[at : at + self._max_texts], loop.create_future()) for at in starts
        ]
        self._waiting.extend(pieces)
        self._n_waiting += len(texts)
        self._begin()
        try:
            return [await piece.done for piece in pieces]
        finally:
            for piece in pieces:  # of a caller that went away: nobody waits for the rest
                piece.done.cancel()

    async def close(self) -> None:
        """Cancel what waits, and wait for what is under way."""
        for piece in self._waiting:
            piece.done.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _begin(self) -> None:
        while self._waiting and len(self._under_way) < self._lanes:
            batch = self._next_batch()
            if batch:
                # In a context of its own: Serve ends all that was begun in that of a caller who
                # went away, and this batch is of others too.
                task = asyncio.create_task(self._batch(batch), context=contextvars.Context())
                self._under_way.add(task)
                task.add_done_callback(self._ended, context=contextvars.Context())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._begin()

    def _next_batch(self) -> list[_Piece[Model, Done]]:
        """The pieces that fit together, all of one model; what nobody waits for is dropped."""
        batch: list[_Piece[Model, Done]] = []
        n_texts = 0
        while self._waiting:
            piece = self._waiting[0]
            is_wanted = not piece.done.done()
            if is_wanted and batch:
                is_other = piece.model is not batch[0].model
                if is_other or n_texts + len(piece.texts) > self._max_texts:
                    break
            self._waiting.popleft()
            self._n_waiting -= len(piece.texts)
            if is_wanted:
                batch.append(piece)
                n_texts += len(piece.texts)
        return batch

    async def _batch(self, pieces: list[_Piece[Model, Done]]) -> None:
        start = self._clock()
        texts = [text for piece in pieces for text in piece.texts]
        try:
            done = await self._run(pieces[0].model, texts)
        except BaseException as error:  # noqa: BLE001 - it goes to the callers, who wait for it
            is_ended = isinstance(error, asyncio.CancelledError)
            told = RunError("the batch was ended; try again") if is_ended else error
            for piece in pieces:
                if not piece.done.done():
                    piece.done.set_exception(told)
            return
        self._learn(len(texts), self._clock() - start)
        at = 0
        for piece in pieces:
            end = at + len(piece.texts)
            if not piece.done.done():
                piece.done.set_result(self._cut(done, at, end))
            at = end

    def _learn(self, n_texts: int, seconds: float) -> None:
        found = self._lanes * n_texts / max(seconds, 1e-6)
        # A small batch says little of a full one, as every batch has a price of its own; but that
        # more is possible than was thought.
        if 2 * n_texts >= self._max_texts or found > self.texts_per_s:
            self.texts_per_s += LEARNING_RATE * (found - self.texts_per_s)
