"""Writing tables piece by piece, so that a file is either whole or not there."""

from __future__ import annotations

import errno
import json
import math
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self
from zipfile import ZIP_DEFLATED, ZipFile

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
from openpyxl.writer.excel import ExcelWriter

from red_ray.errors import OutputError, StorageError

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
"""The table formats that are read and written, by file extension."""

_STORAGE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENODEV, errno.ESTALE}
_XLSX_MAX_ROWS = 1_048_576  # of a sheet, its header included: Excel's limit
_XLSX_MAX_CHARS = 32_767  # of a cell: Excel's limit
_XLSX_MAX_INTEGER = 2**53  # Excel's numbers are doubles; a longer id would change


def create_file(path: Path) -> BinaryIO:
    """Open a new file for writing; it must not exist."""
    return path.open("xb")


class TableWriter:
    """Context manager that appends Arrow tables to a file of the format its extension names.

    The rows go to a hidden file beside the target, which takes the target's place when the
    block ends; if the block raises, the hidden file goes and the target is what it was. All
    tables have the schema of the first. Without a call of `write` no file is made.

    What a format cannot hold is adapted: lists and objects become JSON in CSV, TSV and XLSX;
    in XLSX a text is cut after 32,767 characters and loses control characters, and no text is
    ever taken for a formula.

    Args:
        path: the target; its extension is one of `EXTENSIONS`.
        create: opens the hidden file.

    Raises:
        OutputError: the extension is unknown, the place cannot be written, or the rows do not
            fit the format.
        StorageError: the disk is full or went away.
    """

    def __init__(
        self, path: str | Path, *, create: Callable[[Path], BinaryIO] = create_file
    ) -> None:
        self._path = Path(path)
        self._create = create
        self._extension = self._path.suffix.lower()
        if self._extension not in EXTENSIONS:
            raise OutputError(
                f"cannot write {str(path)!r}: the extension {self._extension!r} is not one of "
                f"{', '.join(EXTENSIONS)}"
            )
        # Behind a symbolic link it is the file that is replaced, not the link.
        self._target = Path(os.path.realpath(path))
        hidden = f".{self._target.name[:100]}.{uuid.uuid4().hex[:8]}.part"
        self._hidden = self._target.with_name(hidden)
        self._schema: pa.Schema | None = None
        self._sink: _Sink | None = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        with self._translated():
            if self._target.is_dir():
                raise OutputError(f"cannot write {str(self._path)!r}: it is a folder; name a file")
            if not self._target.parent.is_dir():
                raise OutputError(
                    f"cannot write {str(self._path)!r}: there is no folder "
                    f"{str(self._target.parent)!r}; create it first"
                )
            self._file = self._create(self._hidden)
        return self

    def write(self, table: pa.Table) -> None:
        """Append the rows of `table`.

        Raises:
            ValueError: its schema is not that of the first table, or the block was left.
            OutputError: a sheet cannot hold that many rows.
            StorageError: the disk is full or went away.
        """
        if self._file is None:
            raise ValueError("a TableWriter writes inside its `with` block only")
        with self._translated():
            if self._sink is None:
                self._schema = table.schema
                self._sink = _open_sink(self._extension, self._file, table.schema)
            if not table.schema.equals(self._schema):
                raise ValueError(f"the schema {table.schema} differs from the first {self._schema}")
            self._sink.write(table)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._sink is not None and self._file is not None:
                with self._translated():
                    self._finish(self._sink, self._file)
        finally:
            self._clean_up()

    def _finish(self, sink: _Sink, file: BinaryIO) -> None:
        sink.close()
        self._sink = None
        file.flush()
        os.fsync(file.fileno())  # before the rename, so that no crash leaves an empty target
        file.close()
        self._hidden.replace(self._target)

    def _clean_up(self) -> None:
        """Close what is open and remove the hidden file, where it was not renamed."""
        if self._sink is not None:
            with suppress(OSError, ValueError):
                self._sink.discard()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        with suppress(OSError):
            self._hidden.unlink(missing_ok=True)
        self._sink = self._file = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            if error.errno in _STORAGE_ERRNOS:
                raise StorageError(
                    f"cannot write {str(self._path)!r}: {reason}; make room and run it again, "
                    "nothing half-written was left"
                ) from error
            raise OutputError(
                f"cannot write {str(self._path)!r}: {reason}; check the place and its permissions"
            ) from error


