"""The validator pool against a bare aiohttp loop, its limits as a server counts them, its memory.

The server is ours, a process of its own that answers every request after a fixed time; both
clients share the other processor with whatever else runs here.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp
import psutil

from benchmarks.cells import Benchmark, Cell, Result, main, mean_interval
from red_ray.config import JudgeConfig
from red_ray.judges import Ledger, ValidatorPool, make_judge
from red_ray.judges.prompts import answer_schema, render
from red_ray.types import Candidate, Question
from tests.servers.process import ServerProcess

N_CALLS, LATENCY_MS = 4_000, 250
ROUNDS = 3
N_MEMORY, PER_CALL = 20_000, 500
PER_MINUTE, N_RATED = 300, 900
TOKENS_EACH = 107  # what the server says that each request took
SOURCES = (
    *(f"judges/{name}.py" for name in ("pool", "writer", "limits", "breaker", "retries")),
    *(f"judges/{name}.py" for name in ("openai", "language", "prompts")),
    *(f"judges/ledger/{name}.py" for name in ("store", "schema", "database")),
    *(f"actors/{name}.py" for name in ("validator", "validator_pool", "remote")),
)

LABELS = tuple(
    Candidate(f"label_{n}", "what it is about, in a line", ("an example",)) for n in range(5)
)


def question(number: int) -> Question:
    """As long as a question about a Banking77 text with five candidates."""
    return Question(f"{number}: where is my card? It was due {number} days ago", LABELS)


def run(cell: Cell) -> Result:
    """One cell, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return RUNS[cell["what"]](Path(folder), cell)


def throughput(folder: Path, cell: Cell) -> Result:
    """Calls per second: bare aiohttp, the pool in this process, the pool as an actor."""
    config = {"concurrency": cell["concurrency"]}
    questions = [question(n) for n in range(N_CALLS)]
    with ServerProcess(
        folder / "journal", "--script", "first", "--delay-ms", str(LATENCY_MS)
    ) as server:
        spec = f"openai:m@{server.base_url}"
        bare = asyncio.run(timed(bare_loop(server.base_url, questions, cell["concurrency"])))
        pool = asyncio.run(timed(in_process(folder, JudgeConfig(spec=spec, **config), questions)))
        actor = on_ray(folder, JudgeConfig(spec=spec, **config), questions)
        n_served = len(server.served())
    if n_served != 3 * N_CALLS:
        raise AssertionError(f"{n_served} requests served, {3 * N_CALLS} asked")
    rates = {name: N_CALLS / s for name, s in (("bare", bare), ("pool", pool), ("actor", actor))}
    ideal = cell["concurrency"] / (LATENCY_MS / 1000)
    return {
        "bare /s": rates["bare"],
        "bare of ideal": rates["bare"] / ideal,
        "pool / bare": rates["pool"] / rates["bare"],
        "actor / bare": rates["actor"] / rates["bare"],
    }


async def timed(work: Awaitable[object]) -> float:
    """Seconds that it takes."""
    start = perf_counter()
    await work
    return perf_counter() - start


async def bare_loop(base_url: str, questions: Sequence[Question], concurrency: int) -> None:
    """What a script would do: no ledger, no retries, no reading of the answer."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        todo = deque(questions)

        async def work() -> None:
            while todo:
                body = request_body(todo.popleft())
                async with session.post(f"{base_url}/chat/completions", json=body) as response:
                    await response.json()

        await asyncio.gather(*(work() for _ in range(concurrency)))


def request_body(asked: Question) -> dict[str, Any]:
    """The same request as the judge's."""
    schema = {"name": "answer", "strict": True, "schema": answer_schema(asked)}
    return {
        "model": "m",
        "messages": render(asked),
        "temperature": 0.0,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }


async def in_process(folder: Path, config: JudgeConfig, questions: Sequence[Question]) -> None:
    """Through a pool of this process, with its ledger on disk."""
    ledger = Ledger(folder / "in_process.sqlite")
    pool = ValidatorPool(make_judge(config, seed=0, environ={}), ledger, config)
    verdicts = await pool.validate(questions)
    await pool.close()
    ledger.close()
    check(verdicts, len(questions))


def check(verdicts: Sequence[Any], n_asked: int) -> None:
    """Every question has its answer."""
    if len(verdicts) != n_asked or any(one.label is None for one in verdicts):
        raise AssertionError("an answer is missing")


def on_ray(folder: Path, config: JudgeConfig, questions: Sequence[Question]) -> float:
    """Through the pool actor; starting it is not counted, sending the questions is."""
    with pool_actor(folder / "actor.sqlite", config) as validator:
        return asyncio.run(timed(validate(validator, questions)))


async def validate(validator: Any, questions: Sequence[Question]) -> None:
    check(await validator.validate(questions, 1), len(questions))


