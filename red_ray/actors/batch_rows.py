"""What travels through Ray Data: shards as rows, and what came of each.

An error of ours travels as a row too. Ray Data writes advice of its own into the errors that it
meets, and it would stop at once where the shards before an unreadable one are good.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator

import pyarrow as pa

from red_ray.batch import Finished, Shard
from red_ray.errors import RedRayError

NO_ERROR = b""


def pack(shard: Shard) -> pa.Table:
    """A shard as one row."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, shard.table.schema) as stream:
        stream.write_table(shard.table)
    return _shard_row(shard.number, shard.is_last, sink.getvalue().to_pybytes(), NO_ERROR)


def pack_error(error: RedRayError) -> pa.Table:
    """In the place of the shard that could not be read."""
    return _shard_row(-1, False, b"", pickle.dumps(error))


def unpack(row: pa.Table) -> Shard | RedRayError:
    """The inverse of both."""
    error = row.column("error")[0].as_py()
    if error != NO_ERROR:
        return _error(error)
    with pa.ipc.open_stream(row.column("table")[0].as_buffer()) as stream:
        table = stream.read_all()
    return Shard(row.column("shard")[0].as_py(), table, row.column("is_last")[0].as_py())


def outcome(finished: Finished) -> pa.Table:
    """A finished shard as one row."""
    return _outcome_row(finished.line(), NO_ERROR, is_unread=False)


def failure(error: RedRayError, *, is_unread: bool) -> pa.Table:
    """What stopped a worker, or the reader before it."""
    return _outcome_row("", pickle.dumps(error), is_unread=is_unread)


def finished_shards(outcomes: Iterable[pa.Table]) -> Iterator[Finished]:
    """The finished ones; those that were read before the reader failed are waited for.

    Raises:
        RedRayError: what stopped a worker, or in the end the reader.
    """
    unread: RedRayError | None = None
    for row in (row for table in outcomes for row in table.to_pylist()):
        finished = Finished.from_line(row["line"])
        if finished is not None:
            yield finished
        elif row["is_unread"]:
            unread = _error(row["error"])
        else:
            raise _error(row["error"])
    if unread is not None:
        raise unread


def _shard_row(number: int, is_last: bool, table: bytes, error: bytes) -> pa.Table:
    held = pa.array([table], pa.large_binary())
    return pa.table({"shard": [number], "is_last": [is_last], "table": held, "error": [error]})


def _outcome_row(line: str, error: bytes, *, is_unread: bool) -> pa.Table:
    return pa.table({"line": [line], "error": [error], "is_unread": [is_unread]})


def _error(pickled: bytes) -> RedRayError:
    error = pickle.loads(pickled)
    if not isinstance(error, RedRayError):
        raise TypeError(f"not an error of ours: {error!r}")
    return error
