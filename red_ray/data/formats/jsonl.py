"""JSONL: an object per line; a line that cannot be read stays, with null in every column."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from red_ray.data.formats.source import Source, batches, plain_text, translated
from red_ray.errors import DataError

_INT64 = range(-(2**63), 2**63)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def open_jsonl(path: Path, plain: Sequence[str]) -> Source:
    """Open a JSONL file; it is read twice, the first time for the columns and their types.

    Values of different types in one column become strings, and lists and objects their JSON.

    Args:
        path: the file.
        plain: columns that must hold plain values; a list or an object there becomes null.

    Raises:
        DataError: no line holds an object, or the file is not UTF-8.
    """
    kinds: defaultdict[str, set[str]] = defaultdict(set)
    for row in _rows(path):
        for name, value in row.items():
            kinds[name].add(_kind(value))
    if not kinds:
        raise DataError(
            f"{str(path)!r} holds no JSON object with fields; each line must be one, "
            'such as {"text": "…", "label": "…"}'
        )
    schema = pa.schema([(name, _arrow_type(found)) for name, found in kinds.items()])
    return Source(schema, _tables(path, schema, plain))


def _tables(path: Path, schema: pa.Schema, plain: Sequence[str]) -> Iterator[pa.Table]:
    for rows in batches(_rows(path)):
        arrays = [
            pa.array([_cell(row.get(field.name), field, plain) for row in rows], field.type)
            for field in schema
        ]
        yield pa.Table.from_arrays(arrays, schema=schema)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """One dictionary per line that is not blank; an empty one for a line that is no object."""
    with translated(path, "JSONL file"), path.open("rb") as file:
        for line in file:
            text = line.decode("utf-8").removeprefix("\ufeff")
            if text and not text.isspace():
                yield _object(text)


def _object(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if _SURROGATE.search(line):  # may be half a character, which neither Arrow nor UTF-8 knows
            whole = json.dumps(row, ensure_ascii=False).encode("utf-16", "surrogatepass")
            row = json.loads(whole.decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() if value in _INT64:
            return "int"
        case float():
            return "float"
    return "text"


def _arrow_type(kinds: set[str]) -> pa.DataType:
    found = kinds - {"null"}
    if found == {"bool"}:
        return pa.bool_()
    if found == {"int"}:
        return pa.int64()
    if found and found <= {"int", "float"}:
        return pa.float64()
    return pa.string()


def _cell(value: Any, field: pa.Field, plain: Sequence[str]) -> Any:
    if value is None:
        return None
    if pa.types.is_floating(field.type):
        return float(value)
    if not pa.types.is_string(field.type):
        return value
    if isinstance(value, list | dict) and field.name not in plain:
        return json.dumps(value, ensure_ascii=False)
    return plain_text(value)
