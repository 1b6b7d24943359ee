"""XLSX: the first sheet, its first filled row as the header, every cell as text."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa

from red_ray.data.formats.source import Source, batches, damaged, plain_text, translated
from red_ray.errors import DataError

# What openpyxl lets through of a damaged or foreign workbook, found by flipping bytes.
_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    LookupError,
    RuntimeError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    SyntaxError,
)


def open_workbook(path: Path) -> Source:
    """Open a workbook's first sheet, streaming; rows without any value are passed over.

    A column without a name in the header is called `column_N`. What stands beside the header,
    to its right, is not read.

    Raises:
        DataError: the sheet has no filled row, or the file is not a workbook.
    """
    rows = _rows(path)
    header = next(rows, None)
    if header is None:
        raise DataError(f"{str(path)!r} holds no rows in its first sheet; put the table there")
    while header[-1] is None:
        header = header[:-1]
    names = [plain_text(cell) or f"column_{number}" for number, cell in enumerate(header, 1)]
    schema = pa.schema([(name, pa.string()) for name in names])
    return Source(schema, _tables(rows, schema))


def _tables(rows: Iterator[tuple[Any, ...]], schema: pa.Schema) -> Iterator[pa.Table]:
    width = len(schema)
    for batch in batches(rows):
        # A row ends at its last filled cell.
        full = [(row + (None,) * width)[:width] for row in batch]
        columns = [[plain_text(cell) or "" for cell in cells] for cells in zip(*full, strict=True)]
        arrays = [pa.array(column, pa.string()) for column in columns]
        yield pa.Table.from_arrays(arrays, schema=schema)


def _rows(path: Path) -> Iterator[tuple[Any, ...]]:
    """The rows of the first sheet that hold a value; formulas as their last result."""
    with translated(path, "XLSX workbook"), path.open("rb") as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about styles and the like, of no use here
                book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            sheet = book.worksheets[0]
            sheet.reset_dimensions()  # some programs write a wrong size, and rows would be lost
            for row in sheet.iter_rows(values_only=True):
                if any(cell is not None for cell in row):
                    yield row
        except _FAULTS as error:
            raise damaged(path, "XLSX workbook") from error
