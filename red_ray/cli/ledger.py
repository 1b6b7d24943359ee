"""`red-ray ledger`: verdicts out, verdicts and people's answers in, and what they cost."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import pyarrow as pa
import typer

from red_ray.address import is_address, is_folder, shown
from red_ray.bundle import MANIFEST, load_bundle
from red_ray.cli.console import Output, guarded
from red_ray.cli.lasting import check_lasting
from red_ray.cli.options import Json, check_is_local
from red_ray.cli.show_ledger import ledger_stats, stats_table
from red_ray.config import load_config
from red_ray.data.formats.source import translated
from red_ray.data.tables import TableWriter
from red_ray.data.writer import create_file
from red_ray.errors import DataError, OutputError
from red_ray.evaluation.answers import answers, numbered_answers
from red_ray.judges.ledger import Ledger, is_url
from red_ray.judges.ledger.schema import stored_text_key
from red_ray.judges.ledger.transfer import (
    PERSON_COLUMNS,
    Only,
    exported,
    person_rows,
    take_answers,
    take_records,
    unguarded_cell,
)
from red_ray.run_folder import RunFolder
from red_ray.working_copy import local_folder

ledger = typer.Typer(no_args_is_help=True, help="Verdicts: export, import, what they cost.")

Place = Annotated[
    str,
    typer.Argument(
        help="A run folder or its address, an .sqlite file or a postgresql:// URL.",
        metavar="LEDGER",
    ),
]

_CHUNK_ROWS = 1000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_PERSON_SCHEMA = pa.schema([(name, pa.string()) for name in PERSON_COLUMNS])
_WORDS = ("key", "text", "mode", "judge", "prompt_version", "outcome", "label", "error", "version")
_RECORD_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in (*_WORDS, "asked_in", "created_at")),
        ("candidates", pa.list_(pa.string())),
        *((name, pa.int64()) for name in ("requests", "prompt_tokens", "completion_tokens")),
        *((name, pa.float64()) for name in ("latency_ms", "cost_usd")),
    ]
)


@ledger.command("export")
def export_verdicts(
    place: Place,
    target: Annotated[
        Path,
        typer.Option(
            "--output", help=".jsonl: everything, to move a ledger; .csv: for people to answer in."
        ),
    ],
    only: Annotated[
        Only,
        typer.Option(
            help="Which verdicts a .csv shows. disputed: on a text about which answers of judges "
            "contradict each other; a run's disputed.csv lists what its model contradicts, too."
        ),
    ] = Only.ALL,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    as_json: Json = False,
) -> None:
    """Write the verdicts to a file."""
    output = Output(as_json=as_json)
    with guarded(output):
        check_is_local(target, "--output")
        check_lasting(target, "--output")
        kind = _kind(target, "--output")
        if kind == ".jsonl" and only is not Only.ALL:
            raise OutputError(f"--only {only} is for a .csv; a .jsonl holds every verdict")
        if target.exists() and not overwrite:
            raise OutputError(f"{str(target)!r} is there already; add --overwrite to replace it")
        with closing(Ledger(_place(place))) as opened:
            if kind == ".csv":
                n_rows = _write(target, person_rows(opened, only), _PERSON_SCHEMA)
            else:
                n_rows = _write(target, exported(opened), _RECORD_SCHEMA)
        output.result({"rows": n_rows, "output": str(target)})
        if not as_json:
            output.out.print(f"{n_rows:,} rows written to {target}", soft_wrap=True, markup=False)
            if kind == ".csv" and n_rows:
                output.note("fill in the column `answer` (none: no label fits), then import it")


@ledger.command("import")
def import_verdicts(
    place: Place,
    source: Annotated[
        Path,
        typer.Option(
            "--input",
            help=".jsonl of another ledger, or .csv with the columns `text` and `answer`.",
        ),
    ],
    new_labels: Annotated[
        bool, typer.Option("--new-labels", help="Take answers that are no known label, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add verdicts of another ledger, or people's answers; what is there stays."""
    output = Output(as_json=as_json)
    with guarded(output):
        kind = _kind(source, "--input")
        if not source.is_file():
            raise DataError(f"there is no file {str(source)!r}; check the path")
        with closing(Ledger(_place(place, create=True))) as opened:
            if kind == ".jsonl":
                _import_records(output, opened, source)
            else:
                _import_answers(output, opened, source, _bundle_labels(place), new_labels)


@ledger.command("stats")
def show_stats(place: Place, as_json: Json = False) -> None:
    """What each judge answered, how fast, and what it cost."""
    output = Output(as_json=as_json)
    with guarded(output):
        with closing(Ledger(_place(place))) as opened:
            stats = ledger_stats(opened)
        output.result({"ledger": shown(place) if is_address(place) else place, **stats})
        if not as_json:
            output.out.print(stats_table(stats))


def _kind(file: Path, option: str) -> str:
    kind = file.suffix.lower()
    if kind not in (".jsonl", ".csv"):
        raise OutputError(f"{option} takes a .jsonl or a .csv, got {str(file)!r}")
    return kind


