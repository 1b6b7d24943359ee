"""CSV and TSV: UTF-8 with or without a byte order mark, every column read as strings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc

from red_ray.data.formats.source import Source, encoding_error, translated
from red_ray.errors import DataError

_RAGGED = re.compile(r"CSV parse error: Row #(\d+): Expected (\d+) columns, got (\d+)")
_BLOCK_BYTES = 8 << 20  # no row may be longer; short texts are far below it


def open_delimited(path: Path, delimiter: str) -> Source:
    """Open a file whose first row names the columns; a quoted value may hold line breaks.

    Raises:
        DataError: there is no header, the file is not UTF-8, or, while its rows are read, one
            has another number of fields than the header.
    """
    names = _names(path, delimiter, ignore_empty_lines=True)
    ignore_empty_lines = len(names) != 1
    if not ignore_empty_lines:  # in a single column an empty line is an empty value
        names = _names(path, delimiter, ignore_empty_lines=False)
    schema = pa.schema([(name, pa.string()) for name in names])
    return Source(schema, _tables(path, schema, delimiter, ignore_empty_lines))


def _names(path: Path, delimiter: str, ignore_empty_lines: bool) -> list[str]:
    with (
        _explained(path),
        pc.open_csv(
            str(path),
            read_options=_read_options(),
            parse_options=_parse_options(delimiter, ignore_empty_lines),
        ) as reader,
    ):
        return list(reader.schema.names)


def _tables(
    path: Path, schema: pa.Schema, delimiter: str, ignore_empty_lines: bool
) -> Iterator[pa.Table]:
    # `strings_can_be_null` off keeps an empty cell visible, and the word "nan" a word.
    types = dict.fromkeys(schema.names, pa.string())
    with (
        _explained(path),
        pc.open_csv(
            str(path),
            read_options=_read_options(),
            parse_options=_parse_options(delimiter, ignore_empty_lines),
            convert_options=pc.ConvertOptions(column_types=types, strings_can_be_null=False),
        ) as reader,
    ):
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _read_options() -> pc.ReadOptions:
    # Only a single thread can say the number of a bad row.
    return pc.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)


def _parse_options(delimiter: str, ignore_empty_lines: bool) -> pc.ParseOptions:
    return pc.ParseOptions(
        delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=ignore_empty_lines
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say what Arrow's complaint means, without the row that it quotes.

    A user's text belongs in no message.
    """
    with translated(path, "table of separated values"):
        _refuse_utf16(path)
        try:
            yield
        except pa.ArrowInvalid as error:
            _refuse_non_utf8(path)
            raise _error(path, str(error)) from error


def _error(path: Path, complaint: str) -> DataError:
    if ragged := _RAGGED.match(complaint):
        row, expected, found = ragged.groups()
        return DataError(
            f"row {row} of {str(path)!r} does not have {expected} fields as the header has, but "
            f"{found}; put a text that holds a separator or a line break in double quotes, and "
            "close every quote"
        )
    if "straddl" in complaint:
        return DataError(
            f"{str(path)!r} holds a row of more than {_BLOCK_BYTES >> 20} MiB, most likely "
            "behind a double quote that is never closed; close it"
        )
    return DataError(f"{str(path)!r} holds no rows; the first one must name the columns")


def _refuse_utf16(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in head:
        raise encoding_error(path, "UTF-16")


def _refuse_non_utf8(path: Path) -> None:
    with path.open("rb") as file:
        for line in file:
            line.decode("utf-8")
