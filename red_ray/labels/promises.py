"""Thresholds after a change: derived again from the same goal, and marked where they lack rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from red_ray.calibration import ROWS, stale_line, with_goal
from red_ray.core.thresholds import Promise
from red_ray.data.inputs import KnownRows
from red_ray.errors import GoalError
from red_ray.model import RedModel, TextEncoder

N_SHOWN = 3
"""Labels that a line names before it counts the rest."""


def with_old_goal(
    model: RedModel, before: RedModel, known: KnownRows | None, encoder: TextEncoder
) -> tuple[RedModel, tuple[str, ...]]:
    """The changed model with the goal of the one before, counted on its own answers.

    The promise is *stale* where the rows do not cover it any more: they are too few, or none of
    them has one of the labels that came with this change or an earlier one.

    Args:
        model: changed; without thresholds yet.
        before: with those of before, or none.
        known: calibration rows under their names after the change; None where the run has none.
        encoder: of the model.

    Returns:
        The model, and one line for each thing that a user should know.
    """
    promise, goal = before.promise, before.config.router.goal
    if promise is None or goal is None:
        return model, ()
    rows = known if promise.source == ROWS else None
    if promise.source == ROWS and rows is None:
        return _stale(model, promise, "the calibration rows behind it are not in the run any more")
    try:
        derived = with_goal(model, goal, promise.confidence, rows, lambda: encoder)
    except GoalError as error:
        return _stale(model, promise, str(error))
    bare = _uncovered(derived, before, rows)
    if not bare or derived.promise is None:
        return derived, ()
    kind = "calibration row" if rows is not None else "row that you labelled"
    found = replace(derived.promise, uncovered=bare)
    return _stale(derived, found, f"no {kind} has the {_labels(bare)}")


def _stale(model: RedModel, promise: Promise, why: str) -> tuple[RedModel, tuple[str, ...]]:
    return replace(model, promise=replace(promise, stale=why)), (stale_line(promise.source, why),)


def _uncovered(model: RedModel, before: RedModel, known: KnownRows | None) -> tuple[str, ...]:
    """Labels that the rows do not cover, of those that came by this change or an earlier one."""
    covered, old = _covered(model, known), set(before.labels)
    lacked = set(before.promise.uncovered) if before.promise is not None else set()
    return tuple(
        name for name in model.labels if name not in covered and (name not in old or name in lacked)
    )


def _covered(model: RedModel, known: KnownRows | None) -> set[str]:
    if known is not None:
        return set(known.rows.labels)
    return {model.labels[label] for label in np.unique(model.example_labels[: model.n_seed])}


def _labels(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:N_SHOWN])
    more = len(names) - N_SHOWN
    told = f"{shown} and {more} more" if more > 0 else shown
    return f"label {told}" if len(names) == 1 else f"labels {told}"
