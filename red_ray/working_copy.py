"""A run's folder at an address, worked on in a folder of this machine.

All commands work on local files, as ever. Where RUN is an address (see `red_ray.address`), what is
there is copied into a temporary folder first, and what changed is copied back: whole files, those
that others look for last, so that a run whose machine is lost goes on elsewhere from what was
copied. The ledger is not among them: verdicts of such a run are in PostgreSQL.

No file at an address can be locked. So whoever trains there writes a word of its own into `.owner`,
and looks before it copies anything back whether that word still stands: who came later wins, and
the earlier one stops and leaves the place alone. Two that begin within the same moment may both
copy something before one of them looks; their bundle would then be refused as damaged, and the run
be gone on with. A judge is asked by one of them alone: its ledger sees to that.

Whoever changes a finished run does not take it from others: it writes its word only where nothing
was written since it read the run, and then is the one that others make stop.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shlex
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from red_ray.address import Remote, Seen, is_address
from red_ray.errors import DataError, OutputError, RedRayError
from red_ray.storage import writing

logger = logging.getLogger(__name__)

OWNER = ".owner"
ROWS = "inputs.parquet"
"""A run's rows, which may be many, and which only training and thresholds look at."""

_HISTORY = "history/"

_FOR_CHANGES = ("crossfit.safetensors", "encoders/", _HISTORY)
"""Beginnings of names of what only changes of labels look at."""

_LAST = ("bundle/manifest.json", "run.json")
"""Files that say that others are there; what they speak of is copied before them."""

_ENTRY = re.compile(r"history/\d+/entry\.json")
"""Says the same of an earlier state: that comes before what takes its place, and goes after it."""

_OF_A_PLACE = ("run.json", "config.yaml", "manifest.json", "bundle/manifest.json")
"""Files of which a run or a bundle has one at least; else it was set aside in `.previous`."""

_OWN = (".lock", "ledger.sqlite")
"""Beginnings of names that are of this machine alone."""

_UNFINISHED = (".new", ".old")
"""Ends of names of what is being written, or replaced."""

N_SNAPSHOTS = 4
"""Kept of an address: what answers, what is loaded meanwhile, and what others still read."""

_TRIES = 3


