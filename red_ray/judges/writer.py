"""Commits what many tasks write to the ledger, a group at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from red_ray.errors import StorageError
from red_ray.judges.ledger import Entry, Ledger, Sent

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_SPACING_S = 0.005
"""Between the starts of two commits: one at a time costs a processor at 500 questions a second."""

_Waiting = tuple[tuple[Entry, ...], asyncio.Future[None]]


class LedgerWriter:
    """One thread for the ledger; `write` returns when its entries are committed.

    The first write after a pause is committed at once, those that come meanwhile together.

    Args:
        ledger: blocking; used from the thread alone.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None

    async def write(self, *entries: Entry) -> None:
        """Commit `entries`, cancelled or not: an answer that has arrived was paid for.

        Raises:
            StorageError: they could not be stored.
        """
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((entries, done))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all())
        await to_the_end(done)

    async def read(self, call: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
        """Run a blocking call of the ledger in its thread."""
        loop = asyncio.get_running_loop()
        return await to_the_end(loop.run_in_executor(self._thread, call, *args))

    def close(self) -> None:
        """End the thread; what was written is committed."""
        self._thread.shutdown(wait=False)

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                next_s = loop.time() + _SPACING_S
                group, self._waiting = self._waiting, []
                await self._commit(group)
                if self._waiting:
                    await asyncio.sleep(next_s - loop.time())
        finally:
            self._committing = None

    async def _commit(self, group: list[_Waiting]) -> None:
        """Commit a group; where it fails, each entry apart: answers may fit where sends do not."""
        try:
            await self._store([entry for entries, _ in group for entry in entries])
        except StorageError as error:
            if len(group) > 1:
                for one in sorted(group, key=_is_send):
                    await self._commit([one])
            else:
                _resolve(group, error)
        else:
            _resolve(group, None)
        finally:
            for _, done in group:
                done.cancel()  # no effect but where a fault of ours left it open: nobody may hang

    async def _store(self, entries: list[Entry]) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._ledger.write, entries)


async def to_the_end(work: asyncio.Future[_T]) -> _T:
    """Await what must not be left half done: cancelled, it ends before the cancellation passes."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _is_send(waiting: _Waiting) -> bool:
    return any(isinstance(entry, Sent) for entry in waiting[0])


def _resolve(group: list[_Waiting], error: StorageError | None) -> None:
    for _, done in group:
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
            done.exception()  # retrieved: the waiter may have been cancelled
