"""Commits what many tasks write to the ledger, a group at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar, TypeVarTuple

from red_ray.errors import StorageError
from red_ray.judges.ledger import Entry, Ledger, Sent

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_LINGER_S = 0.01
"""How long an outcome waits for others; a request that wants to leave takes it along at once."""

_Waiting = tuple[tuple[Entry, ...], asyncio.Future[None]]


class LedgerWriter:
    """One thread for the ledger; `write` returns when its entries are committed.

    A request that wants to leave holds a slot: it is committed at once, with all that waits. What
    comes during a commit goes together into the next one.

    Args:
        ledger: blocking; used from the thread alone.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._waiting: list[_Waiting] = []
        self._is_busy = self._is_urgent = self._is_closed = False
        self._planned: asyncio.TimerHandle | None = None

    async def write(self, *entries: Entry) -> None:
        """Commit `entries`, cancelled or not: an answer that has arrived was paid for.

        Raises:
            StorageError: they could not be stored.
        """
        await to_the_end(self.put(*entries))

    def put(self, *entries: Entry) -> asyncio.Future[None]:
        """Have `entries` committed, without waiting for it."""
        if self._is_closed:
            raise RuntimeError("the writer of the ledger is closed")
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((entries, done))
        self._plan(is_urgent=any(isinstance(entry, Sent) for entry in entries))
        return done

    async def read(self, call: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
        """Run a blocking call of the ledger in its thread."""
        loop = asyncio.get_running_loop()
        return await to_the_end(loop.run_in_executor(self._thread, call, *args))

    async def close(self) -> None:
        """Commit what waits, and end the thread; may be called twice."""
        if self._waiting or self._is_busy:
            with suppress(StorageError):  # those who wait for it were told
                await self.write()
        self._is_closed = True
        await asyncio.to_thread(self._thread.shutdown)

    def _plan(self, *, is_urgent: bool) -> None:
        """Commit in the next turn of the loop if a request waits to leave, else a little later."""
        if self._is_busy:
            self._is_urgent |= is_urgent
            return
        if self._planned is not None:
            if not is_urgent or self._is_urgent:
                return
            self._planned.cancel()
        self._is_urgent = is_urgent
        wait_s = 0.0 if is_urgent else _LINGER_S
        self._planned = asyncio.get_running_loop().call_later(wait_s, self._commit)

    # Callbacks and no task: a loop that ends cancels its tasks, and with them the entries.
    def _commit(self) -> None:
        group, self._waiting, self._planned = self._waiting, [], None
        stored = self._store([entry for entries, _ in group for entry in entries])
        stored.add_done_callback(partial(self._committed, group))
        self._is_busy, self._is_urgent = True, False

    def _committed(self, group: list[_Waiting], stored: asyncio.Future[None]) -> None:
        """Tell those who wait; of a group that failed each apart: answers may fit, sends not."""
        if stored.exception() is not None and len(group) > 1:
            for entries, done in sorted(group, key=_is_send):
                self._store(entries).add_done_callback(partial(_tell, [done]))
        else:
            _tell([done for _, done in group], stored)
        self._is_busy = False
        if self._waiting:
            self._plan(is_urgent=self._is_urgent)

    def _store(self, entries: Sequence[Entry]) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._thread, self._ledger.write, entries)


async def to_the_end(work: asyncio.Future[_T]) -> _T:
    """Await what must not be left half done: cancelled, it ends before the cancellation passes."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _is_send(waiting: _Waiting) -> bool:
    return any(isinstance(entry, Sent) for entry in waiting[0])


def _tell(waiting: Sequence[asyncio.Future[None]], stored: asyncio.Future[None]) -> None:
    error = stored.exception()
    for done in waiting:
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
            done.exception()  # retrieved: the waiter may have been cancelled
