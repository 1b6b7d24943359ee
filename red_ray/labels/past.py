"""What became of a run's labels, change by change: what `undo` would take back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from red_ray.bundle import MANIFEST, bundle_id_of
from red_ray.errors import BundleError
from red_ray.history import FOLDER
from red_ray.labels.of_run import earlier_states
from red_ray.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class PastChange:
    """A change that stands, and what `undo` brings back of the time before it.

    Attributes:
        when: it was made, ISO 8601.
        change: in words: `add 'refund'`.
        bundle: id of the bundle before it.
        labels: names of the labels before it.
        n_labels_after: how many there were after it.
    """

    when: str
    change: str
    bundle: str
    labels: tuple[str, ...]
    n_labels_after: int


@dataclass(frozen=True, slots=True)
class Past:
    """A run as it is, and the changes that led to it.

    Attributes:
        bundle: id of its bundle.
        labels: names of its labels.
        changes: that can be undone, the last first.
    """

    bundle: str
    labels: tuple[str, ...]
    changes: tuple[PastChange, ...]


def past_of(folder: RunFolder) -> Past:
    """Read what the history of a run holds; nothing is loaded.

    Raises:
        BundleError: a bundle is damaged.
        DataError: an earlier state is.
    """
    labels = labels_of(folder.bundle)
    changes, n_after = [], len(labels)
    for entry in reversed(earlier_states(folder)):
        before = labels_of(folder.path / FOLDER / f"{entry.number:04d}" / "bundle")
        changes.append(PastChange(entry.when, entry.change, entry.bundle, before, n_after))
        n_after = len(before)
    return Past(bundle_id_of(folder.bundle), labels, tuple(changes))


def labels_of(bundle: Path) -> tuple[str, ...]:
    """The labels that a bundle's manifest names.

    Raises:
        BundleError: it has none.
    """
    try:
        manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
        return tuple(manifest["labels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{str(bundle)!r} is damaged: its {MANIFEST} cannot be read ({type(error).__name__})"
        ) from error
