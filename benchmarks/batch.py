"""`red-ray classify` of many texts against the encoder alone, its memory, and a kill at half.

Distinct real texts; beyond some 55,000 two of them are joined to one. Each command is a process of
its own: "of the encoder" counts its whole time, the start of Python, models and Ray included;
"steady" is from its first finished shard to its last. Memory is the resident set of all its
processes, memory that they share counted in each.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
import psutil

from benchmarks.cells import ALGORITHM, Benchmark, Cell, Result, main
from benchmarks.data import data_folder, encoder_of, job_of, load, train_alone
from red_ray.bundle import save_bundle
from red_ray.encoding import SentenceEncoder
from red_ray.run_folder import RunFolder

ROWS = {"10k": 10_000, "100k": 100_000}
ENGINES = ("local", "ray")
EARLY = 0.1
"""Share of the rows up to which the first figure of memory is taken."""
POLL_S = 0.5
EVERY = 5
"""Of so many texts one is encoded alone: the machine's speed changes within minutes, so it is
measured before and after each command."""
SOURCES = (*ALGORITHM, "batch", "actors/batch.py", "cli/classifying.py", "data/writer.py")


def run(cell: Cell) -> Result:
    """One cell, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="batch-") as name:
        folder, n_rows = Path(name), ROWS[cell["rows"]]
        place = Place(folder, trained(folder / "run"), texts(n_rows, np.random.default_rng(0)))
        return speed(place) if cell["what"] == "speed" else kill(place, cell["engine"])


def texts(n: int, rng: np.random.Generator) -> list[str]:
    """Distinct texts of all data sets, the shortest way to so many; then pairs of them."""
    real = list(dict.fromkeys(_real_texts()))
    rng.shuffle(real)
    found = dict.fromkeys(real[:n])
    while len(found) < n:
        first, second = rng.integers(0, len(real), 2)
        found[f"{real[first]} {real[second]}"] = None
    return list(found)


def _real_texts() -> Iterator[str]:
    for path in sorted(data_folder().glob("*/*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                yield from (row[name] for name in ("text", "premise", "hypothesis") if name in row)


def trained(path: Path) -> RunFolder:
    """A run on Banking77, 30 per label, without a judge."""
    config, inputs, _ = load("banking77", 30, 0)
    done = train_alone(job_of(config, inputs), encoder_of(config))
    made = RunFolder.create(path, config)
    save_bundle(done.model, made.bundle, {})
    return made


@dataclass
class Place:
    """A run, and a table of texts beside it."""

    folder: Path
    run: RunFolder
    texts: Sequence[str]
    source: Path = field(init=False)

    def __post_init__(self) -> None:
        self.source = self.folder / "in.csv"
        with self.source.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "text"), *enumerate(self.texts)])

    def classify(self, engine: str, target: Path, *options: str) -> Watched:
        """Start the command."""
        place = ["--input", str(self.source), "--output", str(target)]
        command = ["classify", str(self.run.path), *place, "--engine", engine, "--json", *options]
        log = self.folder / "stderr.txt"
        with log.open("ab") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "red_ray.cli", *command],
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        manifest = target.with_name(f"{target.name}.parts") / "_manifest.jsonl"
        return Watched(process, manifest, log)


class Watched:
    """A command that runs: what it has finished, and what it takes."""

    def __init__(self, process: subprocess.Popen[bytes], manifest: Path, log: Path) -> None:
        self._process = process
        self._manifest = manifest
        self._log = log
        self._start = perf_counter()
        self.seen: list[tuple[float, int, int]] = []  # seconds, rows finished, bytes resident

    def watch(self, until_rows: int | None = None) -> float:
        """Until it ends or has so many rows; its seconds so far."""
        while self._process.poll() is None:
            seconds = perf_counter() - self._start
            self.seen.append((seconds, self.n_rows(), _resident(self._process.pid)))
            if until_rows is not None and self.seen[-1][1] >= until_rows:
                break
            sleep(POLL_S)
        return perf_counter() - self._start

    def result(self) -> dict[str, Any]:
        """What it printed; ends the benchmark where it failed."""
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            printed = stdout.read()
        if self._process.wait():
            sys.exit(f"classify failed: {self._log.read_text()[-2000:]}")
        found: dict[str, Any] = json.loads(printed)
        return found

    def kill(self) -> None:
        """End it and all that it started, at once."""
        everything = [*psutil.Process(self._process.pid).children(recursive=True)]
        self._process.kill()
        for one in everything:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        self._process.wait()
        psutil.wait_procs(everything, timeout=10)

    def n_rows(self) -> int:
        """Rows of the finished shards."""
        try:
            lines = self._manifest.read_text().splitlines()
        except FileNotFoundError:
            return 0
        return sum(json.loads(line)["rows"] for line in lines if line.endswith("}"))

    def steady(self) -> float:
        """Rows a second between the first finished shard and the last."""
        some = [(seconds, rows) for seconds, rows, _ in self.seen if rows]
        (first_s, first), last = some[0], some[-1][1]
        last_s = next(seconds for seconds, rows in some if rows == last)
        return (last - first) / max(last_s - first_s, POLL_S)

    def memory(self, n_rows: int) -> tuple[float, float]:
        """Most that was resident while up to `EARLY` of the rows were done, and ever, in MB."""
        early = [size for _, rows, size in self.seen if rows <= EARLY * n_rows]
        return max(early) / 1e6, max(size for _, _, size in self.seen) / 1e6


