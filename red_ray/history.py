"""Earlier states of a run, and how one takes the place of another: whole, or not at all.

history/NNNN/    a state as it was before a change: what of `STATE` there was, and entry.json
.draft.new/      the next state while it is written; nobody's, if its writer was killed
.change.new/     the next state from the moment on that it counts

A state counts from one rename on, and is then moved into place piece by piece. Whoever opens the
run after a kill in between moves the rest. Files are shared by hard links where the disk has them.
At an address an entry.json is the last file of its state to come and the first to go: a folder in
history/ without one is what a copy left that was cut short, and no state.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from red_ray.errors import DataError
from red_ray.storage import writing

FOLDER = "history"
DRAFT, PENDING = ".draft.new", ".change.new"
ENTRY, EARLIER = "entry.json", "earlier"

STATE = (
    "inputs.parquet",
    "crossfit.safetensors",
    "config.yaml",
    "seen.txt",
    "details.json",
    "scorecard.json",
    "report.html",
    "thresholds.svg",
    "bundle",
)
"""What a change may replace, the bundle last. The ledger, its answers, and the marks of texts that
were tested are of the run, whatever its labels are called."""

KEPT = 10
"""Earlier states that are kept; the oldest goes first. At 77 labels one takes 2 to 4 MB."""

_REPLACED = ("bundle", "inputs.parquet", "crossfit.safetensors")
"""What is only ever replaced as a whole, so that one file may stand under two names."""

_REWRITTEN = ("provenance.json",)
"""Files of a bundle that are written in place: a link to one would change with it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of an earlier state.

    Attributes:
        number: counts up.
        change: what was done to it, in words: `add 'refund'`.
        bundle: id of its bundle.
        when: of the change, ISO 8601.
        holds: which of `STATE` it has.
    """

    number: int
    change: str
    bundle: str
    when: str
    holds: tuple[str, ...]


def new_draft(folder: Path) -> Path:
    """An empty folder for the next state of a run, under the run's lock.

    Raises:
        OutputError: it cannot be made.
    """
    draft = folder / DRAFT
    with writing(draft):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
    return draft


def commit(
    folder: Path,
    draft: Path,
    *,
    change: str,
    bundle: str,
    when: str,
    between: Callable[[], None] = lambda: None,
) -> None:
    """Put the state in `draft` in place of the one in `folder`, which becomes an earlier one.

    Args:
        folder: the run's.
        draft: of `new_draft`, filled with what of `STATE` the next state has.
        change: what was done, in words.
        bundle: id of the bundle in `folder`.
        when: ISO 8601.
        between: called when the earlier state is kept and nothing is replaced yet.

    Raises:
        OutputError: it cannot be written.
        StorageError: the disk is full.
    """
    number = max((one.number for one in entries(folder)), default=0) + 1
    with writing(folder):
        share(draft / "bundle", folder / "bundle")
        _keep(folder, draft / EARLIER, Entry(number, change, bundle, when, _held(folder)))
        _write_entry(draft, Entry(number, change, "", when, _held(draft)))
        draft.rename(folder / PENDING)
    settle(folder, between)


def settle(folder: Path, between: Callable[[], None] = lambda: None) -> bool:
    """Finish what a commit began, as often as it takes; whether there was something to finish.

    Under the run's lock: a draft that is there has nobody who writes it any more, and goes.

    Raises:
        OutputError: it cannot be written.
        DataError: what is to be finished is damaged.
    """
    shutil.rmtree(folder / DRAFT, ignore_errors=True)
    pending = folder / PENDING
    if not pending.is_dir():
        return False
    with writing(folder):
        if (pending / ENTRY).exists():  # it goes last: without it all is in place
            entry = _read_entry(pending)
            if (pending / EARLIER).exists():
                place = folder / FOLDER / f"{entry.number:04d}"
                place.parent.mkdir(exist_ok=True)
                shutil.rmtree(place, ignore_errors=True)  # no state: those have lower numbers
                (pending / EARLIER).rename(place)
            between()
            for name in STATE:
                _place(folder, pending, name, is_held=name in entry.holds)
            (pending / ENTRY).unlink()
        shutil.rmtree(pending)
        _prune(folder)
    return True


def entries(folder: Path) -> list[Entry]:
    """The earlier states of a run, oldest first.

    Raises:
        DataError: one is damaged.
    """
    places = sorted((folder / FOLDER).glob(f"[0-9]*/{ENTRY}"))
    return [_read_entry(place.parent) for place in places]


def is_at(folder: Path, entry: Entry) -> bool:
    """Whether a run's bundle and rows are, byte for byte, those of an earlier state."""
    place = folder / FOLDER / f"{entry.number:04d}"
    return all(_are_same(folder / name, place / name) for name in _REPLACED)


