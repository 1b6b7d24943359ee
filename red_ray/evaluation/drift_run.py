"""Drift of a run, as one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from red_ray.bundle import load_bundle
from red_ray.core.text import text_key
from red_ray.evaluation.drift import find_drift
from red_ray.evaluation.drift_report import DriftReport, DriftSettings
from red_ray.evaluation.drift_rows import Reference, given_reference, own_reference
from red_ray.model import RedModel, TextEncoder
from red_ray.run_folder import RunFolder
from red_ray.snapshot import ROWS, Snapshot, read_snapshot
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
    """
    pairs = zip(texts, labels or (), strict=labels is not None)
    known = {text_key(text): label for text, label in pairs if label is not None}
    with at_place(str(run)) as place:
        folder = RunFolder.open(place)
        model, rows = load_bundle(folder.bundle), rows_of(folder)
    encoder = model.open_encoder()
    beside = reference_of(model, rows, reference, encoder)
    report, _ = find_drift(model, texts, beside, labels=known, settings=settings, encoder=encoder)
    return report


def rows_of(folder: RunFolder) -> Snapshot | None:
    """The run's rows; None where they were not kept."""
    return read_snapshot(folder.path) if (folder.path / ROWS).exists() else None


def reference_of(
    model: RedModel, rows: Snapshot | None, texts: Sequence[str] | None, encoder: TextEncoder
) -> Reference:
    """Texts that the user names, each once as in a pool, else the best that the run has."""
    if texts is not None:
        once = {text_key(text): text for text in reversed(texts)}
        return given_reference(model, [*once.values()][::-1], encoder)
    return own_reference(model, rows, encoder)
