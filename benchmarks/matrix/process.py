"""A cell in a process of its own, on cores of its own, killed at its limits: a task of Ray's."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.matrix.config import Column
from benchmarks.matrix.execute import ENDED, ORDER, OUT, Order
from benchmarks.matrix.results import CELL, RESULTS
from benchmarks.watched import ProcessTree

POLL_S = 1.0
"""Between two looks at a cell's memory: to look takes some 20 ms of a large process's core."""


@dataclass(frozen=True, slots=True)
class Work:
    """A cell that is to be run."""

    order: Order
    digest: str
    time_s: float
    memory_mb: float


def run_cell(work: Work) -> dict[str, bytes]:
    """Run a cell in a process of its own, within its limits; gives its files by their names."""
    with tempfile.TemporaryDirectory(prefix="matrix-") as place:
        folder = Path(place)
        (folder / ORDER).write_bytes(pickle.dumps(work.order))
        with (folder / "said").open("w+") as said, _cores(work.order.column.num_cpus) as cores:
            status, error, peak_mb = _watch(folder, work, said, cores)
        if status != "done":
            return hole(work, status, error)
        out = folder / OUT
        figures = json.loads((out / RESULTS).read_text(encoding="utf-8")) | {"peak_mb": peak_mb}
        (out / RESULTS).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        files = {
            str(path.relative_to(out)): path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }
    return files | {CELL: _stated(work, "done", "")}


def _watch(
    folder: Path, work: Work, said: Any, cores: frozenset[int] | None
) -> tuple[str, str, float]:
    """Status, reason and the most memory of a cell's process; it is killed at its limits."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.matrix.execute", str(folder)],
        stdout=said,
        stderr=subprocess.STDOUT,
        env=_environment(work.order.column),
        start_new_session=True,
    )
    if cores is not None:
        os.sched_setaffinity(process.pid, cores)
    tree, end_s, peak_mb = (
        ProcessTree(psutil.Process(process.pid)),
        time.monotonic() + work.time_s,
        0.0,
    )
    try:
        while process.poll() is None:
            _, mb = tree.look()
            peak_mb = max(peak_mb, mb)
            if mb > work.memory_mb:
                return "out_of_memory", f"took {mb:,.0f} MB, limit {work.memory_mb:,.0f}", peak_mb
            if time.monotonic() > end_s:
                return "timed_out", f"took longer than {work.time_s:g} s", peak_mb
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
    finally:
        _kill(process)
    ended = folder / ENDED
    if ended.exists():
        told = json.loads(ended.read_text(encoding="utf-8"))
        return told["status"], told["error"], peak_mb
    if process.returncode == -9:
        return "out_of_memory", "killed by the system, which does so for memory", peak_mb
    said.seek(0)
    last = (said.read().strip().splitlines() or ["without a word"])[-1]
    return "failed", f"ended with {process.returncode}: {last}", peak_mb


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process and all that it started."""
    for one in _family(process.pid):
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def _environment(column: Column) -> dict[str, str]:
    """As many threads as the cell has processors, and no tracker of anybody's."""
    n = str(max(1, round(column.num_cpus)))
    quiet = {
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_DISABLED": "true",
        "PYTHONWARNINGS": "ignore",
    }
    return {**os.environ, "OMP_NUM_THREADS": n, **quiet}


@contextmanager
def _cores(num_cpus: float) -> Iterator[frozenset[int] | None]:
    """Cores of this machine that no other cell runs on; None where that cannot be had.

    Else the latency of a cell would be that of whatever runs beside it.
    """
    wanted = max(1, round(num_cpus))
    if not hasattr(os, "sched_getaffinity"):
        yield None
        return
    place = Path(tempfile.gettempdir()) / f"matrix-cores-{os.getuid()}"
    place.mkdir(exist_ok=True)
    held: dict[int, int] = {}
    try:
        for core in sorted(os.sched_getaffinity(0)):
            if len(held) == wanted:
                break
            file = os.open(place / str(core), os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held[core] = file
            except BlockingIOError:
                os.close(file)
        yield frozenset(held) if len(held) == wanted else None
    finally:
        for file in held.values():
            os.close(file)


def hole(work: Work, status: str, error: str) -> dict[str, bytes]:
    """The one file of a cell that has no figures."""
    return {CELL: _stated(work, status, error)}


def _stated(work: Work, status: str, error: str) -> bytes:
    cell, column = work.order.cell, work.order.column
    stated = {
        "task": cell.task,
        "column": cell.column,
        "method": column.method,
        "seed": cell.seed,
        "settings": column.model_dump(mode="json"),
        "digest": work.digest,
        "status": status,
        "error": error,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return (json.dumps(stated, indent=1) + "\n").encode()
