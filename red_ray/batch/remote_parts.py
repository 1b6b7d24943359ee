"""The finished shards of a table whose output is at an address: as `red_ray.batch.parts` has them.

The parts are objects below `ADDRESS.parts/`, written by whoever classified them, so that machines
of a cluster need no disk in common. Their lines in the manifest are written together, every few
seconds: a part whose line was lost with a killed driver is made again.

Nothing can be locked at an address: a command that is begun with --resume or --overwrite while
another one still writes the same output takes away the parts that it does not know of, and the
other may end with an error. One command at a time writes an output.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Self

import pyarrow.parquet as pq

from red_ray.address import Remote, Seen
from red_ray.batch.counts import BatchCounts, summed
from red_ray.batch.job import Job
from red_ray.batch.parts import (
    JOB,
    MANIFEST,
    OF_AN_OUTPUT,
    Finished,
    check_job,
    check_kind,
    part_name,
)
from red_ray.data.tables import TableWriter
from red_ray.errors import OutputError

MANIFEST_EVERY_S = 5.0


class RemoteParts:
    """The parts of an output that is under way; see the module and `red_ray.batch.PartsFolder`.

    Attributes:
        path: the address of the parts.
        done: the finished shards by number.
    """

    def __init__(self, target: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._target = Remote(target)
        self._parts = self._target.beside(".parts")
        self._suffix = PurePosixPath(self._target.name).suffix
        self._clock = clock
        self._written_s = clock()
        self._n_written = 0
        self.path = self._parts.address
        self.done: dict[int, Finished] = {}
        check_kind(Path(self._target.name))

    @classmethod
    def open(
        cls, target: str, job: Job, *, resume: bool = False, overwrite: bool = False
    ) -> RemoteParts:
        """Begin an output, or go on with it; see `PartsFolder.open`.

        Raises:
            OutputError: it is denied, is finished, or is unfinished and neither is said, the
                parts are of another job, or something else is in their place.
            StorageError: the address cannot be reached.
        """
        parts = cls(target)
        there = parts._parts.list()
        begun = _json(parts._parts.read(JOB))
        parts._refuse_parts(job, there, begun, resume=resume, overwrite=overwrite)
        parts._refuse_target(is_begun=begun is not None, resume=resume, overwrite=overwrite)
        if resume:
            parts.done = parts._read_manifest(there)
        kept = {part_name(shard) for shard in parts.done}
        _remove(parts._parts, there.keys() - kept - {JOB, MANIFEST})
        parts._parts.write(JOB, json.dumps(job.to_dict(), indent=1).encode() + b"\n")
        parts._write_manifest()
        return parts

    @property
    def counts(self) -> BatchCounts:
        """Of all finished shards."""
        return summed(one.counts for one in self.done.values())

    def add(self, finished: Finished) -> None:
        """Keep that a shard is finished.

        Raises:
            OutputError: its part is not there.
            StorageError: the address cannot be reached.
        """
        if self._parts.size(part_name(finished.shard)) != finished.n_bytes:
            raise OutputError(
                f"{part_name(finished.shard)!r} was written and is not at {self._parts.name!r}: do "
                "all machines reach the same server?"
            )
        self.done[finished.shard] = finished
        if self._clock() - self._written_s >= MANIFEST_EVERY_S:
            self._write_manifest()

    def finish(self) -> None:
        """Join the parts into the output, or make the output of them; then they are gone.

        Raises:
            RuntimeError: a shard is missing.
            OutputError: the format cannot hold the rows; the parts stay.
            StorageError: the address cannot be reached, or the disk is full; the parts stay.
        """
        numbers = sorted(self.done)
        if numbers != list(range(len(numbers))) or not self.done[numbers[-1]].is_last:
            raise RuntimeError(f"shards are missing: {len(numbers)} are finished")
        self._write_manifest()
        if self._suffix:
            self._join(numbers)
        else:
            self._put_in_place(numbers)
        self._drop()
        self.done = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is finished; without a finished shard nothing is left."""
        if len(self.done) != self._n_written:
            self._write_manifest()
        if not self.done:
            self._drop()

    def _drop(self) -> None:
        _remove(self._parts, self._parts.list())
        self._parts.drop_if_empty()

    def _refuse_parts(
        self,
        job: Job,
        there: Iterable[str],
        begun: dict[str, Any] | None,
        *,
        resume: bool,
        overwrite: bool,
    ) -> None:
        name = self._target.name
        if begun is None and not all(map(OF_AN_OUTPUT.fullmatch, there)):
            raise OutputError(
                f"{self._parts.name!r} is in the way: move it, or name another output"
            )
        if begun is not None and not resume and not overwrite:
            raise OutputError(
                f"{name!r} is unfinished: --resume goes on with it, --overwrite begins anew"
            )
        if begun is not None and resume:
            check_job(self._parts.name, job, begun)

    def _refuse_target(self, *, is_begun: bool, resume: bool, overwrite: bool) -> None:
        name = self._target.name
        there = {} if self._suffix else self._target.list()
        # Where parts stand beside it, it was ours when they were begun, and may be half in place.
        is_ours = not there or JOB in there or is_begun
        if not is_ours or not all(map(OF_AN_OUTPUT.fullmatch, there)):
            raise OutputError(
                f"cannot write {name!r}: it holds something else; name another output"
            )
        is_there = bool(there) or (bool(self._suffix) and self._target.is_file())
        if is_there and not overwrite and not (resume and is_begun):
            raise OutputError(f"{name!r} is there already; add --overwrite to replace it")

    def _read_manifest(self, there: dict[str, Seen]) -> dict[int, Finished]:
        lines = (self._parts.read(MANIFEST) or b"").decode("utf-8", "replace").splitlines()
        told = [one for one in map(Finished.from_line, lines) if one is not None]
        sizes = {name: seen.n_bytes for name, seen in there.items()}
        return {one.shard: one for one in told if sizes.get(part_name(one.shard)) == one.n_bytes}

    def _write_manifest(self) -> None:
        lines = "".join(f"{one.line()}\n" for one in self.done.values())
        self._parts.write(MANIFEST, lines.encode())
        self._written_s, self._n_written = self._clock(), len(self.done)

    def _join(self, numbers: list[int]) -> None:
        with tempfile.TemporaryDirectory(prefix="red-ray-") as folder:
            whole = Path(folder) / f"whole{self._suffix}"
            with TableWriter(whole) as writer:
                for number in numbers:
                    part = Path(folder) / part_name(number)
                    self._parts.download([part.name], part.parent)
                    with pq.ParquetFile(part) as file:
                        writer.write(file.read())
                    part.unlink()
            self._target.put(whole)

    def _put_in_place(self, numbers: list[int]) -> None:
        _remove(self._target, self._target.list())
        # Last what says that it is an output of ours.
        for name in (*map(part_name, numbers), MANIFEST, JOB):
            self._parts.copy(name, self._target)


def _remove(folder: Remote, names: Iterable[str]) -> None:
    """Remove files of an output; others that came to lie beside them stay."""
    for name in names:
        if OF_AN_OUTPUT.fullmatch(name):
            folder.remove(name)


def _json(content: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(content or b"")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