class _Sink(Protocol):
    """One format of output."""

    def write(self, table: pa.Table) -> None:
        """Append rows."""

    def close(self) -> None:
        """Write what is left; the file stays open."""

    def discard(self) -> None:
        """Let go of everything; the file will be removed."""


def _open_sink(extension: str, file: BinaryIO, schema: pa.Schema) -> _Sink:
    match extension:
        case ".jsonl":
            return _JsonlSink(file)
        case ".parquet":
            return _ParquetSink(file, schema)
        case ".xlsx":
            return _XlsxSink(file, schema)
    return _DelimitedSink(file, schema, "," if extension == ".csv" else "\t")


class _DelimitedSink:
    def __init__(self, file: BinaryIO, schema: pa.Schema, delimiter: str) -> None:
        options = pc.WriteOptions(delimiter=delimiter)
        self._writer = pc.CSVWriter(file, _flat(schema.empty_table()).schema, write_options=options)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(_flat(table))

    def close(self) -> None:
        self._writer.close()

    discard = close


class _ParquetSink:
    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(file, schema)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()

    discard = close


class _JsonlSink:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            line = json.dumps(_json_value(row), ensure_ascii=False, default=str)
            self._file.write(line.encode("utf-8") + b"\n")

    def close(self) -> None:
        """Every line is written already."""

    discard = close


class _XlsxSink:
    def __init__(self, file: BinaryIO, schema: pa.Schema) -> None:
        self._file = file
        self._book = Workbook(write_only=True)
        self._sheet = self._book.create_sheet("data")
        self._n_rows = 0
        self._append(schema.names)

    def write(self, table: pa.Table) -> None:
        if self._n_rows + table.num_rows > _XLSX_MAX_ROWS:
            raise OutputError(
                f"an XLSX sheet holds at most {_XLSX_MAX_ROWS} rows, header included, and these "
                f"are at least {self._n_rows + table.num_rows}; write .csv or .parquet"
            )
        columns = [column.to_pylist() for column in _flat(table).columns]
        for row in zip(*columns, strict=True):
            self._append(row)

    def close(self) -> None:
        # As `Workbook.save` does it, but the archive is closed also where the disk is full.
        with ZipFile(self._file, "w", ZIP_DEFLATED) as archive:
            ExcelWriter(self._book, archive).save()

    def discard(self) -> None:
        if not self._sheet.closed:
            self._sheet.close()

    def _append(self, row: Any) -> None:
        self._sheet.append([self._cell(value) for value in row])
        self._n_rows += 1

    def _cell(self, value: Any) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, int) and abs(value) <= _XLSX_MAX_INTEGER:
            return value
        cell = WriteOnlyCell(
            self._sheet, ILLEGAL_CHARACTERS_RE.sub("", str(value))[:_XLSX_MAX_CHARS]
        )
        cell.data_type = "s"  # else a user's text that starts with "=" would run as a formula
        return cell


def _flat(table: pa.Table) -> pa.Table:
    """Replace what a cell cannot hold by its JSON."""
    for index, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_string_view(kind):
            table = table.set_column(index, field.name, table.column(index).cast(pa.string()))
        elif pa.types.is_nested(kind) or "binary" in str(kind):
            column = pa.array([_json_text(v) for v in table.column(index).to_pylist()], pa.string())
            table = table.set_column(index, field.name, column)
    return table


def _json_text(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(_json_value(value), ensure_ascii=False, default=str)


def _json_value(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they are null."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {str(key): _json_value(item) for key, item in value.items()}
        case list():
            return [_json_value(item) for item in value]
    return value
