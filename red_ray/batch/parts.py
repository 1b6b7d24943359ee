"""The finished shards of a table: a file each, and a line in a manifest.

`decided.csv.parts/` beside the output `decided.csv`:

    _job.json            what is classified, and how
    _manifest.jsonl      a line for each finished shard, with its counts
    part-000000.parquet  a shard's rows, with what was decided

A line is written when its part is on the disk. A part without a line, or one of another size than
its line says, is made again. Programs that read folders of Parquet, ours among them, pass over
names with a leading "_" or ".".
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from red_ray.address import Remote
from red_ray.batch.counts import BatchCounts, summed
from red_ray.batch.job import Job
from red_ray.data.tables import EXTENSIONS, TableWriter
from red_ray.errors import OutputError
from red_ray.storage import writing

JOB, MANIFEST, LOCK = "_job.json", "_manifest.jsonl", "_lock"
OF_AN_OUTPUT = re.compile(r"_job\.json|_manifest\.jsonl|part-\d+\.parquet")


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished shard: its number, the size of its part, whether no more follow, its counts."""

    shard: int
    n_bytes: int
    is_last: bool
    counts: BatchCounts

    def line(self) -> str:
        """Its line of the manifest."""
        fields = {"shard": self.shard, "bytes": self.n_bytes, "last": self.is_last}
        return json.dumps(fields | asdict(self.counts))

    @classmethod
    def from_line(cls, line: str) -> Finished | None:
        """The inverse of `line`; None for one that is torn."""
        try:
            fields = json.loads(line)
            place = fields.pop("shard"), fields.pop("bytes"), fields.pop("last")
            return cls(*place, BatchCounts(**fields))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def write_part(folder: Path | str, shard: int, table: pa.Table) -> int:
    """Write the part of a shard, whole or not at all; how many bytes it has.

    Whoever wrote it before is replaced: the same shard gives the same rows.

    Args:
        folder: of the parts, or its address.
        shard: its number.
        table: its rows.

    Raises:
        OutputError: the folder cannot be written.
        StorageError: the disk is full, or the address cannot be reached.
    """
    if isinstance(folder, str):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        content = sink.getvalue().to_pybytes()
        Remote(folder).write(part_name(shard), content)
        return len(content)
    path = folder / part_name(shard)
    hidden = folder / f".{path.name}.{uuid.uuid4().hex[:8]}"
    with writing(folder):
        try:
            with hidden.open("xb") as file:
                pq.write_table(table, file)
                file.flush()
                os.fsync(file.fileno())
                n_bytes = file.tell()
            hidden.replace(path)
        finally:
            hidden.unlink(missing_ok=True)
        _sync_folder(folder)
    return n_bytes


def parts_path(target: Path) -> Path:
    """Where the parts of an output are.

    Behind a symbolic link it is what it points to that is replaced, not the link.
    """
    real = target.resolve()
    return real.parent / f"{real.name}.parts"


