"""The load generator: nobody waits for whom it should not, and no call goes uncounted."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.load import Load, Outcome, bodies, summary

Handler = Callable[[web.Request], object]


@asynccontextmanager
async def load_on(
    handler: Handler, *, timeout_s: float = 60.0, clock: Callable[[], float] = perf_counter
) -> AsyncIterator[Load]:
    app = web.Application()
    app.router.add_post("/", handler)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        yield Load(session, str(server.make_url("/")), bodies(["a", "b"], 1), timeout_s, clock)


def stopped() -> float:
    """A clock by which nothing is ever late."""
    return 0.0


async def fine(request: web.Request) -> web.Response:
    return web.Response()


async def test_texts_go_round_from_the_first_that_is_asked_for():
    asked = []

    async def note(request: web.Request) -> web.Response:
        asked.append(json.loads(await request.read())["texts"])
        return web.Response()

    async with load_on(note) as load:
        for _ in range(3):
            load.n_open += 1
            await load.call(0.0)
    assert asked == [["b"], ["a"], ["b"]]


async def test_each_client_has_one_call_open():
    async with load_on(fine) as load:
        await load.closed(3, 0.2)
    assert load.most_open == 3
    assert load.n_open == 0
    assert {one.status for one in load.outcomes} == {"200"}


async def test_an_open_loop_does_not_wait_for_answers():
    """All 20 have left before the first has its answer."""
    n_asked, all_here = 0, asyncio.Event()

    async def hold(request: web.Request) -> web.Response:
        nonlocal n_asked
        n_asked += 1
        if n_asked == 20:
            all_here.set()
        await all_here.wait()
        return web.Response()

    async with load_on(hold, clock=stopped) as load:
        await load.open(1e6, 2e-5, most_open=50)
    assert (load.most_open, load.not_sent) == (20, 0)
    assert [one.due_s for one in sorted(load.outcomes, key=lambda one: one.due_s)] == [
        n / 1e6 for n in range(20)
    ]


async def test_calls_beyond_the_bound_are_counted_not_sent():
    release = asyncio.Event()

    async def hold(request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    async def release_when(ready: Callable[[], bool]) -> None:
        while not ready():  # noqa: ASYNC110 - what is looked at is a plain number
            await asyncio.sleep(0.001)
        release.set()

    async with load_on(hold, clock=stopped) as load, asyncio.TaskGroup() as group:
        group.create_task(load.open(1e6, 2e-5, most_open=5))
        group.create_task(release_when(lambda: load.not_sent == 15))
    assert (load.most_open, len(load.outcomes), load.not_sent) == (5, 5, 15)


async def test_what_comes_too_late_to_leave_is_counted_not_sent():
    async with load_on(fine) as load:
        load.start_s -= 10.0  # as if it had been held up
        await load.open(10.0, 1.0, most_open=50)
    assert (len(load.outcomes), load.not_sent) == (0, 10)
    assert load.most_late_s > 8.0


async def test_statuses_time_outs_and_broken_connections_are_told_apart():
    replies = iter(["busy", "busy, wait", "hang", "cut", "fine"])

    async def scripted(request: web.Request) -> web.Response:
        reply = next(replies)
        if reply == "hang":
            await asyncio.sleep(60)
        if reply == "cut":
            assert request.transport is not None
            request.transport.abort()
        headers = {"Retry-After": "1"} if "wait" in reply else {}
        return web.Response(status=503 if "busy" in reply else 200, headers=headers)

    async with load_on(scripted, timeout_s=0.3) as load:
        for _ in range(5):
            load.n_open += 1
            await load.call(0.0)
    assert [one.status for one in load.outcomes] == ["503", "503", "timeout", "transport", "200"]
    told = summary(load.outcomes, warm_s=0.0, seconds=9.0)
    assert told["503 without Retry-After"] == 1
    assert (told["timeout"], told["transport"], told["n"]) == (1, 1, 5)
    assert Counter(told["statuses"]) == {"200": 1, "503": 2, "timeout": 1, "transport": 1}


def test_the_summary_leaves_out_the_warm_up_and_what_came_after():
    outcomes = [
        Outcome(0.5, 0.9, "200"),  # warming up
        Outcome(0.8, 1.2, "200"),  # answered within, but begun before
        Outcome(1.0, 1.1, "200"),
        Outcome(1.5, 1.8, "200"),
        Outcome(2.5, 3.4, "200"),  # begun within, answered after
        Outcome(2.6, 2.7, "503", told_to_wait=True),
    ]
    told = summary(outcomes, warm_s=1.0, seconds=3.0)
    assert told["n"] == 4
    assert told["texts/s"] == 3 / 2
    assert told["p50 ms"] == pytest.approx(300.0)
    assert told["p99 ms"] == pytest.approx(888.0)
    assert told["last answer s"] == 3.4
    assert [(one["s"], one["statuses"]) for one in told["series"]] == [
        (0, {"200": 1}),
        (1, {"200": 3}),
        (2, {"503": 1}),
        (3, {"200": 1}),
    ]


def test_without_a_success_there_is_no_time():
    told = summary([Outcome(0.0, 0.1, "503")], warm_s=0.0, seconds=1.0)
    assert (told["texts/s"], told["p50 ms"], told["p99 ms"]) == (0.0, None, None)
    assert told["503 without Retry-After"] == 1
