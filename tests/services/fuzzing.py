"""Damaged tables for the readers: whatever the bytes, a table or one line for the user.

A case is a format and a seed, and nothing else decides it:

    python -m tests.services.fuzzing xlsx 1234

reads that one again. Many cases run in a process of their own, since what a parser in C++ may
do to damaged bytes includes a crash, a hang and a claim on all memory.
"""

from __future__ import annotations

import argparse
import datetime
import faulthandler
import io
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from red_ray.data.tables import Table, iter_tables, read_table, texts_of
from red_ray.errors import DataError

KINDS = ("csv", "tsv", "jsonl", "parquet", "xlsx")
CASE_S = 20.0  # a case takes milliseconds; this is a hang, also on a busy machine
MEMORY = 4 << 30  # of addresses: a damaged length must not take what the machine has

_ROOT = Path(__file__).parents[2]
_CURRENT = "current"
_NOISE = [b"\x00", b"\xff", b'"', b"\n", b"\r", b",", b"\t", b"{", b"<", b"\xed\xa0\x80", b"\x1a"]
_TEXTS = [
    "Where is my card?",
    'She said "no", twice',
    "two\nlines",
    "naïve café 🙂 日本",
    "",
    "nan",
    "=1+1",
    "_x0041_ and \ttabs",
    "long " * 60,
]


@dataclass(frozen=True, slots=True)
class Found:
    """What became of the cases: how many were read, and how many refused by a `DataError`."""

    n_tables: int
    n_refused: int

    @property
    def n_cases(self) -> int:
        return self.n_tables + self.n_refused


