"""Tables in and out: CSV, TSV, JSONL, Parquet, XLSX, or a folder of Parquet files."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from os import stat_result
from pathlib import Path

import pyarrow as pa

from red_ray.address import was_address
from red_ray.data.formats.delimited import open_delimited
from red_ray.data.formats.jsonl import open_jsonl
from red_ray.data.formats.parquet import open_parquet, parquet_parts
from red_ray.data.formats.source import Source, plain_text, translated
from red_ray.data.formats.workbook import open_workbook
from red_ray.data.writer import EXTENSIONS, TableWriter
from red_ray.errors import DataError

__all__ = ["EXTENSIONS", "Table", "TableWriter", "iter_tables", "read_table", "texts_of"]

_SHOWN_COLUMNS = 12  # names quoted in a message, each cut to _SHOWN_CHARS
_SHOWN_CHARS = 40  # a file without a header has whole texts for names


@dataclass(frozen=True, slots=True)
class Table:
    """The text and label columns of a file, row by row; None where there is no value.

    No value is a null, a float NaN, or a JSONL line that could not be read. An empty cell of a
    format without nulls is the empty string. `labels` is None where there is no such column.
    """

    texts: tuple[str | None, ...]
    labels: tuple[str | None, ...] | None


def read_table(
    path: str | Path,
    *,
    text_column: str,
    label_column: str | None = None,
    label_required: bool = True,
    rows_required: bool = True,
    text_setting: str | None = "text_column",
) -> Table:
    """Read the texts of a table, and their labels.

    Args:
        path: a file of a known extension, or a folder of .parquet files.
        text_column: name of the column of texts.
        label_column: name of the column of labels; None does not ask for labels.
        label_required: whether a missing label column is an error; a pool may lack it.
        rows_required: whether a table without rows is an error; a pool may have none.
        text_setting: the key of the configuration that names the text column, if one does.

    Raises:
        DataError: the table cannot be read, has no rows, or lacks a column.
    """
    path = Path(path)
    source = _open(path, text_column, label_column, text_setting, label_required=label_required)
    with_labels = label_column is not None and label_column in source.schema.names
    texts: list[str | None] = []
    labels: list[str | None] = []
    for table in source.tables:
        texts += texts_of(table, text_column)
        if label_column is not None and with_labels:
            labels += texts_of(table, label_column)
    if not texts and rows_required:
        raise _no_rows(path)
    return Table(tuple(texts), tuple(labels) if with_labels else None)


def iter_tables(path: str | Path, *, text_column: str, chunk_rows: int) -> Iterator[pa.Table]:
    """Stream a table of any size, with all its columns.

    Every chunk has the same schema, and `chunk_rows` rows but for the last. The file is opened
    and its columns are checked at once, not with the first chunk. `texts_of` gives the texts.

    Args:
        path: a file of a known extension, or a folder of .parquet files.
        text_column: name of the column that must hold texts.
        chunk_rows: rows per table, at least 1.

    Raises:
        DataError: the table cannot be read, has no rows, or lacks the column; what is wrong
            further down in a file is raised with its chunk.
    """
    path = Path(path)
    return _rechunk(path, _open(path, text_column).tables, chunk_rows)


def texts_of(table: pa.Table, column: str) -> list[str | None]:
    """A column as `read_table` reads it: numbers as text, None where there is no value."""
    return [plain_text(value) for value in table.column(column).to_pylist()]


def _open(
    path: Path,
    text_column: str,
    label_column: str | None = None,
    text_setting: str | None = "text_column",
    *,
    label_required: bool = False,
) -> Source:
    columns = [(text_column, text_setting, True)]
    if label_column is not None:
        columns.append((label_column, "label_column", label_required))
    source = _source(path, [name for name, _, _ in columns])
    found = source.schema.names
    for name, setting, is_required in columns:
        if is_required and name not in found:
            raise _missing_column(path, setting, name, found)
        _check_plain(path, name, source.schema)
    return source


def _source(path: Path, plain: list[str]) -> Source:
    info = _stat(path)
    if stat.S_ISDIR(info.st_mode):
        return open_parquet(path, parquet_parts(path))
    extension = path.suffix.lower()
    if extension not in EXTENSIONS:
        raise DataError(
            f"{str(path)!r} has the extension {extension!r}; known are {', '.join(EXTENSIONS)}"
        )
    if not stat.S_ISREG(info.st_mode):
        raise DataError(f"{str(path)!r} is not a regular file; write the table to one first")
    if info.st_size == 0:
        raise DataError(f"{str(path)!r} is empty (0 bytes); give a table with rows")
    match extension:
        case ".jsonl":
            return open_jsonl(path, plain)
        case ".parquet":
            return open_parquet(path, [path])
        case ".xlsx":
            return open_workbook(path)
    return open_delimited(path, "," if extension == ".csv" else "\t")


def _stat(path: Path) -> stat_result:
    with translated(path, "table"):
        try:
            return path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(f"there is no file {str(path)!r}; {_suggest(path)}") from error


def _suggest(path: Path) -> str:
    if was_address(path):
        return "tables are read from a disk: copy it to one first, as with `aws s3 cp`"
    try:
        siblings = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f"there is no folder {str(path.parent)!r} either, check the path"
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f"did you mean {near[0]!r}?" if near else "check the path"


def _missing_column(path: Path, setting: str | None, name: str, found: list[str]) -> DataError:
    shown = ", ".join(repr(column[:_SHOWN_CHARS]) for column in found[:_SHOWN_COLUMNS])
    more = f" and {len(found) - _SHOWN_COLUMNS} more" if len(found) > _SHOWN_COLUMNS else ""
    remedy = "" if setting is None else f"set {setting}, or "
    return DataError(
        f"{str(path)!r} has no column {name!r}, only {shown}{more}; {_column_hint(name, found)}"
        f"{remedy}name the column in the first row"
    )


def _column_hint(name: str, found: list[str]) -> str:
    folded = {column.strip().casefold(): column for column in found}
    near = difflib.get_close_matches(name.strip().casefold(), folded, n=1)
    if near:
        return f"did you mean {folded[near[0]]!r}? "
    for delimiter in ";\t|":
        if len(found) == 1 and delimiter in found[0]:
            return f"the separator seems to be {delimiter!r}, use ',' in .csv and a tab in .tsv; "
    return ""


def _check_plain(path: Path, name: str, schema: pa.Schema) -> None:
    indices = schema.get_all_field_indices(name)
    if len(indices) > 1:
        raise DataError(
            f"{str(path)!r} has {len(indices)} columns named {name!r}; rename all but one"
        )
    for index in indices:
        kind = schema.field(index).type
        if pa.types.is_nested(kind) or "binary" in str(kind):
            raise DataError(
                f"column {name!r} of {str(path)!r} holds {str(kind)!r}, not text; "
                "give a column of one text or number per row"
            )


def _rechunk(path: Path, tables: Iterator[pa.Table], chunk_rows: int) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    n_waiting = 0
    empty = True
    for table in tables:
        waiting.append(table)
        n_waiting += table.num_rows
        if n_waiting >= chunk_rows:
            whole = pa.concat_tables(waiting)
            full = n_waiting - n_waiting % chunk_rows
            for start in range(0, full, chunk_rows):
                yield whole.slice(start, chunk_rows)
            waiting, n_waiting, empty = [whole.slice(full)], n_waiting - full, False
    if n_waiting:
        yield pa.concat_tables(waiting)
    elif empty:
        raise _no_rows(path)


def _no_rows(path: Path) -> DataError:
    return DataError(f"{str(path)!r} has columns but no rows; give a table with rows")