@contextmanager
def pool_actor(ledger: Path, config: JudgeConfig) -> Iterator[Any]:
    """A Ray of this machine and the pool actor of one judge in it."""
    from red_ray.actors.environment import prepare_environment

    prepare_environment()
    from red_ray.actors.cluster import ray_session
    from red_ray.actors.validator import RayValidator
    from red_ray.actors.validator_pool import Account
    from red_ray.data.prepare import LabelledRows

    with ray_session(num_cpus=2):
        nobody = LabelledRows((), ())
        account = Account(config, str(ledger), 0)
        validator = RayValidator(account, "bench", 0, examples=nobody, hidden=None)
        validator.open()
        yield validator
        validator.close()


def rates(folder: Path, cell: Cell) -> Result:
    """The most that the server saw in any 60 s, under a limit of requests or of tokens."""
    limit = {cell["limit"]: cell["per_minute"]}
    spec = "openai:m@{}"
    with ServerProcess(folder / "journal", "--script", "first", "--delay-ms", "50") as server:
        config = JudgeConfig(spec=spec.format(server.base_url), concurrency=64, **limit)
        questions = [question(n) for n in range(N_RATED)]
        seconds = asyncio.run(timed(in_process(folder, config, questions)))
        times_s = sorted(one["time_s"] for one in server.served())
    return {
        "limit": cell["per_minute"] / (TOKENS_EACH if "tokens" in cell["limit"] else 1),
        "most in 60 s": most_in(times_s, 60.0),
        "calls": len(times_s),
        "seconds": seconds,
    }


def most_in(times_s: Sequence[float], window_s: float) -> int:
    """The largest number of times that lie in one half-open window."""
    most = first = 0
    for last, time_s in enumerate(times_s):
        while time_s - times_s[first] >= window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def memory(folder: Path, _: Cell) -> Result:
    """Of the pool actor's process, over 20,000 calls that each take no time."""
    with ServerProcess(folder / "journal", "--script", "first") as server:
        config = JudgeConfig(spec=f"openai:m@{server.base_url}", concurrency=64)
        with pool_actor(folder / "ledger.sqlite", config) as validator:
            actor = pool_process()
            used = []
            for start in range(0, N_MEMORY, PER_CALL):
                some = [question(n) for n in range(start, start + PER_CALL)]
                asyncio.run(validate(validator, some))
                used.append(actor.memory_info().rss / 2**20)
    warm = used[N_MEMORY // 5 // PER_CALL - 1]
    return {"calls": N_MEMORY, "MiB at 4,000": warm, "MiB at the end": used[-1], "most": max(used)}


def pool_process() -> psutil.Process:
    """The actor's, among all below this one."""
    everyone = psutil.Process(os.getpid()).children(recursive=True)
    (pool,) = [one for one in everyone if "ValidatorPool" in " ".join(one.cmdline())]
    return pool


RUNS: dict[str, Callable[[Path, Cell], Result]] = {
    "throughput": throughput,
    "rate": rates,
    "memory": memory,
}


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Ratios of the same run, mean and 95 % interval over its repetitions."""
    columns = ("bare /s", "bare of ideal", "pool / bare", "actor / bare")
    lines = [f"| {N_CALLS:,} calls of {LATENCY_MS} ms, concurrency | " + " | ".join(columns) + " |"]
    lines.append("|" + "---|" * (len(columns) + 1))
    for concurrency in (64, 256):
        found = [r for c, r in done if c.get("concurrency") == concurrency]
        if found:
            digits = {"bare /s": 0}
            cells = [
                mean_interval([r[name] for r in found], 1.0, digits.get(name, 3))
                for name in columns
            ]
            lines.append(f"| {concurrency} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| limit | allowed in any 60 s | the server saw | calls | seconds |",
        "|" + "---|" * 5,
    ]
    for cell, result in done:
        if cell["what"] == "rate":
            name = f"judge.{cell['limit']}: {cell['per_minute']:,}"
            figures = (f"{result['limit']:.1f}", str(result["most in 60 s"]), str(result["calls"]))
            lines.append(f"| {name} | " + " | ".join(figures) + f" | {result['seconds']:.0f} |")
    for cell, result in done:
        if cell["what"] == "memory":
            lines += [
                "",
                f"Memory of the pool actor: {result['MiB at 4,000']:.1f} MiB after 4,000 calls, "
                f"{result['MiB at the end']:.1f} after {result['calls']:,}.",
            ]
    return "\n".join(lines)


CELLS = [
    *(
        {"what": "throughput", "concurrency": concurrency, "round": number}
        for number in range(ROUNDS)
        for concurrency in (64, 256)
    ),
    {"what": "rate", "limit": "requests_per_minute", "per_minute": PER_MINUTE},
    {"what": "rate", "limit": "tokens_per_minute", "per_minute": PER_MINUTE * TOKENS_EACH},
    {"what": "memory"},
]

if __name__ == "__main__":
    main(Benchmark("judge_pool", CELLS, run, table, SOURCES))
