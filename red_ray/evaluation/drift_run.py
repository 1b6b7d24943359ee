"""Drift of a run, as one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from red_ray.bundle import load_bundle, read_provenance
from red_ray.core.text import checked_texts, text_key
from red_ray.crossfit_file import load_crossfit
from red_ray.evaluation.drift import find_drift
from red_ray.evaluation.drift_reference import Reference, given_reference, own_reference
from red_ray.evaluation.drift_report import DriftReport, DriftSettings
from red_ray.model import RedModel, TextEncoder
from red_ray.run_folder import RunFolder
from red_ray.snapshot import ROWS, Snapshot, read_snapshot
from red_ray.training.crossfit import Crossfit
from red_ray.working_copy import at_place


def drift(
    run: str | Path,
    texts: Sequence[str],
    *,
    reference: Sequence[str] | None = None,
    labels: Sequence[str | None] | None = None,
    settings: DriftSettings | None = None,
) -> DriftReport:
    """Say whether recent texts have drifted, and which experts need a refit.

    Args:
        run: a run's folder, or its address.
        texts: recent ones.
        reference: texts to hold them against; None takes the run's pool, else its calibration
            and test rows, else its training rows, cross-fitted.
        labels: of the recent texts, None where there is none; they give the accuracy.
        settings: when it is drift.

    Raises:
        BundleError: the bundle is damaged.
        ConfigError: the address cannot be understood.
        DataError: it is no run, or no text is new to the model.
        OutputError: the address is denied.
        StorageError: the address cannot be reached.
        TypeError: `texts` are no sequence of strings.
    """
    texts = checked_texts(texts)
    reference = None if reference is None else checked_texts(reference)
    pairs = zip(texts, labels or (), strict=labels is not None)
    known = {text_key(text): label for text, label in pairs if label is not None}
    with at_place(str(run)) as place:
        folder = RunFolder.open(place)
        model = load_bundle(folder.bundle)
        rows = rows_of(folder, model)
    encoder = model.open_encoder()
    beside = reference_of(model, rows, reference, encoder)
    report, _ = find_drift(model, texts, beside, labels=known, settings=settings, encoder=encoder)
    return report


@dataclass(frozen=True, slots=True)
class RunRows:
    """What a run has to hold recent texts against.

    Attributes:
        snapshot: its rows; None where they were not kept.
        crossfit: what it keeps of its cross-fitting, or None.
        is_changed: whether its labels were changed since the training.
    """

    snapshot: Snapshot | None
    crossfit: Crossfit | None
    is_changed: bool


def rows_of(folder: RunFolder, model: RedModel) -> RunRows:
    """What a run has to hold recent texts against.

    Raises:
        DataError: its rows are damaged.
    """
    return RunRows(
        read_snapshot(folder.path) if (folder.path / ROWS).exists() else None,
        load_crossfit(folder.path, model),
        "labels_changed" in read_provenance(folder.bundle),
    )


def reference_of(
    model: RedModel, rows: RunRows, texts: Sequence[str] | None, encoder: TextEncoder
) -> Reference:
    """Texts that the user names, each once as in a pool, else the best that the run has."""
    kept = rows.crossfit
    if texts is not None:
        once = {text_key(text): text for text in reversed(texts)}
        return given_reference(model, [*once.values()][::-1], encoder, crossfit=kept)
    changed = rows.is_changed
    return own_reference(model, rows.snapshot, encoder, crossfit=kept, is_changed=changed)