class PartsFolder:
    """The parts of an output that is under way; see the module.

    Used as a context manager: where it ends with an error before a shard is finished, nothing is
    left; else the parts stay.

    Attributes:
        path: the folder.
        done: the finished shards by number.
    """

    def __init__(self, target: Path) -> None:
        self._target = target.resolve()
        self._name = str(target)
        self.path = parts_path(target)
        self.done: dict[int, Finished] = {}
        self._lock: int | None = None
        self._manifest: int | None = None
        check_kind(target)

    @classmethod
    def open(
        cls, target: Path, job: Job, *, resume: bool = False, overwrite: bool = False
    ) -> PartsFolder:
        """Begin an output, or go on with it.

        Args:
            target: the output: a table by its ending, or without one a folder of Parquet.
            job: what is classified.
            resume: whether finished shards count; where there are none it begins.
            overwrite: whether a finished output may be replaced, and unfinished parts are dropped
                where `resume` does not keep them.

        Raises:
            OutputError: it cannot be written, is finished, or is unfinished and neither is said,
                or the parts are of another job.
        """
        parts = cls(target)
        with writing(parts.path):
            parts._refuse(job, resume=resume, overwrite=overwrite)
            if not parts._target.parent.is_dir():
                raise OutputError(
                    f"cannot write {str(target)!r}: there is no folder "
                    f"{str(parts._target.parent)!r}; create it first"
                )
            parts.path.mkdir(exist_ok=True)
        parts._hold()
        try:
            with writing(parts.path):
                parts._begin(job, go_on=resume)
        except BaseException:
            parts.close()
            raise
        return parts

    @property
    def counts(self) -> BatchCounts:
        """Of all finished shards."""
        return summed(one.counts for one in self.done.values())

    def add(self, finished: Finished) -> None:
        """Keep that a shard is finished.

        Raises:
            OutputError: its part is not here; another machine wrote it to a disk of its own.
            StorageError: the disk is full.
        """
        if self._manifest is None:
            raise ValueError("shards are added between `open` and `close` only")
        if not self._has(finished):
            raise OutputError(
                f"{part_name(finished.shard)!r} was written and is not in {str(self.path)!r}: "
                "the output must be in a folder that all machines of the cluster share, or at an "
                "address, as s3://bucket/decided.parquet"
            )
        with writing(self.path):
            os.write(self._manifest, finished.line().encode() + b"\n")
            os.fsync(self._manifest)
        self.done[finished.shard] = finished

    def finish(self) -> None:
        """Join the parts into the output, or make their folder the output.

        Raises:
            RuntimeError: a shard is missing.
            OutputError: the format cannot hold the rows; the parts stay.
            StorageError: the disk is full; the parts stay.
        """
        numbers = sorted(self.done)
        if numbers != list(range(len(numbers))) or not self.done[numbers[-1]].is_last:
            raise RuntimeError(f"shards are missing: {len(numbers)} are finished")
        if self._target.suffix:
            self._join(numbers)
        else:
            self._put_in_place()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder; without a finished shard it goes too."""
        if self._lock is not None and not self.done:
            shutil.rmtree(self.path, ignore_errors=True)
        for handle in (self._manifest, self._lock):
            if handle is not None:
                os.close(handle)
        self._manifest = self._lock = None

    def _refuse(self, job: Job, *, resume: bool, overwrite: bool) -> None:
        begun = _read_json(self.path / JOB)
        if self.path.exists() and begun is None and not _is_fresh(self.path):
            raise OutputError(f"{str(self.path)!r} is in the way: move it, or name another output")
        if begun is not None and not resume and not overwrite:
            raise OutputError(
                f"{self._name!r} is unfinished: --resume goes on with it, --overwrite begins anew"
            )
        if begun is not None and resume:
            check_job(str(self.path), job, begun)
        if self._target.is_dir() and not _is_ours(self._target):
            raise OutputError(
                f"cannot write {self._name!r}: it is a folder that holds something else; name "
                "another output"
            )
        if self._target.exists() and not overwrite and not (resume and begun is not None):
            raise OutputError(f"{self._name!r} is there already; add --overwrite to replace it")

    def _hold(self) -> None:
        """Keep other processes from writing here, until this one ends, however it ends."""
        with writing(self.path):
            lock = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            os.close(lock)
            raise OutputError(
                f"another process is writing {self._name!r}; wait for it, or stop it"
            ) from error
        self._lock = lock

    def _begin(self, job: Job, *, go_on: bool) -> None:
        if go_on:
            self.done = self._read_manifest()
        self._drop_others()
        _write_whole(self.path / JOB, json.dumps(job.to_dict(), indent=1) + "\n")
        lines = "".join(f"{one.line()}\n" for one in self.done.values())
        _write_whole(self.path / MANIFEST, lines)  # without the lines that do not count
        self._manifest = os.open(self.path / MANIFEST, os.O_WRONLY | os.O_APPEND)

    def _read_manifest(self) -> dict[int, Finished]:
        with suppress(FileNotFoundError):
            lines = (self.path / MANIFEST).read_text(encoding="utf-8", errors="replace")
            told = [Finished.from_line(line) for line in lines.splitlines()]
            return {one.shard: one for one in told if one is not None and self._has(one)}
        return {}

    def _has(self, finished: Finished) -> bool:
        with suppress(FileNotFoundError):
            return (self.path / part_name(finished.shard)).stat().st_size == finished.n_bytes
        return False

    def _drop_others(self) -> None:
        """Remove what a killed process left half done, and parts that do not count."""
        kept = {JOB, MANIFEST, LOCK} | {part_name(shard) for shard in self.done}
        for entry in self.path.iterdir():
            if entry.name not in kept:
                entry.unlink()

    def _join(self, numbers: list[int]) -> None:
        with TableWriter(self._target) as writer:
            for number in numbers:
                with pq.ParquetFile(self.path / part_name(number)) as part:
                    writer.write(part.read())
        shutil.rmtree(self.path)

    def _put_in_place(self) -> None:
        old = self._target.with_name(f".{self._target.name}.{uuid.uuid4().hex[:8]}")
        with writing(self._target):
            self._drop_others()
            (self.path / LOCK).unlink()
            if self._target.exists():
                self._target.rename(old)
            self.path.rename(self._target)
            _sync_folder(self._target.parent)
        shutil.rmtree(old, ignore_errors=True)


def check_job(name: str, job: Job, begun: Mapping[str, Any]) -> None:
    """Refuse to go on with the parts of another job.

    Raises:
        OutputError: they are.
    """
    differences = job.differences(begun)
    if differences:
        raise OutputError(
            f"{name!r} is of another job ({', '.join(differences)}): give what it was begun "
            "with, or --overwrite without --resume to begin anew"
        )


def _is_fresh(folder: Path) -> bool:
    """Whether a folder holds no more than what a kill leaves that came before anything else."""
    return all(entry.name in (LOCK, f".{JOB}") for entry in folder.iterdir())


def _is_ours(folder: Path) -> bool:
    """Whether a folder is an output of ours, or empty: what else is in it must not be lost."""
    names = [entry.name for entry in folder.iterdir()]
    return not names or (JOB in names and all(map(OF_AN_OUTPUT.fullmatch, names)))


def check_kind(target: Path) -> None:
    """Refuse an output of a format that is not written.

    Raises:
        OutputError: its ending is unknown, or it is a folder.
    """
    if target.suffix and target.suffix.lower() not in EXTENSIONS:
        raise OutputError(
            f"cannot write {str(target)!r}: the extension {target.suffix!r} is not one of "
            f"{', '.join(EXTENSIONS)}; without any it is a folder of .parquet"
        )
    if target.suffix and target.is_dir():
        raise OutputError(f"cannot write {str(target)!r}: it is a folder; name a file")


def part_name(shard: int) -> str:
    """The file of a shard's part."""
    return f"part-{shard:06d}.parquet"


def _read_json(path: Path) -> dict[str, Any] | None:
    """What a file holds; None where there is none that is whole."""
    with suppress(FileNotFoundError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else None
    return None


def _write_whole(path: Path, text: str) -> None:
    hidden = path.with_name(f".{path.name}")
    with hidden.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    hidden.replace(path)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    """So that a rename outlives a power cut."""
    with _opened(path) as handle:
        os.fsync(handle)