def forget(folder: Path, entry: Entry) -> None:
    """Remove an earlier state."""
    with writing(folder):
        _remove(folder, entry)


def put_back(folder: Path, entry: Entry) -> None:
    """Put an earlier state in place of the one there is, which is gone then.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(folder):
        (folder / FOLDER / f"{entry.number:04d}").rename(folder / PENDING)
    settle(folder)


def share(new: Path, old: Path) -> None:
    """Let files of a new bundle be those of an old one where they are the same, to save room."""
    for path in _files(new):
        same = old / path.relative_to(new)
        if path.name in _REWRITTEN or not same.is_file():
            continue
        if filecmp.cmp(path, same, shallow=False):
            _link(same, path)


def _are_same(one: Path, other: Path) -> bool:
    if one.is_file() and other.is_file():
        return filecmp.cmp(one, other, shallow=False)
    names = [
        {path.relative_to(place) for path in _files(place) if path.name not in _REWRITTEN}
        for place in (one, other)
    ]
    if one.is_file() or other.is_file() or names[0] != names[1]:
        return False
    return all(filecmp.cmp(one / name, other / name, shallow=False) for name in names[0])


def _held(folder: Path) -> tuple[str, ...]:
    return tuple(name for name in STATE if (folder / name).exists())


def _keep(folder: Path, place: Path, entry: Entry) -> None:
    place.mkdir()
    for name in entry.holds:
        source = folder / name
        for path in [source] if source.is_file() else _files(source):
            target = place / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            if name in _REPLACED and path.name not in _REWRITTEN:
                _link(path, target)
            else:
                shutil.copyfile(path, target)
    _write_entry(place, entry)


def _link(source: Path, target: Path) -> None:
    """One file under two names, or a copy where the disk has no links."""
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    try:
        os.link(source, new)
    except OSError:
        shutil.copyfile(source, new)
    new.replace(target)


def _place(folder: Path, pending: Path, name: str, *, is_held: bool) -> None:
    here, there = folder / name, pending / name
    if not is_held:
        shutil.rmtree(here) if here.is_dir() else here.unlink(missing_ok=True)
        return
    if not there.exists():
        return  # moved before the kill
    if there.is_dir():
        old = folder / f".{name}.old"
        shutil.rmtree(old, ignore_errors=True)
        if here.exists():
            here.rename(old)
        there.rename(here)
        shutil.rmtree(old, ignore_errors=True)
        return
    there.replace(here)


def _prune(folder: Path) -> None:
    for place in (folder / FOLDER).glob("[0-9]*"):
        if not (place / ENTRY).exists():
            shutil.rmtree(place)
    for entry in entries(folder)[:-KEPT]:
        _remove(folder, entry)


def _remove(folder: Path, entry: Entry) -> None:
    """In two steps: what a kill leaves of it is no state."""
    place = folder / FOLDER / f"{entry.number:04d}"
    gone = place.with_name(f".{place.name}.old")
    shutil.rmtree(gone, ignore_errors=True)
    place.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _write_entry(place: Path, entry: Entry) -> None:
    text = json.dumps(asdict(entry), ensure_ascii=False, indent=2)
    (place / ENTRY).write_text(text + "\n", encoding="utf-8")


def _read_entry(place: Path) -> Entry:
    try:
        data = json.loads((place / ENTRY).read_text(encoding="utf-8"))
        return Entry(**{**data, "holds": tuple(data["holds"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{str(place)!r} is damaged ({type(error).__name__}): remove it; it can no longer be "
            "gone back to"
        ) from error


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
