"""A step of a benchmark in a process of its own: its phases' time, processor time and memory."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import psutil

POLL_S = 0.5

Tell = Callable[[str], None]


@dataclass
class Phase:
    """What a phase took, over the process and all that it started.

    Attributes:
        s: wall seconds.
        cpu_s: user and system seconds.
        peak_mb: most memory, each shared page counted once (PSS).
    """

    s: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0


@dataclass
class ProcessTree:
    """A process and its descendants."""

    root: psutil.Process
    _cpu_s: dict[int, float] = field(default_factory=dict)

    def look(self) -> tuple[float, float]:
        """Processor seconds so far, and MB now."""
        size = 0
        for one in (self.root, *self.root.children(recursive=True)):
            try:
                times = one.cpu_times()
                self._cpu_s[one.pid] = times.user + times.system
                size += one.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return sum(self._cpu_s.values()), size / 1e6


def watched(
    step: Callable[[Mapping[str, Any], Tell], dict[str, Any]], cell: Mapping[str, Any]
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Run `step(cell, tell)`, which tells each phase by its name as it begins.

    Returns:
        What each phase took, as `Phase`, and what the step returned.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(step, dict(cell), theirs))
    process.start()
    theirs.close()
    tree = ProcessTree(psutil.Process(process.pid))
    phases, name = {"start": Phase()}, "start"
    begun_s, (begun_cpu_s, _) = perf_counter(), tree.look()
    try:
        while True:
            told = ours.recv() if ours.poll(POLL_S) else None
            cpu_s, mb = tree.look()
            phase, now_s = phases[name], perf_counter()
            phase.peak_mb = max(phase.peak_mb, mb)
            if told is None:
                continue
            phase.s += now_s - begun_s
            phase.cpu_s += cpu_s - begun_cpu_s
            begun_s, begun_cpu_s = now_s, cpu_s
            if not isinstance(told, str):
                break
            name = told
            phases.setdefault(name, Phase())
    except EOFError:
        sys.exit(f"{dict(cell)}: the process ended in {name!r}")
    finally:
        process.join()
    return {name: asdict(phase) for name, phase in phases.items()}, told


def _child(
    step: Callable[[Mapping[str, Any], Tell], dict[str, Any]],
    cell: Mapping[str, Any],
    pipe: Connection,
) -> None:
    pipe.send(step(cell, pipe.send))
