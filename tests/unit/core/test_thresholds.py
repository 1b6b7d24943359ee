"""Thresholds from goals: worked by hand, and the promise held on drawn rows."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from red_ray.core.thresholds import (
    AT_MOST,
    CATCH,
    ESCALATE,
    FALSE_ALARM,
    NONE_RECALL,
    PRECISION,
    CalibrationRows,
    Thresholds,
    answer_risk,
    at_least,
    at_most,
    band,
    curve,
    derive,
    point,
    promise,
    rows_needed,
)
from red_ray.errors import GoalError

CONFIDENCE = 0.9
NEVER = 0.5
"""Threshold of *none* that the rows of most tests stay below."""


def rows_of(risk, wrong=None, none=None, none_out_of_scope=()):
    risk = np.asarray(risk, dtype=np.float64)
    right = np.ones(len(risk), bool) if wrong is None else ~np.asarray(wrong, dtype=bool)
    none = np.zeros(len(risk)) if none is None else np.asarray(none, dtype=np.float64)
    return CalibrationRows(risk, right, right, none, np.asarray(none_out_of_scope, np.float64))


def found(rows, confidence=CONFIDENCE, **goals):
    return derive(rows, goals, confidence, NEVER)


def risks(n):
    """1/n, 2/n … 1: the k-th smallest is k/n."""
    return np.arange(1, n + 1) / n


@pytest.mark.parametrize(
    ("share", "n_exceptions", "n_rows"),
    [(0.8, 0, 11), (0.9, 0, 22), (0.95, 0, 45), (0.9, 1, 38), (0.95, 2, 105), (0.5, 0, 4)],
)
def test_rows_needed(share, n_exceptions, n_rows):
    assert rows_needed(share, CONFIDENCE, n_exceptions) == n_rows
    assert binom.cdf(n_exceptions, n_rows, 1 - share) <= 0.1
    assert binom.cdf(n_exceptions, n_rows - 1, 1 - share) > 0.1


@pytest.mark.parametrize(("share", "confidence", "n_rows"), [(0.5, 0.875, 3), (0.1, 0.9, 1)])
def test_a_chance_that_meets_the_confidence_exactly_is_enough(share, confidence, n_rows):
    assert rows_needed(share, confidence) == n_rows
    rows = rows_of(risks(n_rows), wrong=np.ones(n_rows, bool))
    assert found(rows, confidence, catch_errors=share).escalate == 1 / n_rows
    assert found(rows, confidence, escalate_at_most=1 - share).escalate > 1


@pytest.mark.parametrize(("share", "needed"), [(0.8, 11), (0.9, 22), (0.95, 45)])
def test_errors_are_caught_from_the_first_number_of_them_that_can_promise_it(share, needed):
    """With so few errors all must be caught, so that the surest of them is the threshold."""
    risk = risks(100)
    wrong = np.arange(100) >= 100 - needed
    assert found(rows_of(risk, wrong), catch_errors=share).escalate == risk[-needed]
    few = np.arange(100) >= 101 - needed
    told = (
        f"catch_errors {share:g} at confidence 0.9 needs at least {needed} errors among the "
        f"rows, and there are {needed - 1} among 100: give about "
        f"{int(np.ceil(needed / ((needed - 1) / 100)))} rows, or lower the goal"
    )
    with pytest.raises(GoalError, match=f"^{re.escape(told)}$"):
        found(rows_of(risk, few), catch_errors=share)


def test_errors_are_caught_by_the_order_statistic_of_the_binomial():
    """Of 100 errors at 0.9: 7 or more of 100 lie below the lowest tenth in 0.88 of the draws, 6
    or more in 0.94, so that the sixth smallest risk is the highest to be had."""
    assert binom.sf(6, 100, 0.1) < 0.9 <= binom.sf(5, 100, 0.1)
    rows = rows_of(risks(100), wrong=np.ones(100, bool))
    assert found(rows, catch_errors=0.9).escalate == 0.06


def test_as_many_are_escalated_as_surely_stay_within_the_share():
    """Of 100 rows at 0.1: in 0.94 of the draws 95 lie below the highest tenth, in 0.88 only 94."""
    got = found(rows_of(risks(100)), escalate_at_most=0.1).escalate
    assert got == np.nextafter(0.95, 1)


def test_false_alarms_take_the_lowest_threshold_that_is_calm():
    got = found(rows_of(np.zeros(100), none=risks(100)), none_false_alarm=0.1)
    assert got == Thresholds(escalate=None, none=np.nextafter(0.95, 1))


def test_recall_of_none_takes_the_highest_threshold_that_reaches_it():
    rows = rows_of(np.zeros(5), none_out_of_scope=risks(100))
    assert found(rows, none_recall=0.9) == Thresholds(escalate=None, none=0.06)


def test_without_a_goal_nothing_changes():
    assert found(rows_of(risks(9))) == Thresholds(escalate=None, none=NEVER)


def test_precision_is_tested_from_the_surest_rows_on():
    """Errors among the riskiest 20 of 400 rows only: 0.9 holds for all, 0.97 not."""
    wrong = np.arange(400) >= 380
    assert found(rows_of(risks(400), wrong), precision=0.9).escalate is None
    got = found(rows_of(risks(400), wrong), precision=0.97).escalate
    alone = int((risks(400) < got).sum())
    n_wrong = int(wrong[:alone].sum())
    assert binom.cdf(n_wrong, alone, 0.03) <= 0.1
    step = (400 - rows_needed(0.97, CONFIDENCE, 2)) / 99
    further = alone + int(np.ceil(step))
    assert binom.cdf(int(wrong[:further].sum()), further, 0.03) > 0.1


def test_precision_stops_at_the_first_step_that_fails():
    """Wrong ones in the middle end the sequence, though later thresholds look fine by themselves:
    a scan over all of them would take one."""
    wrong = np.zeros(2000, bool)
    wrong[300:330] = True
    got = found(rows_of(risks(2000), wrong), precision=0.95).escalate
    assert binom.cdf(30, 2000, 0.05) < 1e-9  # the last threshold is precise beyond doubt
    assert 280 < (risks(2000) < got).sum() < 330


def test_rows_of_one_risk_are_answered_together():
    """Half of the rows tie at the lowest risk: the first step takes all of them."""
    risk = np.where(np.arange(1000) < 500, 1e-9, 0.5)
    wrong = (np.arange(1000) >= 500) & (np.arange(1000) % 2 == 0)
    assert found(rows_of(risk, wrong), precision=0.95).escalate == 0.5


def test_precision_that_the_surest_rows_lack_says_what_can_be_had():
    rows = rows_of(risks(500), wrong=np.arange(500) % 10 == 0)
    told = r"^precision 0.97 at confidence 0.9 cannot be promised: of the 176 surest rows 18 are "
    told += r"wrong; precision (0\.\d+) can be had, or give more calibration rows$"
    with pytest.raises(GoalError, match=told) as caught:
        found(rows, precision=0.97)
    share = float(re.search(told, str(caught.value))[1])
    found(rows, precision=share)
    with pytest.raises(GoalError):
        found(rows, precision=share + 0.01)


@pytest.mark.parametrize(
    ("goal", "told"),
    [
        ({PRECISION: 0.95}, "precision 0.95 at confidence 0.9 needs at least 45 texts"),
        ({ESCALATE: 0.05}, "escalate_at_most 0.05 at confidence 0.9 needs at least 45 texts"),
        (
            {FALSE_ALARM: 0.05},
            "none_false_alarm 0.05 at confidence 0.9 needs at least 45 texts that fit a label",
        ),
        (
            {NONE_RECALL: 0.95},
            "none_recall 0.95 at confidence 0.9 needs at least 45 texts that fit no label",
        ),
    ],
)
def test_too_few_rows_say_how_many_are_needed(goal, told):
    rows = rows_of(risks(44), none_out_of_scope=risks(44))
    whole = (
        f"{told} among the rows, and there are 44: give more --calibration rows, or relax the goal"
    )
    with pytest.raises(GoalError, match=f"^{re.escape(whole)}$"):
        found(rows, **goal)
    one_more = rows_of(risks(45), none_out_of_scope=risks(45))
    assert found(one_more, **goal).none >= 0


def test_no_error_at_all_asks_for_more_rows():
    with pytest.raises(GoalError, match="there are 0 among 50: give more rows, or lower the goal"):
        found(rows_of(risks(50)), catch_errors=0.8)


def noisy(n=600, seed=0):
    """Rows whose risk says something of their errors, *none* above 0.5 for a few."""
    rng = np.random.default_rng(seed)
    risk = rng.beta(1, 4, n)
    return rows_of(risk, rng.random(n) < risk, rng.beta(1, 9, n), rng.beta(6, 3, n // 3))


@pytest.mark.parametrize(
    "goals",
    [
        {CATCH: 0.95, ESCALATE: 0.1},
        {PRECISION: 0.93, ESCALATE: 0.1},
        {CATCH: 0.97, PRECISION: 0.93},
        {CATCH: 0.95, PRECISION: 0.9, ESCALATE: 0.2},
        {NONE_RECALL: 0.95, FALSE_ALARM: 0.01},
        {NONE_RECALL: 0.95, FALSE_ALARM: 0.01, CATCH: 0.8},
        {CATCH: 0.95, ESCALATE: 0.1, FALSE_ALARM: 0.05},
    ],
)
def test_each_way_out_of_a_conflict_is_one(goals):
    rows = noisy()
    with pytest.raises(GoalError, match="can be had, or give more calibration rows") as caught:
        found(rows, **goals)
    named = re.findall(r"(\w+) ([\d.]+)", str(caught.value).split("; ")[1])
    assert named
    for name, share in named:
        relaxed = float(share) > goals[name] if name in AT_MOST else float(share) < goals[name]
        assert relaxed
        about_none = {NONE_RECALL, FALSE_ALARM}
        kept = {k: v for k, v in goals.items() if name not in about_none or k in about_none}
        found(rows, **kept | {name: float(share)})


def test_a_conflict_names_the_goals_and_what_they_take():
    told = r"^catch_errors 0.95 may take \d\d\.\d% of the texts, and escalate_at_most 0.1 forbids"
    with pytest.raises(GoalError, match=told):
        found(noisy(), catch_errors=0.95, escalate_at_most=0.1)


def test_catching_all_leaves_too_few_rows_for_a_precision():
    with pytest.raises(GoalError, match=r"the first leaves \d+ of 600 texts answered, and the sec"):
        found(noisy(), catch_errors=0.97, precision=0.93)


def test_of_all_thresholds_that_keep_the_goals_the_one_that_escalates_least_is_taken():
    rows = noisy(3000)
    one = {name: found(rows, **{name: share}).escalate for name, share in GOALS.items()}
    both = found(rows, catch_errors=GOALS[CATCH], precision=GOALS[PRECISION]).escalate
    assert both <= min(one[CATCH], one[PRECISION])
    with_limit = found(rows, catch_errors=GOALS[CATCH], escalate_at_most=0.9).escalate
    assert with_limit == one[CATCH]


GOALS = {CATCH: 0.8, PRECISION: 0.9, ESCALATE: 0.2, FALSE_ALARM: 0.1, NONE_RECALL: 0.7}


def test_both_goals_of_none_take_the_threshold_that_finds_the_most():
    rows = noisy()
    calm = found(rows, none_false_alarm=0.3).none
    assert found(rows, none_recall=0.7, none_false_alarm=0.3).none == calm
    assert calm < found(rows, none_recall=0.7).none


def test_an_answer_of_none_has_its_own_risk_and_is_wrong_for_a_text_with_a_label():
    rows = rows_of([0.2, 0.9, 0.3], wrong=[False, True, False], none=[0.1, 0.6, 0.8])
    assert rows.risk(0.7).tolist() == pytest.approx([0.2, 0.9, 0.2])
    assert rows.wrong(0.7).tolist() == [False, True, True]
    label_risk, none = np.array([0.2]), np.array([0.7])
    assert answer_risk(label_risk, none, 0.7) == pytest.approx(0.3)
    assert answer_risk(label_risk, none, 0.71) == pytest.approx(0.2)


def test_the_row_that_sets_none_counts_against_the_other_goals():
    """A hundred rows, none of them wrong: the second goal has one row less in hand than alone."""
    rows = rows_of(risks(100), none=np.zeros(100))
    with_none = found(rows, escalate_at_most=0.1, none_false_alarm=0.1)
    assert found(rows, escalate_at_most=0.1).escalate == np.nextafter(0.95, 1)
    assert with_none.escalate == np.nextafter(0.96, 1)


def test_with_the_row_that_sets_none_more_errors_are_needed():
    """The surest of all rows counts as an error that is missed: 38 promise what 22 would."""
    risk = risks(100)
    for n_wrong in (36, 37):
        rows = rows_of(risk, wrong=np.arange(100) >= 100 - n_wrong)
        assert found(rows, catch_errors=0.9).escalate > 0
        if n_wrong == 36:
            with pytest.raises(GoalError, match="needs at least 38 errors among the rows"):
                found(rows, catch_errors=0.9, none_false_alarm=0.1)
        else:
            both = found(rows, catch_errors=0.9, none_false_alarm=0.1)
            assert both.escalate == risk[-n_wrong]


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (3, 10), (95, 100), (1, 2000)])
def test_bands_are_clopper_and_pearsons(hits, n):
    known = binomtest(hits, n).proportion_ci(CONFIDENCE, method="exact")
    assert band(hits, n, CONFIDENCE) == pytest.approx((known.low, known.high))


def test_one_sided_bounds_by_hand():
    """Ten of ten: at least the tenth root of 0.1; none of ten: the rest."""
    assert at_least(10, 10, 0.9) == pytest.approx(0.1**0.1)
    assert at_most(0, 10, 0.9) == pytest.approx(1 - 0.1**0.1)
    assert (at_least(0, 10, 0.9), at_most(10, 10, 0.9)) == (0.0, 1.0)
    assert band(0, 0, 0.9) == (0.0, 1.0)


def test_a_point_counts_what_its_threshold_does():
    got = point(np.array([0.1, 0.2, 0.3, 0.4]), np.array([True, False, False, True]), 0.3, 0.9)
    assert (got.escalated, got.catch, got.precision) == (0.5, 0.5, 0.5)
    assert got.catch_band == band(1, 2, 0.9)
    everything = point(np.array([0.5]), np.array([False]), 0.1, 0.9)
    assert (everything.catch, everything.precision) == (None, None)
    assert everything.precision_band == (0.0, 1.0)


def test_a_curve_runs_from_nothing_to_everything_through_the_chosen_threshold():
    rows = noisy(1000)
    thresholds = found(rows, catch_errors=0.9)
    points = curve(rows, thresholds, CONFIDENCE)
    shares = [one.escalated for one in points]
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert shares == sorted(shares)
    assert len(shares) == len(set(shares))
    assert thresholds.escalate in [one.threshold for one in points]
    assert curve(rows_of([]), thresholds, CONFIDENCE) == []


def test_a_promise_keeps_what_it_was_counted_on():
    rows = noisy(1000)
    got = promise(
        rows, {CATCH: 0.9}, confidence=0.9, none_default=NEVER, source="rows", data_hash="abc"
    )
    assert got.thresholds == found(rows, catch_errors=0.9)
    assert got.curve == tuple(curve(rows, got.thresholds, 0.9))
    assert (got.n_rows, got.n_out_of_scope) == (1000, 333)
    assert got.n_errors == rows.wrong(NEVER).sum()
    assert (got.goals, got.source, got.data_hash) == ({CATCH: 0.9}, "rows", "abc")


# Coverage. A promise may fail in one draw of ten; 400 draws leave it two deviations: 0.87.
N_DRAWS, LEAST_KEPT = 400, 0.87


def many(kind, n, rng):
    """Rows of one world: how risk and error hang together, and how much ties."""
    z = rng.normal(size=n)
    chance = 1 / (1 + np.exp(3 - 2 * z))
    risk = {"smooth": chance, "tied": np.digitize(z, [-0.5, 0.5, 1.5]) / 4, "blind": rng.random(n)}
    if kind == "blind":
        chance = np.full(n, 0.04)
    none = np.where(rng.random(n) < 0.05, rng.random(n), 0.3 * rng.random(n))
    wrong = rng.random(n) < chance
    strange = rng.beta(3, 1, n // 4)
    if kind == "tied":
        none, strange = none.round(2), strange.round(1)
    return rows_of(risk[kind], wrong, none, strange)


def taken(rows, at, strange):
    return CalibrationRows(
        rows.label_risk[at], rows.right[at], rows.right[at], rows.none[at],
        rows.none_out_of_scope[strange],
    )  # fmt: skip


def reached(rows, thresholds):
    threshold = np.inf if thresholds.escalate is None else thresholds.escalate
    got = point(rows.risk(thresholds.none), rows.wrong(thresholds.none), threshold, CONFIDENCE)
    return {
        CATCH: got.catch,
        PRECISION: got.precision,
        ESCALATE: got.escalated,
        FALSE_ALARM: (rows.none >= thresholds.none).mean(),
        NONE_RECALL: (rows.none_out_of_scope >= thresholds.none).mean(),
    }


@pytest.mark.parametrize("kind", ["smooth", "tied", "blind"])
@pytest.mark.parametrize(
    "goals",
    [
        {CATCH: 0.8},
        {CATCH: 0.9},
        {PRECISION: 0.9},
        {ESCALATE: 0.1},
        {FALSE_ALARM: 0.1},
        {NONE_RECALL: 0.8},
        {CATCH: 0.6, PRECISION: 0.9, ESCALATE: 0.9},
        {ESCALATE: 0.1, FALSE_ALARM: 0.05},
        {CATCH: 0.8, FALSE_ALARM: 0.05},
        {PRECISION: 0.85, FALSE_ALARM: 0.05},
        {CATCH: 0.8, NONE_RECALL: 0.5},
    ],
    ids=str,
)
def test_promises_hold_on_rows_that_were_not_seen(kind, goals):
    """A promise that is not made is none that is broken."""
    world = many(kind, 20_000, np.random.default_rng(1))
    rng = np.random.default_rng(2)
    broken, made = dict.fromkeys(goals, 0), 0
    for _ in range(N_DRAWS):
        rows = taken(world, rng.integers(0, 20_000, 400), rng.integers(0, 5000, 60))
        try:
            got = reached(world, derive(rows, goals, CONFIDENCE, NEVER))
        except GoalError:
            continue
        made += 1
        for name, share in goals.items():
            broken[name] += got[name] > share if name in AT_MOST else got[name] < share
    assert made
    assert max(broken.values()) <= (1 - LEAST_KEPT) * N_DRAWS, broken


def test_no_promise_is_sharper_than_the_confidence_asks():
    """Where risks do not tie, a tenth of the draws fails, nearly: else texts are wasted."""
    world = many("smooth", 20_000, np.random.default_rng(1))
    rng = np.random.default_rng(2)
    kept = 0
    for _ in range(N_DRAWS):
        rows = taken(world, rng.integers(0, 20_000, 1000), rng.integers(0, 5000, 60))
        kept += reached(world, derive(rows, {CATCH: 0.8}, CONFIDENCE, NEVER))[CATCH] >= 0.8
    assert kept <= 0.96 * N_DRAWS
