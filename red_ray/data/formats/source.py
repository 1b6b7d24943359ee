"""What the readers share: the opened table, how a cell reads as text, how a fault is told."""

from __future__ import annotations

import datetime
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from red_ray.errors import DataError

Row = TypeVar("Row")

_BATCH_ROWS = 4096  # rows held as Python objects at a time


@dataclass(frozen=True, slots=True)
class Source:
    """An opened table: its columns, and its rows as tables of no particular size."""

    schema: pa.Schema
    tables: Iterator[pa.Table]


def plain_text(value: Any) -> str | None:
    """A cell as text, the same in every format; None where it is no value.

    A float NaN is no value (a missing cell in numeric clothes), the word "nan" is a text like
    any other. A whole float reads like an integer, because a missing cell turns a column of
    integers into floats. Lists, objects and bytes are no text.
    """
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float() if math.isnan(value):
            return None
        case float() if value.is_integer():
            return str(int(value))
        case int() | float() | Decimal() | datetime.date() | datetime.time():
            return str(value)
    return None


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in lists of a bounded length."""
    rows = iter(rows)
    while batch := list(itertools.islice(rows, _BATCH_ROWS)):
        yield batch


@contextmanager
def translated(path: Path, kind: str) -> Iterator[None]:
    """Turn what goes wrong between the disk and a parser into one line for the user.

    Args:
        path: the file that is read.
        kind: what it should be, for the message, such as "Parquet file".

    Raises:
        DataError: in place of an `OSError`, an Arrow error or a decoding error.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise encoding_error(path) from error
    except OSError as error:
        if error.errno is None:  # damage: Arrow and zipfile use an OSError without a number
            raise damaged(path, kind) from error
        raise DataError(
            f"cannot read {str(path)!r}: {os.strerror(error.errno)}; check the path and its "
            "permissions"
        ) from error
    except pa.ArrowException as error:
        raise damaged(path, kind) from error


def damaged(path: Path, kind: str) -> DataError:
    """The error for a file whose content is not what its extension says."""
    return DataError(f"{str(path)!r} is not a readable {kind}; write it again, or as .csv")


def encoding_error(path: Path, encoding: str = "WINDOWS-1252") -> DataError:
    """The error for a text file that is not UTF-8; `encoding` is the likely one."""
    return DataError(
        f"{str(path)!r} is not UTF-8; convert it, for example: "
        f"iconv -f {encoding} -t UTF-8 {path.name!r} > {'utf8-' + path.name!r}"
    )
