"""Parquet: a file, or several that make one table, in batches and with their own types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from red_ray.data.formats.source import Source, translated
from red_ray.errors import DataError


def parquet_parts(folder: Path) -> list[Path]:
    """The .parquet files of a folder by name; it is searched no deeper.

    Raises:
        DataError: the folder holds none.
    """
    with translated(folder, "folder"):
        # Names with a leading "." or "_" are metadata of the program that wrote the folder.
        parts = sorted(
            entry
            for entry in folder.iterdir()
            if entry.suffix == ".parquet" and not entry.name.startswith((".", "_"))
        )
    if not parts:
        raise DataError(
            f"{str(folder)!r} is a folder without .parquet files; give a file, or a folder of them"
        )
    return parts


def open_parquet(path: Path, parts: Sequence[Path]) -> Source:
    """Open `parts` as the one table `path`; a column that a part lacks is null there.

    Raises:
        DataError: a part is damaged, or the parts disagree on the type of a column.
    """
    schemas = [_schema(part) for part in parts]
    try:
        schema = pa.unify_schemas(schemas)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"the files of {str(path)!r} disagree on their columns, write them alike: "
            f"{' '.join(str(error).split())}"
        ) from error
    return Source(schema, _tables(parts, schema))


def _schema(part: Path) -> pa.Schema:
    with translated(part, "Parquet file"):
        return pq.read_schema(part).remove_metadata()


def _tables(parts: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    for part in parts:
        with translated(part, "Parquet file"), pq.ParquetFile(part) as file:
            for batch in file.iter_batches():
                batch.validate(full=True)  # else a text that is not UTF-8 fails far from here
                yield _conform(pa.Table.from_batches([batch]), schema)


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema.equals(schema):
        return table.replace_schema_metadata(None)
    names = set(table.column_names)
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
