"""`red-ray thresholds`: new thresholds for a trained run; nothing is fitted again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from red_ray.calibration import with_goal
from red_ray.cli.console import Output, guarded, notes
from red_ray.cli.options import Calibration, CalibrationOos, Goals, Json, RunPath, goal_of
from red_ray.cli.running import score_rows
from red_ray.cli.show_thresholds import show_thresholds
from red_ray.config import RunConfig, changed, load_config
from red_ray.core.text import text_key
from red_ray.data.inputs import KnownRows, read_calibration
from red_ray.errors import ConfigError
from red_ray.run_folder import OF_TEST_ROWS, RunFolder
from red_ray.snapshot import Snapshot, read_snapshot, write_snapshot
from red_ray.working_copy import at_place

if TYPE_CHECKING:
    from red_ray.model import RedModel


CURVE = "thresholds.svg"


def thresholds(
    run: RunPath,
    goal: Goals = None,
    confidence: Annotated[
        float | None, typer.Option(help="Of each promise.  [default: the run's, else 0.9]")
    ] = None,
    calibration: Calibration = None,
    calibration_oos: CalibrationOos = None,
    as_json: Json = False,
) -> None:
    """Derive thresholds from a goal, and write them into the bundle; without --goal, show them.

    The rows are those of --calibration, else those that the run was trained with: what they
    promise is guaranteed. Else the training rows, cross-fitted: then it is an estimate.
    """
    output = Output(as_json=as_json)
    with guarded(output), at_place(run) as place:
        folder = RunFolder.open(place)
        if not goal and (confidence is not None or calibration is not None):
            raise ConfigError("nothing to derive: say what must hold, as --goal catch_errors=0.95")
        if calibration_oos is not None and calibration is None:
            raise ConfigError("--calibration-oos goes with rows that fit a label: --calibration")
        from red_ray.bundle import load_bundle

        if goal:
            with folder.changing():
                stated = _stated(goal, confidence)
                model = _changed(output, folder, stated, calibration, calibration_oos)
        else:
            model = load_bundle(folder.bundle)
        show_thresholds(output, folder.name, model)


def _stated(goal: list[str], confidence: float | None) -> dict[str, object]:
    stated: dict[str, object] = {"goal": goal_of(goal)}
    return stated if confidence is None else stated | {"confidence": confidence}


def _changed(
    output: Output,
    folder: RunFolder,
    stated: dict[str, object],
    calibration: Path | None,
    out_of_scope: Path | None,
) -> RedModel:
    """The run's model with other thresholds; all is read and written under the run's lock."""
    from red_ray.bundle import load_bundle

    model = load_bundle(folder.bundle)
    wanted = changed(model.config, {"router": stated})
    rows = read_snapshot(folder.path)
    known = rows.inputs.calibration
    if calibration is not None:
        known = _read(output, folder, wanted, rows, calibration, out_of_scope)
    model = _derive(output, folder, model, wanted, rows, known)
    folder.save()
    return model


def _read(
    output: Output,
    folder: RunFolder,
    config: RunConfig,
    rows: Snapshot,
    calibration: Path,
    out_of_scope: Path | None,
) -> KnownRows:
    """Calibration rows that neither training nor any scorecard knows."""
    tested = rows.test.rows.texts + rows.test.out_of_scope if rows.test else ()
    # The run's own calibration rows may be given again.
    own = rows.inputs.calibration
    again = frozenset(map(text_key, own.rows.texts + own.out_of_scope)) if own else frozenset()
    seen = (folder.seen() - again) | folder.tested() | frozenset(map(text_key, tested))
    labels = rows.inputs.label_set
    known, lines = read_calibration(
        config, seen, labels, calibration=calibration, out_of_scope=out_of_scope
    )
    notes(output, lines)
    return known


def _n_counted(model: RedModel) -> int:
    """Training rows on which a goal is counted, at most."""
    return model.n_seed if model.labelled_by == "user" else len(model.calibration.right)


def _derive(
    output: Output,
    folder: RunFolder,
    model: RedModel,
    config: RunConfig,
    rows: Snapshot,
    known: KnownRows | None,
) -> RedModel:
    from red_ray.bundle import read_provenance, save_bundle
    from red_ray.calibration import check_goal, threshold_details
    from red_ray.evaluation.report import write_report
    from red_ray.evaluation.report.curve import write_curve

    goal, confidence = config.router.goal, config.router.confidence
    if goal is None:
        raise ConfigError("a goal states at least one share")
    check_goal(goal, confidence, known, n_train=_n_counted(model))
    encoder = model.open_encoder()
    model = with_goal(model, goal, confidence, known, lambda: encoder)
    folder.claim()
    # All marks before the bundle: whatever ends this in between, no test row has set a threshold.
    if known is not None and known != rows.inputs.calibration:
        if rows.inputs.calibration is not None:
            output.note("these calibration rows take the place of those that the run had")
        # They are the run's own from now on: no test row may be one of them.
        inputs = replace(rows.inputs, calibration=known)
        folder.write_seen(folder.seen() | inputs.seen_keys)
        write_snapshot(folder.path, replace(rows, inputs=inputs))
        folder.save()
    if rows.scored is None and folder.drop_scorecard(OF_TEST_ROWS):
        output.note("the scorecard was of the thresholds of before; run evaluate again")
    facts = read_provenance(folder.bundle)
    facts.pop("scorecard", None)
    derived = {"thresholds_derived": datetime.now(UTC).isoformat(timespec="seconds")}
    model = replace(model, bundle_id=save_bundle(model, folder.bundle, facts | derived))
    # Its own file: a bundle's configuration does not say where and how fast a run went.
    stated = {"goal": goal.model_dump(), "confidence": confidence}
    own = load_config(folder.path / "config.yaml")
    folder.write_config(changed(own, {"router": stated}))
    details = folder.read_json("details.json")
    folder.write_json("details.json", details | {"thresholds": threshold_details(model)})
    if rows.scored is not None:
        output.note(f"scoring {len(rows.scored.rows)} test rows with the new thresholds")
        score_rows(folder, model, rows.scored, encoder)
    if model.promise is not None:
        write_curve(folder.path / CURVE, model.promise)
    write_report(folder.path)
    return model
