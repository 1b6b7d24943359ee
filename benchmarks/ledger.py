"""The ledger with 100,000 verdicts: how long an import, a look-up and a commit take.

PostgreSQL is the server at RED_RAY_TEST_POSTGRES, else a private one on this machine, with its
default settings, which wait for the disk; without either its row is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.cells import Benchmark, Cell, Result, main
from red_ray.judges.ledger import Kept, Ledger, Received, Sent, utc_now
from red_ray.judges.ledger.transfer import exported, take_records
from red_ray.types import Candidate, Outcome, Question, Verdict
from tests.services import postgres

N_VERDICTS = 100_000
N_LOOK_UPS = 2_000
N_COMMITS = 500
ROUND = "run/1"
JUDGE = "openai:model@https://host/v1"
CANDIDATES = tuple(Candidate(f"a_label_of_usual_length_{i}") for i in range(5))


SOURCES = ("judges/ledger",)


def run(cell: Cell) -> Result:
    """Import into an empty ledger, then read and write in it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lines = folder / "verdicts.jsonl"
        write_lines(folder / "source.sqlite", lines)
        place = stack.enter_context(new_place(cell["database"], folder))
        ledger = stack.enter_context(closing(Ledger(place)))
        start = perf_counter()
        with lines.open("rb") as file:
            counts = take_records(ledger, file)
        import_s = perf_counter() - start
        assert counts.new == N_VERDICTS, counts
        return {
            "import_s": import_s,
            "look_up_ms": look_ups(ledger, ""),
            "look_up_in_round_ms": look_ups(ledger, ROUND),
            "commit_ms": commits(ledger),
        }


def write_lines(source: Path, target: Path) -> None:
    """What `red-ray ledger export` writes."""
    with closing(Ledger(source)) as ledger, target.open("w") as file:
        ledger.write([kept(number) for number in range(N_VERDICTS)])
        file.writelines(json.dumps(row) + "\n" for row in exported(ledger))


def kept(number: int) -> Kept:
    verdict = Verdict(key(number), Outcome.LABEL, CANDIDATES[0].label, JUDGE, 1, 400.0, 300, 12)
    text = f"where is the card number {number} that I ordered two weeks ago?"
    return Kept(verdict, Question(text, CANDIDATES), ROUND)


def key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def look_ups(ledger: Ledger, asked_in: str) -> list[float]:
    """Median and 99th percentile of one key."""
    rng = np.random.default_rng(1)
    taken_ms = []
    for number in rng.integers(N_VERDICTS, size=N_LOOK_UPS):
        asked = key(int(number))
        start = perf_counter()
        found = ledger.get_many([asked], asked_in=asked_in)
        taken_ms.append((perf_counter() - start) * 1000)
        assert list(found) == [asked]
    return [float(ms) for ms in np.quantile(taken_ms, [0.5, 0.99])]


def commits(ledger: Ledger) -> list[float]:
    """Median and 99th percentile of: one request sent, then its answer and verdict."""
    taken_ms = []
    for number in range(N_COMMITS):
        sent = Sent(f"{number:032x}", key(-number), JUDGE, ROUND, utc_now(), 300, 0.001)
        answer = [Received(sent.id, "label", 300, 12, 0.001, 400.0), kept(N_VERDICTS + number)]
        for entries in ([sent], answer):
            start = perf_counter()
            ledger.write(entries)
            taken_ms.append((perf_counter() - start) * 1000)
    return [float(ms) for ms in np.quantile(taken_ms, [0.5, 0.99])]


@contextmanager
def new_place(database: str, folder: Path) -> Iterator[str | Path]:
    """An empty place for a ledger."""
    if database == "SQLite":
        yield folder / "ledger.sqlite"
        return
    with ExitStack() as stack:
        server = os.environ.get("RED_RAY_TEST_POSTGRES")
        url = server or stack.enter_context(postgres.server())
        yield stack.enter_context(postgres.place(url))


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Medians, with the 99th percentile in brackets."""
    columns = ("import s", "look-up ms", "look-up in its round ms", "commit ms")
    lines = [f"| {N_VERDICTS:,} verdicts | " + " | ".join(columns) + " |", "|---" * 5 + "|"]
    for cell, result in done:
        names = ("look_up_ms", "look_up_in_round_ms", "commit_ms")
        spans = ("{:.2f} ({:.2f})".format(*result[name]) for name in names)
        lines.append(
            f"| {cell['database']} | {result['import_s']:.1f} | " + " | ".join(spans) + " |"
        )
    return "\n".join(lines)


def databases() -> list[str]:
    """SQLite, and PostgreSQL where there is one."""
    try:
        postgres.find_programs()
    except postgres.Unavailable as error:
        if "RED_RAY_TEST_POSTGRES" not in os.environ:
            print(f"without PostgreSQL: {error}")
            return ["SQLite"]
    return ["SQLite", "PostgreSQL"]


if __name__ == "__main__":
    main(Benchmark("ledger", [{"database": name} for name in databases()], run, table, SOURCES))
