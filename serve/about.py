"""What `/v1/model` tells of the model that answers."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from red_ray.bundle import read_provenance
from red_ray.config import JudgeConfig
from red_ray.errors import DataError
from red_ray.evaluation.scorecard import versions
from red_ray.judges.spec import is_simulated
from red_ray.model import RedModel
from red_ray.run_folder import RunFolder
from serve.rates import Promised
from serve.schemas import CurvePoint, JudgeInfo, Label, LimitsInfo, ModelInfo, Thresholds

_log = logging.getLogger(__name__)

SCORECARD = "scorecard.json"


def model_info(
    model: RedModel,
    run: Path,
    *,
    loaded_at: datetime,
    layout: Literal["packed", "sharded"],
    judge: JudgeInfo | None,
    limits: LimitsInfo,
    failed_update: str | None = None,
) -> ModelInfo:
    """All that is told of a model.

    Args:
        model: that answers.
        run: its run's folder, or its bundle's where there is nothing else.
        loaded_at: when it was, in UTC.
        layout: where its experts are.
        judge: who is asked; see `judge_info`.
        limits: of a call.
        failed_update: why a newer bundle was not taken over.
    """
    expected, encoder = promised(model), model.encoder_config
    return ModelInfo(
        bundle=model.bundle_id,
        run=str(run),
        loaded_at=loaded_at,
        layout=layout,
        encoder=encoder.model,
        dtype=encoder.dtype,
        labels=_labels(model),
        n_experts=len(model.subsets),
        thresholds=thresholds_of(model),
        curve=_curve(model),
        promised_share=None if expected is None else expected.share,
        judge=judge,
        limits=limits,
        scorecard=scorecard_of(run),
        versions=versions(),
        failed_update=failed_update,
    )


def judge_info(judge: JudgeConfig, *, wait_s: float, on_failure: str) -> JudgeInfo | None:
    """Who is asked, and for how long a call waits; None where nobody is."""
    if judge.spec is None:
        return None
    return JudgeInfo(
        judge=judge.spec,
        simulated=is_simulated(judge.spec),
        question=judge.question,
        top_k=judge.top_k,
        wait_s=wait_s,
        on_failure=on_failure,
    )


def thresholds_of(model: RedModel) -> Thresholds:
    """Where the model's decisions change, and what that rests on."""
    promise, thresholds = model.promise, model.thresholds
    if promise is None:
        return Thresholds(escalate=thresholds.escalate, none=thresholds.none)
    return Thresholds(
        escalate=thresholds.escalate,
        none=thresholds.none,
        goals=dict(promise.goals),
        source="rows" if promise.source == "rows" else "cross_fitted",
        labelled_by=promise.labelled_by,
        confidence=promise.confidence,
    )


def promised(model: RedModel) -> Promised | None:
    """How many of the calibration rows would be escalated; None without a goal, or without rows.

    Counted on the curve: it stands in the bundle whatever the rows were, and they may not.
    """
    promise = model.promise
    if promise is None or not promise.n_rows:
        return None
    threshold, share = promise.thresholds.escalate, 0.0
    if threshold is not None:
        chosen = [point.escalated for point in promise.curve if point.threshold == threshold]
        if not chosen:
            return None
        share = chosen[0]
    n_escalated, is_estimate = round(share * promise.n_rows), promise.source != "rows"
    return Promised(n_escalated, promise.n_rows, model.bundle_id, is_estimate)


def scorecard_of(run: Path) -> dict[str, Any] | None:
    """The run's scorecard, else the one that its bundle carries; None where it was never tested.

    One that is damaged is left out.

    Args:
        run: its folder, or its bundle's.
    """
    folder = RunFolder(run)
    if (run / SCORECARD).exists():
        try:
            return folder.read_json(SCORECARD)
        except DataError as error:
            _log.warning("scorecard_left_out", extra={"reason": str(error)})
            return None
    bundle = folder.bundle if folder.bundle.is_dir() else run
    found = read_provenance(bundle).get("scorecard")
    return found if isinstance(found, dict) else None


def _labels(model: RedModel) -> list[Label]:
    counts = np.bincount(model.example_labels, minlength=len(model.labels))
    return [
        Label(
            label=name,
            description=model.descriptions[position],
            expert=model.expert_of[position],
            n_examples=int(counts[position]),
        )
        for position, name in enumerate(model.labels)
    ]


def _curve(model: RedModel) -> list[CurvePoint]:
    points = () if model.promise is None else model.promise.curve
    return [
        CurvePoint(
            threshold=point.threshold,
            escalated=point.escalated,
            recall=point.catch,
            precision=point.precision,
        )
        for point in points
    ]
