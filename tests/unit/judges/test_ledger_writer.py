"""The writer: what many tasks write goes out in few commits, and nobody waits in vain."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime

import pytest

from red_ray.errors import StorageError
from red_ray.judges.ledger import Entry, Received, Sent
from red_ray.judges.writer import LedgerWriter

FULL = StorageError("disk full")


def send(name: str = "s") -> Sent:
    return Sent(name, "key", "judge", "", datetime.now(UTC), 10, None)


def result(name: str = "r") -> Received:
    return Received(name, "label")


class FakeLedger:
    """Keeps what is committed; `may_go` holds a commit back; `fault` is what an entry raises."""

    def __init__(self) -> None:
        self.tried: list[list[str]] = []
        self.commits: list[list[str]] = []
        self.threads: set[str] = set()
        self.begun = threading.Event()
        self.may_go = threading.Event()
        self.may_go.set()
        self.fault: Callable[[Sequence[Entry]], Exception | None] = lambda _: None

    def write(self, entries: Sequence[Entry]) -> None:
        self.begun.set()
        self.threads.add(threading.current_thread().name)
        self.tried.append([entry.id for entry in entries])  # type: ignore[union-attr]
        assert self.may_go.wait(5)
        if (fault := self.fault(entries)) is not None:
            raise fault
        self.commits.append([entry.id for entry in entries])  # type: ignore[union-attr]

    @property
    def stored(self) -> list[str]:
        return [name for commit in self.commits for name in commit]


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
async def writer(ledger: FakeLedger) -> AsyncIterator[LedgerWriter]:
    writer = LedgerWriter(ledger)  # type: ignore[arg-type]
    yield writer
    ledger.may_go.set()
    await writer.close()


async def held_back(ledger: FakeLedger, writer: LedgerWriter, *first: Entry) -> asyncio.Task[None]:
    """A commit under way that waits for `may_go`."""
    ledger.may_go.clear()
    task = asyncio.create_task(writer.write(*first or [result("first")]))
    await asyncio.to_thread(ledger.begun.wait, 5)
    return task


def all_of(writer: LedgerWriter, *entries: Entry) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(writer.write(entry)) for entry in entries]


async def outcomes(tasks: Sequence[asyncio.Task[None]]) -> list[object]:
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)


async def test_a_write_is_committed_when_it_returns(
    ledger: FakeLedger, writer: LedgerWriter
) -> None:
    await writer.write(result("a"), result("b"))
    assert ledger.commits == [["a", "b"]]


async def test_what_comes_during_a_commit_goes_out_together_and_in_order(
    ledger: FakeLedger, writer: LedgerWriter
) -> None:
    first = await held_back(ledger, writer)
    names = [f"{number:03}" for number in range(200)]
    tasks = all_of(writer, *map(result, names))
    await asyncio.sleep(0)
    ledger.may_go.set()
    assert await outcomes([first, *tasks]) == [None] * 201
    assert ledger.commits == [["first"], names]


async def test_it_is_one_thread_that_touches_the_ledger(
    ledger: FakeLedger, writer: LedgerWriter
) -> None:
    seen = []
    await asyncio.gather(
        *(writer.write(result()) for _ in range(20)),
        *(writer.read(lambda: seen.append(threading.current_thread().name)) for _ in range(20)),
    )
    assert ledger.threads == set(seen) != {threading.current_thread().name}


async def test_a_read_sees_what_was_written_before(
    ledger: FakeLedger, writer: LedgerWriter
) -> None:
    writing = await held_back(ledger, writer)
    reading = asyncio.create_task(writer.read(lambda: list(ledger.stored)))
    await asyncio.sleep(0)
    ledger.may_go.set()
    assert await reading == ["first"]
    await writing


async def test_a_read_gives_back_its_error(writer: LedgerWriter) -> None:
    def read() -> None:
        raise FULL

    with pytest.raises(StorageError, match="disk full"):
        await writer.read(read)


async def test_answers_are_stored_where_requests_no_longer_are(
    ledger: FakeLedger, writer: LedgerWriter
) -> None:
    """Each entry of a group that failed is written apart, and those that were paid for first."""
    ledger.fault = lambda entries: FULL if any(isinstance(e, Sent) for e in entries) else None
    first = await held_back(ledger, writer)
    tasks = all_of(writer, send("s1"), result("r1"), send("s2"), result("r2"))
    await asyncio.sleep(0)
    ledger.may_go.set()
    assert await outcomes([first, *tasks]) == [None, FULL, None, FULL, None]
    assert ledger.commits == [["first"], ["r1"], ["r2"]]
    assert ledger.tried[2:] == [["r1"], ["r2"], ["s1"], ["s2"]]


async def test_what_is_written_together_is_stored_together(
    ledger: FakeLedger, writer: LedgerWriter
) -> None:
    first = await held_back(ledger, writer)
    ledger.fault = lambda entries: FULL if any(e.id == "bad" for e in entries) else None  # type: ignore[union-attr]
    tasks = [asyncio.create_task(writer.write(result("bad"), result("good")))]
    tasks += all_of(writer, result("other"))
    await asyncio.sleep(0)
    ledger.may_go.set()
    assert await outcomes([first, *tasks]) == [None, FULL, None]
    assert ledger.stored == ["first", "other"]


async def test_after_a_failure_it_writes_again(ledger: FakeLedger, writer: LedgerWriter) -> None:
    ledger.fault = lambda _: FULL
    with pytest.raises(StorageError):
        await writer.write(result("a"))
    ledger.fault = lambda _: None
    await writer.write(result("b"))
    assert ledger.stored == ["b"]


async def test_a_cancelled_write_is_committed_before_the_cancellation_passes(
    ledger: FakeLedger, writer: LedgerWriter
) -> None:
    writing = await held_back(ledger, writer)
    writing.cancel()
    await asyncio.sleep(0.01)
    assert not writing.done()
    ledger.may_go.set()
    (error,) = await outcomes([writing])
    assert isinstance(error, asyncio.CancelledError)
    assert ledger.stored == ["first"]


async def test_a_write_that_is_cancelled_while_it_waits_for_its_commit_is_stored(
    ledger: FakeLedger, writer: LedgerWriter
) -> None:
    first = await held_back(ledger, writer)
    (waits,) = all_of(writer, result("paid for"))
    await asyncio.sleep(0)
    waits.cancel()
    ledger.may_go.set()
    await outcomes([first, waits])
    assert ledger.stored == ["first", "paid for"]


async def test_a_fault_of_the_ledger_reaches_all_who_wait(
    ledger: FakeLedger, writer: LedgerWriter
) -> None:
    """A bug must neither hang them nor look like a cancellation, which a task group overlooks."""
    bug = TypeError("a bug")
    ledger.fault = lambda _: bug
    first = await held_back(ledger, writer)
    tasks = all_of(writer, result("a"), send("b"))
    await asyncio.sleep(0)
    ledger.may_go.set()
    assert await outcomes([first, *tasks]) == [bug] * 3
    ledger.fault = lambda _: None
    await asyncio.wait_for(writer.write(result("later")), 5)
    assert ledger.stored == ["later"]


def test_a_loop_that_ends_stores_what_is_on_its_way(ledger: FakeLedger) -> None:
    """As after Ctrl-C: all tasks are cancelled at once."""
    writer = LedgerWriter(ledger)  # type: ignore[arg-type]

    async def main() -> None:
        await held_back(ledger, writer)
        all_of(writer, result("a"), result("b"))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, ledger.may_go.set)

    asyncio.run(asyncio.wait_for(main(), 5))
    assert ledger.stored == ["first", "a", "b"]


async def test_a_request_that_leaves_takes_along_what_lingers(
    ledger: FakeLedger, writer: LedgerWriter
) -> None:
    outcome = writer.put(result("a"))
    await asyncio.sleep(0)
    await writer.write(send("s"))
    assert outcome.done()
    assert ledger.commits == [["a", "s"]]


async def test_what_nobody_waits_for_is_stored_when_it_closes(ledger: FakeLedger) -> None:
    writer = LedgerWriter(ledger)  # type: ignore[arg-type]
    first = await held_back(ledger, writer)
    writer.put(result("a"))
    asyncio.get_running_loop().call_later(0.01, ledger.may_go.set)
    await asyncio.wait_for(writer.close(), 5)
    await first
    assert ledger.stored == ["first", "a"]


async def test_entries_apart_are_stored_before_it_is_closed(ledger: FakeLedger) -> None:
    """Its maker closes the ledger next."""

    def hold_back(entries: Sequence[Entry]) -> Exception | None:
        if len(entries) > 1:
            ledger.may_go.clear()
        return FULL if len(entries) > 1 else None

    ledger.fault = hold_back
    writer = LedgerWriter(ledger)  # type: ignore[arg-type]
    tasks = all_of(writer, *(result(f"{number}") for number in range(9)))
    await asyncio.sleep(0.05)
    assert len(ledger.tried) == 2, "the group, and the first of its entries"
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    ledger.may_go.set()
    await asyncio.wait_for(closing, 5)
    assert len(ledger.stored) == 9
    assert await outcomes(tasks) == [None] * 9


async def test_a_closed_writer_says_so_and_may_be_closed_again(ledger: FakeLedger) -> None:
    writer = LedgerWriter(ledger)  # type: ignore[arg-type]
    for _ in range(2):
        await asyncio.wait_for(writer.close(), 5)
        with pytest.raises(RuntimeError, match="is closed"):
            await asyncio.wait_for(writer.write(result()), 5)
