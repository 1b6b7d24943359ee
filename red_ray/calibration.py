"""Thresholds of a trained model from a goal: on rows of their own, or on cross-fitted ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from red_ray.config import Goal
from red_ray.core.router import top_labels
from red_ray.core.thresholds import (
    AT_MOST,
    CATCH,
    NONE_RECALL,
    CalibrationRows,
    CurvePoint,
    Promise,
    promise,
    rows_needed,
)
from red_ray.data.inputs import KnownRows
from red_ray.errors import ConfigError, GoalError
from red_ray.model import RedModel, TextEncoder

ROWS, CROSS_FITTED = "rows", "cross_fitted"

N_SHOWN = 3
"""Labels that a line names before it counts the rest."""

JUDGED = {"judge": "by the judge's labels", "user and judge": "by your and the judge's labels"}
"""What is said of figures whose rows the user did not label all."""

WORDS = {ROWS: "guarantee", CROSS_FITTED: "estimate"}
"""What a promise is called, by the rows that it was counted on."""


def with_goal(
    model: RedModel,
    goal: Goal,
    confidence: float,
    known: KnownRows | None,
    encoder: Callable[[], TextEncoder],
    lacking: Collection[str] | None = None,
) -> RedModel:
    """The same model with the thresholds that keep a goal; nothing is fitted.

    The promise is *stale* where none of the rows has a label that came after the training.

    Args:
        model: trained.
        goal: what must hold.
        confidence: of each of its promises.
        known: rows that the model has not seen; None takes the user's training rows, cross-fitted,
            and what they promise is an estimate.
        encoder: makes the model's encoder, where `known` rows have to be encoded.
        lacking: labels that came after the training; by default those that the model's promise
            did not cover.

    Raises:
        GoalError: the rows cannot promise it, or its parts cannot all hold.
    """
    rows = model.calibration if known is None else calibration_rows(model, known, encoder())
    found = promise(
        rows,
        goal.shares,
        confidence=confidence,
        none_default=model.config.router.none_threshold,
        source=CROSS_FITTED if known is None else ROWS,
        data_hash="" if known is None else known.data_hash,
        labelled_by=model.labelled_by if known is None else "user",
    )
    if lacking is None:
        lacking = model.promise.uncovered if model.promise is not None else ()
    bare = uncovered(model, known, lacking)
    if bare:
        kind = "row that you labelled" if known is None else "calibration row"
        found = replace(found, stale=f"no {kind} has the {_told(bare)}", uncovered=bare)
    router = model.config.router.model_copy(update={"goal": goal, "confidence": confidence})
    config = model.config.model_copy(update={"router": router})
    return replace(model, config=config, promise=found, bundle_id="")


def uncovered(model: RedModel, known: KnownRows | None, names: Collection[str]) -> tuple[str, ...]:
    """Of some labels those that no calibration row has, or without such rows no row of the user."""
    there = covered(model, known)
    return tuple(name for name in model.labels if name in names and name not in there)


def covered(model: RedModel, known: KnownRows | None) -> frozenset[str]:
    """Labels that a calibration row has, or without such rows one of the user's."""
    if known is not None:
        return frozenset(known.rows.labels)
    return frozenset(model.labels[one] for one in np.unique(model.example_labels[: model.n_seed]))


def _told(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:N_SHOWN])
    more = len(names) - N_SHOWN
    told = f"{shown} and {more} more" if more > 0 else shown
    return f"label {told}" if len(names) == 1 else f"labels {told}"


def calibration_rows(model: RedModel, known: KnownRows, encoder: TextEncoder) -> CalibrationRows:
    """What a model says of rows that it has not seen."""
    texts = (*known.rows.texts, *known.out_of_scope)
    vectors, n = encoder.encode(texts), len(known.rows)
    index = {name: position for position, name in enumerate(model.labels)}
    true = np.array([index.get(label, -1) for label in known.rows.labels], dtype=np.int64)
    seen = model.assess(texts[:n], vectors[:n])
    best = top_labels(seen.label_proba, model.config.judge.top_k)
    return CalibrationRows(
        label_risk=seen.label_risk,
        right=best[:, 0] == true,
        offered=(best == true[:, None]).any(axis=1),
        none=seen.none,
        none_out_of_scope=model.assess(texts[n:], vectors[n:]).none,
    )


def chosen_point(promise: Promise) -> CurvePoint | None:
    """What its threshold of escalation does to the rows it comes from; None without one."""
    chosen = [point for point in promise.curve if point.threshold == promise.thresholds.escalate]
    return chosen[0] if chosen else None


def threshold_details(model: RedModel) -> dict[str, Any] | None:
    """Where the thresholds come from, and what others would do; None without a goal."""
    if model.promise is None:
        return None
    return asdict(model.promise) | asdict(model.promise.thresholds)


def stale_line(source: str, why: str, run: str = "RUN") -> str:
    """What to say of thresholds whose promise the rows do not cover any more."""
    return (
        f"the thresholds' {WORDS[source]} is stale: {why}; give rows that cover it, as "
        f"`red-ray thresholds {run} --goal … --calibration F`"
    )


def check_goal(
    goal: Goal, confidence: float, known: KnownRows | None, *, n_train: int | None = None
) -> None:
    """Find what no model could promise on these rows, before one is trained.

    Args:
        goal: what must hold.
        confidence: of each of its promises.
        known: calibration rows; None where the training rows count.
        n_train: how many of these there are, where that is known.

    Raises:
        ConfigError: a goal about texts that fit no label, and no such rows.
        GoalError: there are too few rows, even if the model got every one of them wrong.
    """
    shares = goal.shares
    if NONE_RECALL in shares and (known is None or not known.out_of_scope):
        raise ConfigError(
            "none_recall needs texts that fit no label: give --calibration and --calibration-oos"
        )
    n_rows = n_train if known is None else len(known.rows)
    if n_rows is None:
        return
    kind = "training" if known is None else "calibration"
    for name, share in shares.items():
        n = len(known.out_of_scope) if known is not None and name == NONE_RECALL else n_rows
        needed = rows_needed(1 - share if name in AT_MOST else share, confidence)
        if n < needed:
            what = "errors among the" if name == CATCH else "of the"
            raise GoalError(
                f"{name} {share:g} at confidence {confidence:g} needs at least {needed} {what} "
                f"{kind} rows, and there are {n} rows: give more, or relax the goal"
            )
