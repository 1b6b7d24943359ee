"""The validator pool over many questions: none is lost and its memory stays flat."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from red_ray.config import JudgeConfig
from red_ray.judges import Ledger, ValidatorPool
from red_ray.judges.simulated import SimulatedJudge
from red_ray.types import Candidate, Outcome, Question

N_QUESTIONS = 20_000
N_WARM = 4_000
PER_CALL = 500  # five iterations' worth
# Measured: 0.4 MiB; 8.5 with a pool that keeps each question and its key.
BOUND_MIB = 4.0

LABELS = tuple(Candidate(f"label_{n}", "what it is " * 5, ("an example",)) for n in range(5))


def question(number: int) -> Question:
    return Question(f"question {number}: where is my card? " + "it was due " * 15, LABELS)


def truth(text: str) -> str | None:
    number = int(text.split()[1].rstrip(":"))
    return f"label_{number % 6}" if number % 6 < 5 else None


def resident_mib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def ask_all(pool: ValidatorPool) -> tuple[dict[Outcome, int], list[float]]:
    """Ask every question; the outcomes and the memory after each call."""
    outcomes = dict.fromkeys(Outcome, 0)
    memory = []
    for start in range(0, N_QUESTIONS, PER_CALL):
        questions = [question(number) for number in range(start, start + PER_CALL)]
        verdicts = await pool.validate(questions)
        assert [v.key for v in verdicts] == [pool.key(q) for q in questions]
        for verdict in verdicts:
            outcomes[verdict.outcome] += 1
        memory.append(resident_mib())
    return outcomes, memory


async def measure(folder: Path) -> tuple[float, float, float]:
    """Ask everything twice; questions per second, memory when warm, and its growth since."""
    ledger = Ledger(folder / "ledger.sqlite")
    judge = SimulatedJudge(0.9, seed=1, hidden=truth)
    pool = ValidatorPool(judge, ledger, JudgeConfig())
    try:
        began_s = time.perf_counter()
        outcomes, memory = await ask_all(pool)
        rate = N_QUESTIONS / (time.perf_counter() - began_s)
        again, memory_again = await ask_all(pool)
        stats = pool.stats()
        assert outcomes[Outcome.LABEL] + outcomes[Outcome.NONE] == N_QUESTIONS
        assert again == outcomes
        assert (stats.requests, stats.answered, stats.cached) == (N_QUESTIONS,) * 3
        assert (stats.in_flight, stats.waiting) == (0, 0)
        n_requests = ledger.spent(judge.name).requests
        assert n_requests == sum(1 for _ in ledger.verdicts()) == N_QUESTIONS
    finally:
        await pool.close()
        ledger.close()
    warm = memory[N_WARM // PER_CALL - 1]
    return rate, warm, max(*memory, *memory_again) - warm


def measure_alone(folder: Path) -> tuple[float, float, float]:
    """As `measure`, where no event loop runs."""
    return asyncio.run(measure(folder))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_twenty_thousand_questions_leave_the_memory_flat(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a fresh process: what other tests have freed would hide a leak."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as process:
        rate, warm, growth = process.submit(measure_alone, tmp_path).result()
    with capsys.disabled():
        told = f"{warm:.0f} MiB when warm, then {growth:+.1f} MiB"
        print(f"\n{rate:.0f} questions/s; {told} ", end="")
    assert warm < 400  # it is a process of its own
    assert growth < BOUND_MIB
