"""A sweep's folder: what stands in it and how it is written.

sweep.yaml        the file it was started from
sweep.json        hashes of what the file says and of the rows, so that only the same sweep goes on
trials/           one record for each setting, the truth about what was run, and its lock
tune/             Ray Tune's own state, pickled: only a folder of one's own is ever resumed
ledgers/          verdicts of judges without words, a file for each setting
ledger.sqlite     verdicts of a language model, of all settings together
results.parquet   one row for each setting and goal
pareto.svg        accuracy against usage; pareto.png too, where it can be drawn
chosen/           the run of the chosen setting, as `red-ray train` makes it
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from red_ray.errors import ConfigError, DataError, OutputError
from red_ray.storage import writing
from tune.points import Point
from tune.space import Params, Setting

RUNNING, FINISHED, STOPPED = "running", "finished", "stopped"
UNUSABLE, FAILED = "unusable", "failed"
ENDED = (FINISHED, STOPPED, UNUSABLE)
"""States of a setting that is not run again."""

TUNE = "tune"
_STATE, _LOCK = "sweep.json", ".lock"


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a setting.

    Attributes:
        id: of the setting.
        params: what makes it.
        state: running, finished, stopped (by ASHA), unusable (the user's mistake) or failed (worth
            another try).
        points: of its last calibration; all figures are estimates.
        estimated_accuracy: of the most probable label, over the user's rows.
        log_likelihood: mean of the label's log-probability over the same rows.
        ece: expected calibration error over them.
        n_train: rows that it learned from, the judge's too.
        rounds: of the loop.
        calls: questions that the judge answered for it, those that the ledger knew too.
        seconds: wall time.
        error: why it is unusable or failed.
    """

    id: str
    params: Params
    state: str
    points: tuple[Point, ...] = ()
    estimated_accuracy: float | None = None
    log_likelihood: float | None = None
    ece: float | None = None
    n_train: int = 0
    rounds: int = 0
    calls: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether it is not run again."""
        return self.state in ENDED

    def with_state(self, state: str, error: str = "") -> Record:
        """The same in another state."""
        return replace(self, state=state, error=error)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the processes of a sweep write; on a cluster a folder that all nodes see."""

    path: Path

    @property
    def results(self) -> Path:
        """The table of results."""
        return self.path / "results.parquet"

    @property
    def chosen(self) -> Path:
        """The chosen setting's run."""
        return self.path / "chosen"

    @property
    def ledger(self) -> Path:
        """Of a judge that all settings ask."""
        return self.path / "ledger.sqlite"

    @property
    def tune(self) -> Path:
        """Ray Tune's state."""
        return self.path / TUNE

    def own_ledger(self, setting: str) -> Path:
        """Of a judge that one setting asks alone."""
        return self._within("ledgers") / f"{setting}.sqlite"

    def write(self, record: Record) -> None:
        """Keep a record; it is whole or not there."""
        path = self._within("trials") / f"{record.id}.json"
        with writing(path):
            new = path.with_name(f".{path.name}.{os.getpid()}")
            new.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
            new.replace(path)

    def read(self, setting: str) -> Record | None:
        """The record of a setting, None before its first."""
        path = self.path / "trials" / f"{setting}.json"
        return _record(path) if path.exists() else None

    @contextmanager
    def alone_with(self, setting: str) -> Iterator[None]:
        """Wait until nobody else trains a setting; it is ours meanwhile."""
        path = self._within("trials") / f"{setting}.lock"
        with writing(path):
            lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def records(self) -> list[Record]:
        """All records, by their ids."""
        return [_record(path) for path in sorted((self.path / "trials").glob("*.json"))]

    def give_ledger(self, target: Path) -> None:
        """Let a run know what the sweep has paid for, unless it has a ledger already."""
        if not self.ledger.exists() or target.exists():
            return
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            new = target.with_name(f".{target.name}.new")
            with (
                closing(sqlite3.connect(self.ledger)) as source,
                closing(sqlite3.connect(new)) as copy,
            ):
                source.backup(copy)
            new.replace(target)

    def _within(self, name: str) -> Path:
        folder = self.path / name
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder


def records_of(place: Place, settings: Sequence[Setting]) -> list[Record]:
    """The records of the settings, in their order; where they are suggested, all there are."""
    if not settings:
        return place.records()
    found = (place.read(setting.id) for setting in settings)
    return [record for record in found if record is not None]


@contextmanager
def sweep_folder(path: Path, text: str, marks: dict[str, str], *, resume: bool) -> Iterator[Place]:
    """Begin a sweep, or go on with it; no other process can meanwhile.

    Args:
        path: the folder; its parents are made.
        text: of the sweep's file, for who reads the folder.
        marks: hashes of what must be the same where a sweep goes on, by what they are of.
        resume: whether a sweep that was begun may be gone on with; one that is not there is begun.

    Raises:
        OutputError: it cannot be written, holds something else, a sweep, or is in use.
        ConfigError: it holds another sweep.
    """
    is_sweep = (path / _STATE).exists()
    known = {_LOCK}
    foreign = path.exists() and (not path.is_dir() or {p.name for p in path.iterdir()} - known)
    if foreign and not is_sweep:
        raise OutputError(f"{str(path)!r} exists and is no sweep's folder; choose another --out")
    if is_sweep and not resume:
        raise OutputError(
            f"{str(path)!r} holds a sweep: --resume goes on with it; or choose another --out"
        )
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        if is_sweep:
            _check_same(path, marks)
        else:
            with writing(path):
                (path / "sweep.yaml").write_text(text, encoding="utf-8")
                (path / _STATE).write_text(json.dumps(marks, indent=1) + "\n", encoding="utf-8")
        yield Place(path.resolve())


def check_own(tune: Path) -> None:
    """Refuse Tune's state where another user may have written it: it is pickled, and so a program.

    Raises:
        ConfigError: it is another's, or others may write it.
    """
    for path in (tune, *tune.iterdir()):
        found = path.stat()
        if found.st_uid != os.getuid() or found.st_mode & stat.S_IWOTH:
            raise ConfigError(
                f"{str(path)!r} can be written by another user, and to go on with a sweep runs "
                "what stands in it: sweep anew in a folder of your own"
            )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with writing(path):
        lock = os.open(path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise OutputError(
                f"another process is sweeping in {str(path)!r}; wait for it, or stop it"
            ) from error
        yield
    finally:
        os.close(lock)


def _check_same(path: Path, marks: dict[str, str]) -> None:
    try:
        before = dict(json.loads((path / _STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{str(path / _STATE)!r} is damaged: {error}; sweep anew") from error
    changed = [name for name, mark in marks.items() if before.get(name) != mark]
    if changed:
        raise ConfigError(
            f"{str(path)!r} holds another sweep ({' and '.join(changed)} changed since it was "
            "begun); give it what it had, or choose another --out"
        )


def _record(path: Path) -> Record:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Record(**data | {"points": tuple(Point(**one) for one in data["points"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{str(path)!r} is damaged: {error}; remove it, and its setting is run again"
        ) from error
