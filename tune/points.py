"""What a setting comes to under a goal: on training rows, by models that had not seen them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from red_ray.config import Goal, RouterConfig
from red_ray.core.thresholds import CalibrationRows, Thresholds, derive, point
from red_ray.errors import GoalError
from tune.space import Objective

ALONE = "model alone"
"""Stands as the goal where nothing is escalated."""


@dataclass(frozen=True, slots=True)
class Point:
    """One goal of one setting: estimates, all shares.

    Attributes:
        goal: in words.
        threshold: risk from which a text is escalated; None escalates nothing.
        escalated: texts that go to the judge: the usage.
        escalated_low, escalated_high: its pointwise band.
        catch: of the model's errors, those escalated; None without an error.
        precision: of the answers given alone, those right; None where all is escalated.
        assumed_accuracy: with the judge's help, which is assumed right so and so often.
        refused: why the goal cannot be promised; then the shares are of nothing escalated.
    """

    goal: str
    threshold: float | None
    escalated: float
    escalated_low: float
    escalated_high: float
    catch: float | None
    precision: float | None
    assumed_accuracy: float
    refused: str = ""


def goal_name(goal: Goal | None) -> str:
    """A goal as one reads it."""
    return ALONE if goal is None else ", ".join(f"{k} {v:g}" for k, v in goal.shares.items())


def points_of(
    rows: CalibrationRows, goals: Sequence[Goal], router: RouterConfig, assumed: float
) -> list[Point]:
    """The model alone, and one point for each goal; nothing is fitted.

    Args:
        rows: the user's training rows, cross-fitted.
        goals: to be promised.
        router: confidence of the promises, and the default threshold of *none*.
        assumed: how often a judge is right where the true label is among its options.
    """
    return [_point(rows, goal, router, assumed) for goal in (None, *goals)]


def score(one: Point, objective: Objective) -> float:
    """How good a point is; below -1 where it misses what is asked, the less so the nearer."""
    if one.refused:
        return -3.0
    if objective.escalated_at_most is not None:
        excess = one.escalated - objective.escalated_at_most
        return one.assumed_accuracy if excess <= 0 else -1 - excess
    short = (objective.accuracy_at_least or 0.0) - one.assumed_accuracy
    return -one.escalated if short <= 0 else -1 - short


def rank(one: Point, objective: Objective) -> tuple[float, float, float]:
    """Sorts points, the best one last: of equal scores who asks less, then who is more accurate."""
    return score(one, objective), -one.escalated, one.assumed_accuracy


def best_of(points: Iterable[Point], objective: Objective) -> Point:
    """Of a setting: its best point."""
    return max(points, key=lambda one: rank(one, objective))


def _point(rows: CalibrationRows, goal: Goal | None, router: RouterConfig, assumed: float) -> Point:
    thresholds, refused = Thresholds(None, router.none_threshold), ""
    if goal is not None:
        try:
            thresholds = derive(rows, goal.shares, router.confidence, router.none_threshold)
        except GoalError as error:
            refused = str(error)
    risk, wrong = rows.risk(thresholds.none), rows.wrong(thresholds.none)
    cut = np.inf if thresholds.escalate is None else thresholds.escalate
    found = point(risk, wrong, cut, router.confidence)
    helped = np.where(risk >= cut, assumed * rows.offered, ~wrong)
    return Point(
        goal=goal_name(goal),
        threshold=thresholds.escalate,
        escalated=found.escalated,
        escalated_low=found.escalated_band[0],
        escalated_high=found.escalated_band[1],
        catch=found.catch,
        precision=found.precision,
        assumed_accuracy=float(helped.mean()),
        refused=refused,
    )
