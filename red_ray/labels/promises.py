"""Thresholds after a change: derived again from the same goal, and marked where they lack rows."""

from __future__ import annotations

from dataclasses import replace

from red_ray.calibration import ROWS, covered, stale_line, uncovered, with_goal
from red_ray.core.thresholds import Promise
from red_ray.data.inputs import KnownRows
from red_ray.errors import GoalError
from red_ray.model import RedModel, TextEncoder


def with_old_goal(
    model: RedModel,
    before: RedModel,
    known: tuple[KnownRows, KnownRows] | None,
    encoder: TextEncoder,
) -> tuple[RedModel, tuple[str, ...]]:
    """The changed model with the goal of the one before, counted on its own answers.

    The promise is *stale* where the rows do not cover it any more: they are too few, and the
    thresholds stay as they were; or none of them has one of the labels that came with this change
    or an earlier one, or lost its rows by it.

    Args:
        model: changed; without thresholds yet.
        before: with those of before, or none.
        known: calibration rows under their names before and after the change; None where the run
            has none.
        encoder: of the model.

    Returns:
        The model, and one line for each thing that a user should know.
    """
    promise, goal = before.promise, before.config.router.goal
    if promise is None or goal is None:
        return model, ()
    old, rows = known if known is not None and promise.source == ROWS else (None, None)
    new = set(model.labels) - set(before.labels)
    lacking = new | set(promise.uncovered) | covered(before, old)
    kept = replace(promise, uncovered=uncovered(model, rows, lacking))
    if promise.source == ROWS and rows is None:
        return _stale(model, kept, "the calibration rows behind it are not in the run any more")
    try:
        model = with_goal(model, goal, promise.confidence, rows, lambda: encoder, lacking)
    except GoalError as error:
        return _stale(model, kept, str(error))
    if model.promise is None or not model.promise.stale:
        return model, ()
    return _stale(model, model.promise, model.promise.stale)


def _stale(model: RedModel, promise: Promise, why: str) -> tuple[RedModel, tuple[str, ...]]:
    return replace(model, promise=replace(promise, stale=why)), (stale_line(promise.source, why),)
