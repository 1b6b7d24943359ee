"""Load on an endpoint from a process of its own: so many clients, or so many calls a second.

    python -m benchmarks.load URL --texts FILE --clients 32 --seconds 10
    python -m benchmarks.load URL --texts FILE --rate 600 --seconds 30

aiohttp, as it shares the processors with the server: measured with 32 clients it takes 0.16 ms of
processor time a call, httpx 1.9 ms. It ends after `seconds` and the time-out, whatever happens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

OK = "200"
TIMEOUT, TRANSPORT = "timeout", "transport"
TIMEOUT_S = 10.0
MAX_OPEN = 2_000
"""Open calls of an open loop: below the files that a process may have open."""
KEEP_S = 3.0
"""Idle connections are closed before uvicorn closes them, after 5 s: one would be sent a call."""
GRACE_S = 10.0
"""For starting and ending, beside what was asked for."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call, its times in seconds since the load began.

    `due_s` is when it was to leave: in an open loop waiting to leave counts as waiting. `status` is
    the HTTP status, `timeout` or `transport`. `told_to_wait`: a `Retry-After` came with it.
    """

    due_s: float
    done_s: float
    status: str
    told_to_wait: bool = False


@dataclass(slots=True)
class Load:
    """Calls an endpoint and keeps what came of it; for one event loop.

    Args:
        session: with no bound on its connections.
        url: takes `{"texts": [text]}`.
        bodies: one for each call, without end.
        timeout_s: for one call.
    """

    session: aiohttp.ClientSession
    url: str
    bodies: Iterator[bytes]
    timeout_s: float
    clock: Callable[[], float] = time.perf_counter
    start_s: float = field(init=False)
    outcomes: list[Outcome] = field(default_factory=list)
    n_open: int = 0
    most_open: int = 0
    not_sent: int = 0
    most_late_s: float = 0.0

    def __post_init__(self) -> None:
        self.start_s = self.clock()

    def now_s(self) -> float:
        return self.clock() - self.start_s

    async def call(self, due_s: float) -> None:
        """One call, which counts as open already."""
        self.most_open = max(self.most_open, self.n_open)
        told = False
        try:
            async with self.session.post(
                self.url, data=next(self.bodies), timeout=aiohttp.ClientTimeout(self.timeout_s)
            ) as response:
                await response.read()
                status, told = str(response.status), "Retry-After" in response.headers
        except TimeoutError:
            status = TIMEOUT
        except (aiohttp.ClientError, OSError):
            status = TRANSPORT
        finally:
            self.n_open -= 1
        self.outcomes.append(Outcome(due_s, self.now_s(), status, told))

    async def closed(self, clients: int, seconds: float) -> None:
        """Each client calls again as soon as it has its answer."""

        async def client() -> None:
            while (now_s := self.now_s()) < seconds:
                self.n_open += 1
                await self.call(now_s)

        await asyncio.gather(*(client() for _ in range(clients)))

    async def open(self, rate: float, seconds: float, most_open: int) -> None:
        """Calls leave at fixed times, whatever became of those before.

        One beyond `most_open` at a time, or after the end, does not leave, and is counted.
        """
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                due_s = number / rate
                await asyncio.sleep(max(0.0, due_s - self.now_s()))
                late_s = self.now_s() - due_s
                self.most_late_s = max(self.most_late_s, late_s)
                if self.n_open >= most_open or due_s + late_s > seconds:
                    self.not_sent += 1
                else:
                    self.n_open += 1
                    group.create_task(self.call(due_s))


def summary(outcomes: Sequence[Outcome], *, warm_s: float, seconds: float) -> dict[str, Any]:
    """What came of the calls that were due after `warm_s`.

    `texts/s` are the 200s that came between `warm_s` and `seconds`; the others are counts, and
    milliseconds of the 200s.
    """
    counted = [one for one in outcomes if one.due_s >= warm_s]
    good = [one for one in outcomes if one.status == OK and warm_s <= one.done_s < seconds]
    statuses = Counter(one.status for one in counted)
    refused = [one for one in counted if one.status == "503"]
    return {
        "n": len(counted),
        "texts/s": len(good) / (seconds - warm_s),
        **_percentiles([one for one in counted if one.status == OK]),
        "statuses": dict(sorted(statuses.items())),
        "503 without Retry-After": sum(not one.told_to_wait for one in refused),
        TIMEOUT: statuses[TIMEOUT],
        TRANSPORT: statuses[TRANSPORT],
        "last answer s": max((one.done_s for one in counted), default=0.0),
        "series": list(_series(outcomes)),
    }


def _percentiles(good: Sequence[Outcome]) -> dict[str, float | None]:
    names = {"p50 ms": 50, "p90 ms": 90, "p99 ms": 99}
    if not good:
        return dict.fromkeys(names)
    ms = np.array([1e3 * (one.done_s - one.due_s) for one in good])
    return {name: float(np.percentile(ms, share)) for name, share in names.items()}


def _series(outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    """By the second in which they came to an end."""
    last = max((int(one.done_s) for one in outcomes), default=-1)
    for second in range(last + 1):
        ended = [one for one in outcomes if int(one.done_s) == second]
        statuses = dict(sorted(Counter(one.status for one in ended).items()))
        good = [one for one in ended if one.status == OK]
        p99_ms = _percentiles(good)["p99 ms"]
        yield {"s": second, "statuses": statuses, "p99 ms": p99_ms}


def bodies(texts: Sequence[str], first: int) -> Iterator[bytes]:
    """Requests of one text each, from the `first` on, round and round."""
    ready = [json.dumps({"texts": [text]}).encode() for text in texts]
    return (ready[(first + n) % len(ready)] for n in count())


async def run(arguments: argparse.Namespace, texts: Sequence[str]) -> dict[str, Any]:
    """The load that the command line asks for, and its figures."""
    headers = {"Content-Type": "application/json"}
    warm_s, seconds = arguments.warm, arguments.warm + arguments.seconds
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_S), headers=headers
    ) as session:
        load = Load(session, arguments.url, bodies(texts, arguments.first), arguments.timeout)
        cpu_s = time.process_time()
        work = (
            load.closed(arguments.clients, seconds)
            if arguments.rate is None
            else load.open(arguments.rate, seconds, arguments.max_open)
        )
        cut = await _bounded(work, seconds + arguments.timeout + GRACE_S / 2)
        cpu_s = time.process_time() - cpu_s
    return {
        **summary(load.outcomes, warm_s=warm_s, seconds=seconds),
        "not sent": load.not_sent,
        "most open": load.most_open,
        "most late ms": 1e3 * load.most_late_s,
        "cut short": cut,
        "load cpu share": cpu_s / seconds,
    }


async def _bounded(work: Awaitable[None], limit_s: float) -> bool:
    """Whether the work had to be ended."""
    try:
        await asyncio.wait_for(work, limit_s)
    except TimeoutError:
        return True
    return False


def measure(url: str, texts: Path, **options: float) -> dict[str, Any]:
    """The same from another process: runs one, and gives its figures.

    Args:
        url: of the calls.
        texts: a file with a text a line.
        options: of the command, `warm=1.0` for `--warm 1.0`.
    """
    command = [sys.executable, "-m", "benchmarks.load", url, "--texts", str(texts)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    limit_s = sum(options.get(name, 0.0) for name in ("warm", "seconds"))
    limit_s += options.get("timeout", TIMEOUT_S) + 3 * GRACE_S
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=limit_s, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.load")
    parser.add_argument("url")
    parser.add_argument("--texts", required=True, help="a file with a text a line")
    parser.add_argument("--clients", type=int, default=1, help="of a closed loop")
    parser.add_argument("--rate", type=float, help="calls a second: an open loop")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm", type=float, default=0.0, help="seconds before, not counted")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="of a call, in seconds")
    parser.add_argument("--max-open", type=int, default=MAX_OPEN, help="calls of an open loop")
    parser.add_argument("--first", type=int, default=0, help="text to begin with")
    arguments = parser.parse_args()
    texts = Path(arguments.texts).read_text("utf-8").splitlines()
    print(json.dumps(asyncio.run(run(arguments, texts))))


if __name__ == "__main__":
    main()
