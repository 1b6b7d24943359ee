"""Tables that people answer in: how they are read, and that none of their answers is lost."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from red_ray.data.formats.source import translated
from red_ray.errors import DataError
from red_ray.judges import Ledger
from red_ray.judges.ledger.transfer import all_known

_MAX_CELL_CHARS = 1 << 27  # as long as a text may be; the csv module's own limit is 128 KiB


def numbered_answers(path: Path) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Line numbers, and rows by column; None for one that has not as many cells as the header.

    Raises:
        DataError: it cannot be read, or lacks the columns `text` and `answer`.
    """
    csv.field_size_limit(_MAX_CELL_CHARS)
    with (
        translated(path, "table of separated values"),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        first = file.readline()
        # A spreadsheet writes semicolons where the comma is the decimal sign.
        delimiter = ";" if first.count(";") > first.count(",") else ","
        header = next(csv.reader([first], delimiter=delimiter), [])
        for name in ("text", "answer"):
            if name not in header:
                raise DataError(
                    f"{str(path)!r} has no column {name!r}; fill in a run's disputed.csv, or a "
                    ".csv that `red-ray ledger export` wrote"
                )
        for line, row in _rows(csv.reader(file, delimiter=delimiter)):
            if row is None or row:
                fits = row is not None and len(row) == len(header)
                yield line, dict(zip(header, row or (), strict=True)) if fits else None


def answers(path: Path) -> Iterator[dict[str, str] | None]:
    """The rows alone, as `numbered_answers` gives them."""
    return (row for _, row in numbered_answers(path))


def holds_unheard_answers(path: Path, ledger: Ledger | None) -> bool:
    """Whether a person wrote something into the table at `path` that the ledger does not hold.

    A table that cannot be read may be one; where there is none, nobody did.
    """
    if not path.is_file():
        return False
    try:
        return not all_known(ledger, answers(path))
    except DataError:
        return True


def _rows(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str] | None]]:
    """Rows and the lines they begin on; None for one that is none, then the reader goes on."""
    line = 2  # after the header
    while True:
        try:
            row: list[str] | None = next(reader)
        except StopIteration:
            return
        except csv.Error:
            row = None
        yield line, row
        line = reader.line_num + 2  # type: ignore[attr-defined]