class PlaceTaken(OutputError):
    """Another process has begun to write at the address: this one has no say there any more."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """A local file as it was copied: its look, and the SHA-256 of its content."""

    look: tuple[int, int, int]
    digest: str


class WorkingCopy:
    """See the module.

    Attributes:
        path: the local folder.
        remote: the folder at the address.
        name: the address, for messages.
        is_kept: whether the folder must stay, as the address lacks something that it holds.
    """

    def __init__(self, remote: Remote, path: Path) -> None:
        """Join both; copies nothing yet."""
        self.is_kept = False
        self.remote = remote
        self.path = path
        self.name = remote.name
        self._copied: dict[str, _Mark] = {}
        self._pulled: dict[str, Seen] = {}
        self._word = ""

    def pull(self, but: str = "") -> dict[str, Seen]:
        """Copy what is there into the local folder, which must be empty; what that was.

        Args:
            but: a file that is left there, as is then what only changes of labels look at.

        Raises:
            OutputError: it is denied, or something else is there: nothing of it is copied.
            StorageError: the server cannot be reached, or the local disk is full.
            DataError: others kept changing it meanwhile.
        """
        for _ in range(_TRIES):
            before = self.remote.list()
            if _is_foreign(before):
                raise OutputError(
                    f"{self.name!r} exists and is no run folder; check the address, or choose "
                    "another --out"
                )
            try:
                left = (but, *_FOR_CHANGES) if but else ()
                names = [name for name in before if _is_shared(name) and not name.startswith(left)]
                self.remote.download(names, self.path)
            except DataError:
                if self.remote.list() == before:
                    raise
            if self.remote.list() == before:
                self._copied, self._pulled = self._marks(), before
                return before
            for entry in self.path.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        raise DataError(f"{self.name!r} is being written by another process; wait for it")

    def claim(self, *, unchanged: bool = False) -> None:
        """Be the one that writes from now on.

        Args:
            unchanged: whether only where nobody wrote there since `pull`; who is the one already
                stays it.

        Raises:
            PlaceTaken: somebody did.
            OutputError: it is denied, or there is no such bucket.
            StorageError: the server cannot be reached.
        """
        if unchanged and self.is_ours:
            return
        if unchanged and self.remote.list() != self._pulled:
            raise PlaceTaken(
                f"another process wrote in {self.name!r} since this one read it: nothing was "
                "changed; run the command again"
            )
        word = uuid.uuid4().hex
        self.remote.write(OWNER, word.encode())
        self._word = word

    @property
    def is_ours(self) -> bool:
        """Whether this copy claimed the place; another one may have done so since."""
        return bool(self._word)

    def push(self) -> None:
        """Copy back what changed, and remove what is gone.

        Raises:
            PlaceTaken: another process has begun to write there.
            OutputError: it is denied.
            StorageError: the server cannot be reached.
        """
        now = self._marks()
        changed = {name for name, mark in now.items() if not self._is_copied(name, mark)}
        gone = self._copied.keys() - now.keys()
        if not changed and not gone:
            return
        self._check_owner()
        entries = set(filter(_ENTRY.fullmatch, changed))
        self._send(now, changed - entries - set(_LAST))
        self._send(now, entries)
        earlier = {name for name in gone if name.startswith(_HISTORY)}
        self._remove(gone - earlier)
        for name in _LAST:
            self._send(now, changed & {name})
        self._remove(earlier)

    def _remove(self, gone: set[str]) -> None:
        """What says that others are there goes before them."""
        for name in sorted(gone, key=lambda name: (not _tells_of_others(name), name)):
            self.remote.remove(name)
            del self._copied[name]

    def _send(self, now: Mapping[str, _Mark], names: set[str]) -> None:
        self.remote.upload({name: self.path / name for name in sorted(names)})
        self._copied.update({name: now[name] for name in names})

    def _is_copied(self, name: str, mark: _Mark) -> bool:
        return name in self._copied and self._copied[name].digest == mark.digest

    def _check_owner(self) -> None:
        if self._word and self.remote.read(OWNER) != self._word.encode():
            raise PlaceTaken(
                f"another process has begun to write in {self.name!r}: this one stops and leaves "
                "it alone"
            )

    def _marks(self) -> dict[str, _Mark]:
        names = (path.relative_to(self.path).as_posix() for path in _files(self.path))
        return {name: self._mark(name) for name in names if _is_shared(name)}

    def _mark(self, name: str) -> _Mark:
        path = self.path / name
        found = path.stat()
        look = (found.st_ino, found.st_mtime_ns, found.st_size)
        known = self._copied.get(name)
        if known is not None and known.look == look:
            return known
        with path.open("rb") as file:
            return _Mark(look, hashlib.file_digest(file, "sha256").hexdigest())


Place = Path | WorkingCopy
"""Where a run is: a folder, or a copy of one at an address."""


@contextmanager
def at_place(run: str, *, but: str = "") -> Iterator[Place]:
    """The folder that RUN names; one at an address is copied here, and gone when the block ends.

    Where the block fails, what it left is copied back all the same if it had claimed the place.
    What cannot be copied back stays in the folder here, which the error names.

    Args:
        run: a folder or an address.
        but: a file that is not needed, and so not copied; see `WorkingCopy.pull`.

    Raises:
        ConfigError: the address cannot be understood.
        OutputError: it is denied, or no temporary folder can be made.
        StorageError: the server cannot be reached, or the local disk is full.
    """
    if not is_address(run):
        yield Path(run)
        return
    remote = Remote(run)
    with writing(Path(tempfile.gettempdir())):
        copy = WorkingCopy(remote, Path(tempfile.mkdtemp(prefix="red-ray-")))
    try:
        copy.pull(but)
        try:
            yield copy
        except BaseException as error:
            if copy.is_ours:
                _push_after(error, copy)
            raise
        try:
            copy.push()
        except PlaceTaken:
            raise
        except BaseException as error:
            _keep(copy, error)
            raise
    finally:
        if not copy.is_kept:
            shutil.rmtree(copy.path, ignore_errors=True)


def _push_after(failed: BaseException, copy: WorkingCopy) -> None:
    """Copy back what a command left that failed: what went wrong first is what is told."""
    try:
        copy.push()
    except PlaceTaken:
        return
    except (RedRayError, OSError, KeyboardInterrupt):  # a second Ctrl-C, too
        _keep(copy, failed)


def _keep(copy: WorkingCopy, error: BaseException) -> None:
    """Let the local folder stay, and the error say where it is and what to do with it."""
    copy.is_kept = True
    folder = shlex.quote(str(copy.path))
    told = f"what could not be copied is in {folder}: copy it to {copy.name!r} yourself"
    if copy.is_ours:
        told += f"; a run that is not finished goes on with `red-ray resume {folder}`"
    if isinstance(error, RedRayError | KeyboardInterrupt):
        said, *more = error.args or ("stopped",)
        error.args = (f"{said}; {told}", *more)
    else:
        logger.warning("%s", told)


@contextmanager
def local_folder(place: str | Path) -> Iterator[Path]:
    """A run's folder or a bundle's to read; of one at an address a copy, as `at_place` makes it.

    Its rows are not copied: there may be many.

    Raises:
        As `at_place`.
    """
    with at_place(str(place), but=ROWS) as found:
        yield found.path if isinstance(found, WorkingCopy) else found


def snapshot(run: str, cache: Path) -> Path:
    """A finished run as it is now, in a folder of the cache that never changes.

    All processes of a machine share it; one that stands there already is not copied again. The
    cache is of this address alone, and keeps the newest few.

    Args:
        run: an address.
        cache: a folder of this machine.

    Raises:
        DataError: there is no finished run, or it is being written.
        OutputError: it is denied.
        StorageError: the server cannot be reached, or the local disk is full.
    """
    remote = Remote(run)
    folder = cache / look_of(remote, remote.list())
    if folder.is_dir():
        return folder
    new = cache / f".{uuid.uuid4().hex[:8]}.new"
    with writing(new):
        new.mkdir(parents=True)
    try:
        folder = cache / look_of(remote, WorkingCopy(remote, new).pull(ROWS))
        with writing(folder):
            try:
                new.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise
        _keep_newest(cache)
        return folder
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _keep_newest(cache: Path) -> None:
    """Other processes do the same, and what has a dot is what one of them is copying."""
    ages = {}
    for path in cache.iterdir():
        if not path.name.startswith("."):
            with suppress(FileNotFoundError):
                ages[path] = path.stat().st_mtime_ns
    for path in sorted(ages, key=ages.__getitem__)[:-N_SNAPSHOTS]:
        shutil.rmtree(path, ignore_errors=True)


def look_of(remote: Remote, files: Mapping[str, Seen]) -> str:
    """A name for what stands at an address, by what its files look like from outside."""
    seen = sorted((name, one.n_bytes, one.modified_ns) for name, one in files.items())
    return hashlib.sha256(repr((remote.name, seen)).encode()).hexdigest()[:32]


def _tells_of_others(name: str) -> bool:
    return name in _LAST or _ENTRY.fullmatch(name) is not None


def _is_foreign(names: Iterable[str]) -> bool:
    others = list(filter(_is_shared, names))
    return bool(others) and not any(
        name in _OF_A_PLACE or name.startswith(".previous/") for name in others
    )


def _is_shared(name: str) -> bool:
    if name == OWNER or name.startswith(_OWN):
        return False
    return not any(part.endswith(_UNFINISHED) for part in name.split("/"))


def _files(folder: Path) -> Iterator[Path]:
    return (Path(where) / name for where, _, names in os.walk(folder) for name in names)
