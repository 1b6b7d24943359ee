"""Changes of a run's labels: kept in its folder, with the states of before to go back to."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from red_ray.bundle import checked_id, load_bundle, read_provenance, save_bundle
from red_ray.calibration import threshold_details
from red_ray.crossfit_file import load_crossfit, save_crossfit
from red_ray.errors import BundleError, DataError
from red_ray.history import Entry, commit, entries, forget, is_at, new_draft, put_back
from red_ray.labels.refit import Change
from red_ray.model import RedModel
from red_ray.run_folder import OF_TEST_ROWS, RunFolder
from red_ray.snapshot import Snapshot, read_snapshot, write_snapshot
from red_ray.training.crossfit import Crossfit
from red_ray.training.paraphrases import who_learned


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A finished run whose labels are to change.

    Attributes:
        folder: where it is.
        model: its bundle.
        crossfit: what it keeps of its cross-fitting, or None.
        rows: its rows.
    """

    folder: RunFolder
    model: RedModel
    crossfit: Crossfit | None
    rows: Snapshot


def open_run(folder: RunFolder) -> OpenRun:
    """Read what a change needs.

    Raises:
        BundleError: the bundle is damaged.
        DataError: the run's rows are not there, or damaged.
    """
    model = load_bundle(folder.bundle)
    crossfit = load_crossfit(folder.path, model)
    return OpenRun(folder, model, crossfit, read_snapshot(folder.path))


def keep(
    run: OpenRun, change: Change, rows: Snapshot, *, what: str, seen: Iterable[str] = ()
) -> RedModel:
    """Put a change in place of the run's state, which becomes an earlier one; all or nothing.

    Its scorecard and its report go, as they are of the model before; the caller makes new ones.

    Args:
        run: as it was opened, under `RunFolder.changing`.
        change: what it came to.
        rows: of the run after it.
        what: was done, in words: `add 'refund'`.
        seen: keys of more texts that have a say in the model.

    Returns:
        The model, with its bundle id.

    Raises:
        OutputError: the run cannot be written, or another process writes at its address.
        StorageError: the disk is full.
    """
    folder, when = run.folder, datetime.now(UTC).isoformat(timespec="seconds")
    draft = new_draft(folder.path)
    new = RunFolder(draft)
    facts = read_provenance(folder.bundle)
    facts.pop("scorecard", None)
    facts |= {"labels_changed": when, "change": what}
    bundle_id = save_bundle(change.model, new.bundle, facts)
    save_crossfit(draft, change.model, change.crossfit)
    write_snapshot(draft, rows)
    shutil.copyfile(folder.path / "config.yaml", draft / "config.yaml")
    known = run.rows.inputs.calibration
    # A calibration row that leaves has no say any more, so that it may be given again.
    gone = frozenset() if known is None else known.keys - rows.inputs.seen_keys
    new.write_seen(folder.seen().union(seen) - gone)
    new.write_json("details.json", _details(folder, change))
    folder.claim()
    commit(
        folder.path,
        draft,
        change=what,
        bundle=run.model.bundle_id,
        when=when,
        between=folder.save,
    )
    return replace(change.model, bundle_id=bundle_id)


def _details(folder: RunFolder, change: Change) -> dict[str, Any]:
    details = folder.read_json("details.json")
    kept = {name: value for name, value in details.items() if name not in OF_TEST_ROWS}
    model = change.model
    told = {
        "n_seed": model.n_seed,
        "n_train": len(model.example_labels),
        "unseen": list(model.unseen),
        "thresholds": threshold_details(model),
    }
    if "paraphrases" in kept:
        told["paraphrases"] = kept["paraphrases"] | who_learned(model)
    if change.estimate is not None:
        told["estimate"] = asdict(change.estimate)
    return kept | told


def undo(folder: RunFolder) -> tuple[Entry, int]:
    """Bring back the state before the last change of labels, which is gone then.

    At an address the state before a change is there before the change is. Where that was cut off
    in between, there is nothing to take back, and the entry is passed over.

    Args:
        folder: of the run, under `RunFolder.changing`.

    Returns:
        What is known of the state that is back, and how many earlier ones are left.

    Raises:
        DataError: there is none.
        OutputError: it cannot be written, or another process writes at the run's address.
    """
    left = earlier_states(folder)
    if not left:
        raise DataError(f"{folder.name!r} has no earlier labels to go back to")
    folder.claim()
    for entry in entries(folder.path)[len(left) :]:
        forget(folder.path, entry)
    put_back(folder.path, left[-1])
    return left[-1], len(left) - 1


def earlier_states(folder: RunFolder) -> list[Entry]:
    """The states that `undo` goes back to, one after the other, oldest first.

    Raises:
        DataError: one is damaged.
    """
    earlier = entries(folder.path)
    while earlier and not _is_made(folder, earlier[-1]):
        earlier.pop()
    return earlier


def _is_made(folder: RunFolder, entry: Entry) -> bool:
    """Whether the change before which the entry was kept is there, or at least a part of it."""
    facts = read_provenance(folder.bundle)
    made = (facts.get("labels_changed"), facts.get("change"))
    if not facts or made == (entry.when, entry.change):
        return True
    try:
        found = checked_id(folder.bundle)
    except BundleError:
        return True  # cut short among its files: the more reason to go back
    # Else it is as before the change; or new thresholds were derived for that.
    return found == entry.bundle and not is_at(folder.path, entry)
