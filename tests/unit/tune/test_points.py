"""What a goal comes to, and which point is better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from red_ray.config import Goal, RouterConfig
from red_ray.core.thresholds import CalibrationRows
from tune.points import ALONE, best_of, points_of, score
from tune.space import Objective

N = 400


@pytest.fixture(scope="module")
def rows():
    """Risks that are true chances of an error; a tenth of the errors are offered to no judge."""
    rng = np.random.default_rng(3)
    risk = rng.beta(0.6, 3, N)
    right = rng.random(N) >= risk
    offered = right | (rng.random(N) < 0.9)
    return CalibrationRows(risk, right, offered, np.zeros(N), np.zeros(0))


def goals(*stated):
    return [Goal(**one) for one in stated]


def test_the_model_alone_comes_first_and_escalates_nothing(rows):
    (alone,) = points_of(rows, [], RouterConfig(), 0.9)
    assert (alone.goal, alone.escalated, alone.threshold) == (ALONE, 0.0, None)
    assert alone.assumed_accuracy == alone.precision == pytest.approx(rows.right.mean())


def test_accuracy_with_help_is_the_models_below_the_threshold_and_the_judges_above(rows):
    _, one = points_of(rows, goals({"escalate_at_most": 0.3}), RouterConfig(), 0.8)
    escalated = rows.label_risk >= one.threshold
    expected = np.where(escalated, 0.8 * rows.offered, rows.right).mean()
    assert one.assumed_accuracy == pytest.approx(expected)
    assert one.escalated == pytest.approx(escalated.mean())
    assert one.escalated <= 0.3
    assert one.catch == pytest.approx((escalated & ~rows.right).sum() / (~rows.right).sum())


def test_a_judge_that_is_never_right_makes_escalating_worse(rows):
    alone, one = points_of(rows, goals({"escalate_at_most": 0.3}), RouterConfig(), 0.0)
    assert one.assumed_accuracy < alone.assumed_accuracy


def test_a_stricter_goal_escalates_more(rows):
    stated = goals({"catch_errors": 0.6}, {"catch_errors": 0.8})
    _, loose, strict = points_of(rows, stated, RouterConfig(), 0.9)
    assert 0 < loose.escalated < strict.escalated
    assert strict.catch > loose.catch


def test_a_goal_that_cannot_be_promised_says_why_and_never_wins(rows):
    few = replace(
        rows,
        **{name: getattr(rows, name)[:10] for name in ("label_risk", "right", "offered", "none")},
    )
    alone, refused = points_of(few, goals({"catch_errors": 0.95}), RouterConfig(), 0.9)
    assert "needs at least 45 errors" in refused.refused
    objective = Objective(escalated_at_most=1.0)
    assert score(refused, objective) < score(alone, objective)
    assert best_of([refused, alone], objective) == alone


def test_under_a_limit_the_most_accurate_wins_and_above_it_the_nearest(rows):
    alone, *_ = points_of(rows, [], RouterConfig(), 0.9)
    objective = Objective(escalated_at_most=0.2)
    within = replace(alone, escalated=0.2, assumed_accuracy=0.7)
    near = replace(alone, escalated=0.21, assumed_accuracy=0.99)
    far = replace(alone, escalated=0.5, assumed_accuracy=1.0)
    assert score(alone, objective) > score(within, objective) > score(near, objective)
    assert score(near, objective) > score(far, objective)


def test_above_an_accuracy_the_fewest_questions_win_and_below_it_the_nearest(rows):
    alone, *_ = points_of(rows, [], RouterConfig(), 0.9)
    objective = Objective(accuracy_at_least=0.95)
    cheap = replace(alone, escalated=0.1, assumed_accuracy=0.95)
    dear = replace(alone, escalated=0.4, assumed_accuracy=0.99)
    short = replace(alone, escalated=0.0, assumed_accuracy=0.94)
    shorter = replace(alone, escalated=0.0, assumed_accuracy=0.5)
    ranked = [score(one, objective) for one in (cheap, dear, short, shorter)]
    assert ranked == sorted(ranked, reverse=True)
    assert len(set(ranked)) == 4


def test_of_equal_scores_the_more_accurate_is_the_best(rows):
    alone, *_ = points_of(rows, [], RouterConfig(), 0.9)
    some = [replace(alone, escalated=0.2, assumed_accuracy=one) for one in (0.96, 0.98, 0.97)]
    assert best_of(some, Objective(accuracy_at_least=0.95)) == some[1]