def _place(named: str, *, create: bool = False) -> str | Path:
    """What to open; a run's own configuration may name a database."""
    if is_folder(named):
        return _place_of_address(named)
    if is_url(named):
        return named
    path = Path(named)
    if path.is_dir():
        if not (path / "config.yaml").is_file():
            raise DataError(f"the folder {named!r} holds no run: it has no config.yaml")
        configured = load_config(path / "config.yaml").judge.ledger
        if configured is not None:
            return configured
        path = RunFolder(path).ledger
    if not path.is_file() and not (create and path.suffix == ".sqlite"):
        raise DataError(
            f"there is no ledger {str(path)!r}; name a run folder, an .sqlite file or a "
            "postgresql:// URL"
        )
    return path


def _place_of_address(named: str) -> str:
    """The database that the run at an address has its verdicts in."""
    with local_folder(named) as folder:
        path = folder / "config.yaml"
        if not path.is_file():
            raise DataError(f"there is no run at {shown(named)!r}: it has no config.yaml")
        configured = load_config(path).judge.ledger
    if configured is None:
        raise DataError(
            f"the run at {shown(named)!r} names no ledger; one that has verdicts has judge.ledger "
            "in its config.yaml"
        )
    return configured


def _bundle_labels(named: str) -> frozenset[str]:
    """Labels of the model, where the ledger is named by a run that has one."""
    if is_url(named) and not is_folder(named):
        return frozenset()
    with local_folder(named) as folder:
        bundle = folder / "bundle"
        return frozenset(load_bundle(bundle).labels if (bundle / MANIFEST).is_file() else ())


def _write(target: Path, rows: Iterator[dict[str, Any]], schema: pa.Schema) -> int:
    n_rows = 0
    create = _marked_file if target.suffix.lower() == ".csv" else create_file
    with TableWriter(target, create=create) as writer:
        writer.write(schema.empty_table())  # an empty ledger gives an empty file
        while chunk := list(itertools.islice(rows, _CHUNK_ROWS)):
            writer.write(pa.Table.from_pylist(chunk, schema=schema))
            n_rows += len(chunk)
    return n_rows


def _marked_file(path: Path) -> BinaryIO:
    """Spreadsheets take a file without this mark for one that is not UTF-8."""
    file = create_file(path)
    file.write(_BYTE_ORDER_MARK)
    return file


def _import_records(output: Output, opened: Ledger, source: Path) -> None:
    counts = take_records(opened, _lines(source))
    if counts.bad and not (counts.new or counts.known or counts.humans):
        raise DataError(
            f"none of the {counts.bad:,} lines of {str(source)!r} is a verdict; "
            "give a file that `red-ray ledger export` wrote"
        )
    output.result(asdict(counts))
    if output.as_json:
        return
    output.out.print(
        f"new verdicts: {counts.new:,}; answers of people: {counts.humans:,}; "
        f"known before: {counts.known:,}"
    )
    if counts.bad:
        output.note(f"lines that are no verdict, left out: {counts.bad:,}")


def _import_answers(
    output: Output, opened: Ledger, source: Path, labels: frozenset[str], new_labels: bool
) -> None:
    _refuse_two_answers(source)
    counts = take_answers(opened, answers(source), labels=labels, new_labels=new_labels)
    output.result(asdict(counts))
    if counts.unknown:
        known = sorted(opened.labels() | labels)
        shown = ", ".join(_with_suggestion(label, known) for label in counts.unknown_labels)
        output.note(
            f"answers that are no known label, not taken: {counts.unknown:,}, such as {shown}; "
            "add --new-labels to take them"
        )
    if counts.bad:
        output.note(f"rows that cannot be read, left out: {counts.bad:,}")
    if not output.as_json:
        output.out.print(
            f"answers taken: {counts.taken:,}; known before: {counts.known:,}; "
            f"rows without one: {counts.unanswered:,}"
        )


def _refuse_two_answers(source: Path) -> None:
    """Refuse a file that answers one text twice, and differently; before any of it is taken."""
    given: dict[str, tuple[int, str]] = {}
    for line, row in numbered_answers(source):
        answer = unguarded_cell(row["answer"]).strip() if row else ""
        if not row or not answer:
            continue
        before, other = given.setdefault(
            stored_text_key(unguarded_cell(row["text"])), (line, answer)
        )
        if answer != other:
            raise DataError(
                f"{str(source)!r} answers the same text twice: {other!r} in line {before}, "
                f"{answer!r} in line {line}; clear one of them"
            )


def _with_suggestion(label: str, known: list[str]) -> str:
    near = difflib.get_close_matches(label, known, n=1)
    return repr(label) + (f" (did you mean {near[0]!r}?)" if near else "")


def _lines(path: Path) -> Iterator[bytes]:
    with translated(path, "file of JSON lines"), path.open("rb") as file:
        for line in file:
            yield line.removeprefix(_BYTE_ORDER_MARK)