def fuzz(
    kind: str,
    folder: Path,
    *,
    first_seed: int,
    n_cases: int,
    limit_s: float,
    case_s: float = CASE_S,
) -> Found:
    """Read damaged files of one kind, in a process of their own.

    Args:
        kind: one of `KINDS`.
        folder: where the damaged file of the moment stands, and stays if it is a finding.
        first_seed: of the first case; the next one has the next number.
        n_cases: at most.
        limit_s: no case begins later.
        case_s: a case that takes longer hangs.

    Raises:
        AssertionError: a case did what no reader may do; the message has its seed.
    """
    command = [sys.executable, "-W", "error", "-m", "tests.services.fuzzing", kind]
    command += [str(first_seed), "--cases", str(n_cases), "--limit-s", str(limit_s)]
    done = subprocess.run(
        [*command, "--case-s", str(case_s), "--folder", str(folder)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    current = folder / _CURRENT
    case = current.read_text() if current.exists() else f"{kind} {first_seed}"
    assert done.returncode == 0, (
        f"{case}: exit {done.returncode}; again by: python -m tests.services.fuzzing {case}\n"
        f"{done.stderr[-4000:]}"
    )
    return Found(**json.loads(done.stdout))


def run_cases(
    kind: str, folder: Path, *, first_seed: int, n_cases: int, limit_s: float, case_s: float
) -> Found:
    """As `fuzz`, in this process: a crash or a hang is the end of it."""
    outcomes: Counter[bool] = Counter()
    path = folder / f"case.{kind}"
    end_s = time.monotonic() + limit_s
    for seed in range(first_seed, first_seed + n_cases):
        if time.monotonic() > end_s:
            break
        (folder / _CURRENT).write_text(f"{kind} {seed}")
        path.write_bytes(damaged(kind, seed))
        faulthandler.dump_traceback_later(case_s, exit=True)
        try:
            outcomes[check(path)] += 1
        finally:
            faulthandler.cancel_dump_traceback_later()
    return Found(n_tables=outcomes[True], n_refused=outcomes[False])


def check(path: Path) -> bool:
    """Read a file in both ways; whether it was a table. Anything but that or a refusal raises."""
    whole, streamed = _read(path), _stream(path)
    if isinstance(whole, Table):
        assert streamed == whole.texts, "the stream has other rows than the table"
        assert whole.labels is None or len(whole.labels) == len(whole.texts)
        for cell in (*whole.texts, *(whole.labels or ())):
            (cell or "").encode("utf-8")  # raises on half a character, which no model takes
        return True
    for message in (whole, streamed):
        assert not isinstance(message, str) or len(message.splitlines()) == 1, repr(message)
    return False


def _read(path: Path) -> Table | str:
    try:
        return read_table(path, text_column="text", label_column="label", label_required=False)
    except DataError as error:
        return str(error)


def _stream(path: Path) -> tuple[str | None, ...] | str:
    try:
        chunks = [texts_of(t, "text") for t in iter_tables(path, text_column="text", chunk_rows=7)]
    except DataError as error:
        return str(error)
    assert all(len(chunk) == 7 for chunk in chunks[:-1])
    return tuple(text for chunk in chunks for text in chunk)


def damaged(kind: str, seed: int) -> bytes:
    """A valid file of `kind` after up to three blows."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    seeds = valid(kind)
    data = seeds[rng.integers(len(seeds))]
    if kind == "xlsx" and rng.random() < 0.7:  # the checksums of a ZIP archive hide its inside
        return _inside(data, rng)
    return _struck(data, seeds, rng)


def _struck(data: bytes, others: tuple[bytes, ...], rng: np.random.Generator) -> bytes:
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        match rng.integers(9):
            case 0 | 1 | 6 | 7 | 8:
                data = _flip(data, rng)
            case 2:
                start, end = _span(len(data), rng)
                data = data[:end] if rng.random() < 0.8 else data[start:]
            case 3:
                other = others[rng.integers(len(others))]
                data = data[: _span(len(data), rng)[0]] + other[_span(len(other), rng)[0] :]
            case 4:
                start, end = _span(len(data), rng)
                data = (
                    data[:start] + data[end:] if rng.random() < 0.5 else data[:end] + data[start:]
                )
            case 5:
                start, _ = _span(len(data), rng)
                data = data[:start] + _NOISE[rng.integers(len(_NOISE))] + data[start:]
    return data


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    """Other bits in one byte or up to eight, the ends of the file as often as its middle."""
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 8])):
        reach = min(len(data), int(rng.choice([64, 1024, len(data)])))
        place = int(rng.integers(reach))
        place = place if rng.random() < 0.5 else len(data) - 1 - place
        changed[place] ^= int(rng.choice([1 << rng.integers(8), rng.integers(1, 256)]))
    return bytes(changed)


def _span(length: int, rng: np.random.Generator) -> tuple[int, int]:
    start, end = sorted(rng.integers(length + 1, size=2).tolist())
    return start, end


def _inside(data: bytes, rng: np.random.Generator) -> bytes:
    """A workbook whose archive is sound, with one or two of its parts damaged."""
    parts = _parts(data)
    every = tuple(parts.values())
    for _ in range(rng.integers(1, 3)):
        name = list(parts)[rng.integers(len(parts))]
        if rng.random() < 0.15:
            parts.pop(name) if len(parts) > 1 else None
        else:
            parts[name] = _struck(parts[name], every, rng)
    return _archive(parts)


@lru_cache(maxsize=len(KINDS))
def valid(kind: str) -> tuple[bytes, ...]:
    """Some whole files of a kind: few rows, many, one column, columns of odd types."""
    few, many = _rows(len(_TEXTS)), _rows(300)
    match kind:
        case "csv" | "tsv":
            delimiter = "," if kind == "csv" else "\t"
            tables = (few, many, few.select(["text"]))
            plain = tuple(_delimited(table, delimiter) for table in tables)
            return (*plain, b"\xef\xbb\xbf" + plain[0], plain[0].replace(b"\n", b"\r\n"))
        case "jsonl":
            odd = (
                b'{"text": 1, "label": [1]}\n'
                b'{"text": "\\ud83d\\ude42 \\ud800", "more": {"a": 1.5}}\n'
                b'{"text": null}\n[]\n\n'
            )
            return (_jsonl(few), _jsonl(many), odd)
        case "parquet":
            plain = (_parquet(few), _parquet(many, compression="none", row_group_size=50))
            small_pages = _parquet(many, compression="zstd", data_page_size=256)
            return (*plain, small_pages, _parquet(_odd_types()), _parquet(many, version="1.0"))
        case "xlsx":
            return (_workbook(few), _workbook(_rows(80)), _workbook(few, typed=True))
    raise ValueError(f"no format {kind!r}; known are {KINDS}")


def _rows(n: int) -> pa.Table:
    texts = [f"{_TEXTS[i % len(_TEXTS)]}{i // len(_TEXTS) or ''}" for i in range(n)]
    return pa.table({"id": range(n), "text": texts, "label": [f"label_{i % 7}" for i in range(n)]})


def _odd_types() -> pa.Table:
    day = datetime.date(2024, 2, 29)
    return pa.table(
        {
            "text": pa.array(["a", None, "b", "a"]).dictionary_encode(),
            "label": pa.array([Decimal("1.50"), None, Decimal("2.00"), Decimal("1.50")]),
            "list": [["x"], [], None, ["y", "z"]],
            "struct": [{"a": 1}, {"a": None}, None, {"a": 2}],
            "day": [day, None, day, day],
            "bytes": [b"\xff", b"", None, b"x"],
            "float": [1.0, float("nan"), None, 2.5],
        }
    )


def _delimited(table: pa.Table, delimiter: str) -> bytes:
    sink = io.BytesIO()
    pc.write_csv(table, sink, pc.WriteOptions(delimiter=delimiter))
    return sink.getvalue()


def _jsonl(table: pa.Table) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()


def _parquet(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def _workbook(table: pa.Table, *, typed: bool = False) -> bytes:
    book = openpyxl.Workbook()
    book.active.append(table.column_names)
    for row in table.to_pylist():
        book.active.append(list(row.values()))
    if typed:
        moment = datetime.datetime(2024, 2, 29, 12, 30)
        book.active.append([1.5, moment, True])
        book.active.append([None, "=SUM(A2:A3)", datetime.timedelta(hours=30)])
    sink = io.BytesIO()
    book.save(sink)
    book.close()
    # Without the times of its making, or a seed would not make the same file twice.
    parts = _parts(sink.getvalue())
    core = parts["docProps/core.xml"]
    parts["docProps/core.xml"] = re.sub(rb"\d{4}-\d\d-\d\dT[\d:]+Z", b"2024-01-01T00:00:00Z", core)
    return _archive(parts)


def _parts(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _archive(parts: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return sink.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("seed", type=int)
    parser.add_argument("--cases", type=int, default=1)
    parser.add_argument("--limit-s", type=float, default=CASE_S)
    parser.add_argument("--case-s", type=float, default=CASE_S)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    faulthandler.enable()
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    found = run_cases(
        args.kind,
        args.folder,
        first_seed=args.seed,
        n_cases=args.cases,
        limit_s=args.limit_s,
        case_s=args.case_s,
    )
    print(json.dumps({"n_tables": found.n_tables, "n_refused": found.n_refused}))


if __name__ == "__main__":
    main()
