"""Runs a benchmark cell by cell: kept by content hash, resumable, a partial table at any time."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from red_ray.actors.environment import JOB_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(os.environ.get("RED_RAY_RESULTS", ROOT / "benchmarks" / "results"))
ALGORITHM: tuple[str, ...] = (
    "core",
    "encoding",
    "experts",
    "training",
    "config.py",
    "model.py",
    "data/inputs.py",
    "data/prepare.py",
    "data/splits.py",
    "judges/base.py",
    "judges/simulated.py",
)
"""Parts of red_ray that most results depend on: a change in them makes a kept result stale."""

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t for a 95 % interval of a mean over so many seeds."""

Cell = Mapping[str, Any]
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark: its cells, what runs one, and what prints the results so far."""

    name: str
    cells: Sequence[Cell]
    run: Callable[[Cell], Result]
    table: Callable[[Sequence[tuple[Cell, Result]]], str]
    sources: tuple[str, ...] = ALGORITHM


def main(benchmark: Benchmark) -> None:
    """Command line: all cells that are not kept yet, or those whose name holds `--only`."""
    parser = argparse.ArgumentParser(description=f"benchmark {benchmark.name}")
    parser.add_argument("--only", metavar="CELL", help="cells whose name contains this")
    parser.add_argument("--table", action="store_true", help="print the kept results, run nothing")
    arguments = parser.parse_args()
    if os.environ.get(JOB_VARIABLE) and RESULTS.is_relative_to(ROOT):
        sys.exit(f"Ray removes {RESULTS} with the job: set RED_RAY_RESULTS to a folder elsewhere")
    done = []
    for cell in benchmark.cells:
        path = _path(benchmark, cell)
        wanted = not arguments.only or arguments.only in cell_name(cell)
        if not path.exists() and wanted and not arguments.table:
            start = perf_counter()
            result = benchmark.run(cell)
            cell_s = round(perf_counter() - start, 1)
            whole = {"cell": cell, "result": result | {"cell_s": cell_s}}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(whole, indent=1) + "\n")
            print(f"{cell_name(cell)}: {cell_s} s", flush=True)
        result = kept(benchmark, cell)
        if result is not None:
            done.append((cell, result))
    print(f"{len(done)} of {len(benchmark.cells)} cells\n")
    if done:
        table = benchmark.table(done)
        print(table)
        (RESULTS / f"{benchmark.name}.md").write_text(table + "\n")


def kept(benchmark: Benchmark, cell: Cell) -> Result | None:
    """The result of a cell, where it was run with the present sources."""
    path = _path(benchmark, cell)
    return dict(json.loads(path.read_text())["result"]) if path.exists() else None


def cell_name(cell: Cell) -> str:
    """A cell's name, as `--only` matches it."""
    return "-".join(str(value) for value in cell.values())


def mean_interval(values: Sequence[float], scale: float = 100.0, digits: int = 2) -> str:
    """Mean and half-width of its 95 % interval over seeds."""
    scaled = np.array(values) * scale
    if len(scaled) < 2:
        return f"{scaled.mean():.{digits}f}"
    half = T_95[len(scaled)] * scaled.std(ddof=1) / np.sqrt(len(scaled))
    return f"{scaled.mean():.{digits}f} ± {half:.{digits}f}"


def _path(benchmark: Benchmark, cell: Cell) -> Path:
    named = json.dumps(cell, sort_keys=True).encode()
    digest = hashlib.sha256(named + source_hash(benchmark.sources)).hexdigest()
    return RESULTS / benchmark.name / f"{cell_name(cell)}-{digest[:12]}.json"


def source_hash(sources: tuple[str, ...]) -> bytes:
    """Of all files of some parts of red_ray."""
    digest = hashlib.sha256()
    for part in sources:
        place = ROOT / "red_ray" / part
        files = [place] if place.is_file() else sorted(place.rglob("*.py"))
        for file in files:
            digest.update(file.read_bytes())
    return digest.digest()