def _resident(pid: int) -> int:
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for one in processes:
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def speed(place: Place) -> Result:
    """The command in one process and over Ray Data, the encoder alone before and after each."""
    n_rows = len(place.texts)
    config, *_ = load("banking77", 30, 0)
    with SentenceEncoder.load(config.encoder) as encoder:
        alone = [texts_per_s(encoder, place.texts)]
        watched = []
        for engine in ENGINES:
            command = place.classify(engine, place.folder / f"{engine}.csv")
            watched.append((engine, command, command.watch()))
            command.result()
            alone.append(texts_per_s(encoder, place.texts))
    result: Result = {"rows": n_rows, "encoder texts/s": float(np.mean(alone))}
    for at, (engine, command, seconds) in enumerate(watched):
        beside = float(np.mean(alone[at : at + 2]))
        early, most = command.memory(n_rows)
        result |= {
            f"{engine} rows/s": n_rows / seconds,
            f"{engine} of the encoder": n_rows / seconds / beside,
            f"{engine} steady": command.steady() / beside,
            f"{engine} MB to {EARLY:.0%}": early,
            f"{engine} MB": most,
        }
    outputs = [(place.folder / f"{engine}.csv").read_bytes() for engine in ENGINES]
    return result | {"same bytes": outputs[0] == outputs[1]}


def texts_per_s(encoder: SentenceEncoder, texts: Sequence[str]) -> float:
    """Of the encoder alone, on all processors; it is loaded already."""
    some = texts[::EVERY]
    start = perf_counter()
    encoder.encode(some)
    return len(some) / (perf_counter() - start)


def kill(place: Place, engine: str) -> Result:
    """Everything is killed at half; then it goes on."""
    n_rows, target = len(place.texts), place.folder / "out.csv"
    command = place.classify(engine, target)
    command.watch(until_rows=n_rows // 2)
    command.kill()
    n_kept = command.n_rows()
    again = place.classify(engine, target, "--resume")
    seconds = again.watch()
    found = again.result()
    with target.open(newline="", encoding="utf-8") as file:
        given = Counter((row["id"], row["text"]) for row in csv.DictReader(file))
    wanted = {(str(number), text) for number, text in enumerate(place.texts)}
    return {
        "rows": n_rows,
        "kept by the kill": n_kept,
        "not done again": found["resumed_rows"],
        "seconds to go on": seconds,
        "lost": len(wanted - set(given)),
        "doubled": sum(given.values()) - len(given),
        "foreign": len(set(given) - wanted),
    }


SPEED = (("rows/s", 0), ("of the encoder", 2), ("steady", 2), (f"MB to {EARLY:.0%}", 0), ("MB", 0))
KILL = ("kept by the kill", "not done again", "lost", "doubled", "foreign")


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """One row for each engine; the encoder stands above them."""
    parts = [_speed_table(result) for cell, result in done if cell["what"] == "speed"]
    kills = [(cell, result) for cell, result in done if cell["what"] == "kill"]
    if kills:
        lines = ["| killed at half | rows | " + " | ".join(KILL) + " |", "|" + "---|" * 7]
        for cell, result in kills:
            cells = " | ".join(f"{result[name]:,}" for name in KILL)
            lines.append(f"| {WHERE[cell['engine']]} | {result['rows']:,} | {cells} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _speed_table(result: Result) -> str:
    lines = [
        f"| {result['rows']:,} distinct texts | " + " | ".join(name for name, _ in SPEED) + " |",
        "|" + "---|" * (len(SPEED) + 1),
        f"| the encoder alone | {result['encoder texts/s']:,.0f} | 1.00 | | | |",
    ]
    for engine in ENGINES:
        cells = [f"{result[f'{engine} {name}']:,.{digits}f}" for name, digits in SPEED]
        lines.append(f"| {WHERE[engine]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


WHERE = {"local": "classify, one process", "ray": "classify, Ray Data"}
CELLS = [
    *({"what": "speed", "rows": rows} for rows in ROWS),
    *({"what": "kill", "engine": engine, "rows": rows} for rows in ROWS for engine in ENGINES),
]

if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)  # a cluster of its own
    main(Benchmark("batch", CELLS, run, table, SOURCES))
