"""Figures of an audit, its criteria, position bias and agreement."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from red_ray.config import Criterion, parse_config
from red_ray.core.metrics import wilson_interval
from red_ray.evaluation.audit.comparison import agreement, position_bias
from red_ray.evaluation.audit.criteria import (
    AuditOutcome,
    find,
    outcome_of,
    rows_needed,
    worst,
)
from red_ray.evaluation.audit.figures import figures_of
from red_ray.types import Outcome
from tests.unit.evaluation.auditing import OFFERED, answer, failed, item

SHARE = Criterion(go=0.85, abort=0.7)


def rng():
    return np.random.default_rng(0)


def mixed():
    """6 right, 1 wrong, 1 wrong none, 1 unreadable, 1 timed out; 2 of the right ones are none."""
    none = [item(number, offered=("b", "c")) for number in range(2)]
    rest = [item(number) for number in range(2, 10)]
    return [
        *(answer(one, None) for one in none),
        *(answer(one, "a") for one in rest[:4]),
        answer(rest[4], "b"),
        answer(rest[5], None),
        failed(rest[6], Outcome.UNREADABLE),
        failed(rest[7], Outcome.TIMEOUT),
    ]


def test_failed_and_unreadable_answers_are_not_right():
    rates = figures_of(mixed(), rng()).rates
    assert (rates["accuracy"].value, rates["accuracy"].n) == (0.6, 10)
    assert rates["accuracy"].interval == wilson_interval(6, 10)
    assert (rates["accuracy_offered"].value, rates["accuracy_offered"].n) == (0.5, 8)
    assert rates["success_rate"].value == 0.8
    assert rates["unreadable_rate"].value == rates["failed_rate"].value == 0.1


def test_outcomes_and_categories_are_counted():
    figures = figures_of(mixed(), rng())
    counts = {"label": 5, "none": 3, "unreadable": 1, "timeout": 1, "error": 0}
    assert (figures.n, figures.outcomes) == (10, counts)
    assert {name: one.n for name, one in figures.categories.items()} == {
        "easy": 8,
        "hard": 0,
        "none": 2,
    }
    assert figures.categories["none"].value == 1.0
    assert figures.categories["hard"].value is None


def test_latency_includes_failures():
    answers = [answer(item(number), "a", latency_ms=100.0) for number in range(90)]
    answers += [
        failed(item(number), Outcome.TIMEOUT, latency_ms=9000.0) for number in range(90, 100)
    ]
    latency_s = figures_of(answers, rng()).latency_s
    assert latency_s == {"p50": 0.1, "p95": 9.0, "p99": 9.0}


def test_the_interval_of_a_quantile_is_open_where_the_answers_are_few():
    few = [answer(item(number), "a", latency_ms=1000.0 + number) for number in range(20)]
    figure = figures_of(few, rng()).rates["p95_latency_s"]
    assert figure.interval[0] <= figure.value
    assert figure.interval[1] == math.inf


def test_the_interval_of_a_quantile_holds_the_true_one_as_often_as_it_says():
    draws = np.random.default_rng(1)
    held = []
    for _ in range(300):
        drawn = draws.exponential(size=100)
        answers = [answer(item(0), "a", latency_ms=1000 * one) for one in drawn]
        low, high = figures_of(answers, rng()).rates["p95_latency_s"].interval
        held.append(low <= -math.log(0.05) <= high)
    assert 0.93 <= np.mean(held) <= 1.0


def test_a_right_answer_costs_what_all_answers_cost():
    answers = [answer(item(n), "a" if n < 4 else "b", cost_usd=0.01) for n in range(5)]
    figures = figures_of(answers, rng())
    price = figures.rates["usd_per_correct"]
    assert figures.cost_usd == pytest.approx(0.05)
    assert price.value == pytest.approx(0.05 / 4)
    assert 0.01 <= price.interval[0] < price.value < price.interval[1]


@pytest.mark.parametrize(("label", "cost_usd"), [("a", None), ("b", 0.01)])
def test_there_is_no_price_per_right_answer_without_either(label, cost_usd):
    figures = figures_of([answer(item(0), label, cost_usd=cost_usd)], rng())
    assert figures.rates["usd_per_correct"].value is None
    assert figures.cost_usd == cost_usd


def test_no_answer_gives_no_figure():
    figures = figures_of([], rng())
    assert {one.value for one in figures.rates.values()} == {None}
    assert set(figures.latency_s.values()) == {None}


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [
        ((0.85, 0.9), AuditOutcome.GO),
        ((0.84, 0.9), AuditOutcome.INCONCLUSIVE),
        ((0.7, 0.84), AuditOutcome.ITERATE),
        ((0.69, 0.84), AuditOutcome.INCONCLUSIVE),
        ((0.5, 0.69), AuditOutcome.ABORT),
        ((0.5, 0.9), AuditOutcome.INCONCLUSIVE),
    ],
)
def test_the_whole_interval_decides(interval, outcome):
    assert outcome_of(interval, SHARE, less_is_better=False) is outcome


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [
        ((0.5, 2.0), AuditOutcome.GO),
        ((1.0, 2.5), AuditOutcome.INCONCLUSIVE),
        ((2.1, 5.0), AuditOutcome.ITERATE),
        ((5.1, math.inf), AuditOutcome.ABORT),
        ((1.0, math.inf), AuditOutcome.INCONCLUSIVE),
    ],
)
def test_a_figure_that_should_be_small_is_judged_from_the_other_side(interval, outcome):
    assert outcome_of(interval, Criterion(go=2, abort=5), less_is_better=True) is outcome


def test_the_worst_outcome_is_the_audits():
    go, iterate, unclear, abort = (
        AuditOutcome(name) for name in ("GO", "ITERATE", "INCONCLUSIVE", "ABORT")
    )
    assert worst([go, iterate]) is iterate
    assert worst([iterate, unclear, go]) is unclear
    assert worst([unclear, abort, go]) is abort


def test_rows_needed_would_have_been_enough():
    n = rows_needed(0.9, SHARE, 30, less_is_better=False)
    assert outcome_of(wilson_interval(round(0.9 * n), n), SHARE, less_is_better=False) == "GO"
    less = int(0.7 * n)
    before = outcome_of(wilson_interval(round(0.9 * less), less), SHARE, less_is_better=False)
    assert before == "INCONCLUSIVE"


def test_no_number_of_rows_tells_on_which_side_of_a_limit_the_limit_lies():
    assert rows_needed(0.85, SHARE, 30, less_is_better=False) is None


def test_an_inconclusive_criterion_says_how_many_questions_it_takes():
    config = parse_config({}).audit
    answers = [answer(item(n), "a" if n < 9 else "b") for n in range(10)]
    found = {one.name: one for one in find(figures_of(answers, rng()), config)}
    assert found["accuracy"].outcome is AuditOutcome.INCONCLUSIVE
    needed = rows_needed(0.9, SHARE, 10, less_is_better=False)
    assert f"10 held questions do not tell; about {needed:,} would" in found["accuracy"].note
    assert f"would: {needed * 5:,} labelled rows, and audit.size" in found["accuracy"].note


def test_every_criterion_is_held_against_its_own_figure():
    limits = {"go": 0.5, "abort": 0.5}
    names = ("accuracy", "accuracy_offered", "success_rate", "unreadable_rate")
    names += ("p95_latency_s", "usd_per_correct")
    config = parse_config({"audit": {"criteria": dict.fromkeys(names, limits)}}).audit
    figures = figures_of(mixed(), rng())
    found = find(figures, config)
    assert tuple(one.name for one in found) == names == tuple(dict(config.criteria))
    assert all(one.figure is figures.rates[one.name] for one in found)


def latency_note(latencies_ms, **limits):
    config = parse_config({"audit": {"criteria": {"p95_latency_s": limits}}}).audit
    answers = [answer(item(n), "a", latency_ms=one) for n, one in enumerate(latencies_ms)]
    found = {one.name: one for one in find(figures_of(answers, rng()), config)}
    return found["p95_latency_s"].outcome, found["p95_latency_s"].note


def test_few_rows_leave_the_latency_open_and_72_do_not():
    outcome, note = latency_note(range(71), go=0.5, abort=1)
    assert outcome is AuditOutcome.INCONCLUSIVE
    assert "71 held questions do not tell; about 72 would" in note
    assert latency_note(range(72), go=0.5, abort=1) == (AuditOutcome.GO, "")


def test_the_latency_near_a_limit_takes_rows_by_the_width_of_its_interval():
    """p95 is 0.95 s of 1 to 1,000 ms; the interval reaches about 14 ms to either side."""
    outcome, note = latency_note(range(1, 1001), go=0.955, abort=2)
    assert outcome is AuditOutcome.INCONCLUSIVE
    needed = int(re.search(r"about ([\d,]+) would", note)[1].replace(",", ""))
    assert 5_000 < needed < 20_000
    _, note = latency_note(range(1, 1001), go=0.95005, abort=2)
    assert "nor would any bearable number" in note


def test_a_criterion_without_a_figure_is_inconclusive_and_says_why():
    limits = {"usd_per_correct": {"go": 0.01, "abort": 0.1}}
    config = parse_config({"audit": {"criteria": limits}}).audit
    told = {one.name: one for one in find(figures_of([answer(item(0), "a")], rng()), config)}
    assert told["usd_per_correct"].outcome is AuditOutcome.INCONCLUSIVE
    assert "judge.prices" in told["usd_per_correct"].note
    none = {one.name: one for one in find(figures_of([], rng()), config)}
    assert "no held question" in none["accuracy"].note


def presented(n, seed=3):
    draws = np.random.default_rng(seed)
    return [tuple(draws.permutation(OFFERED)) for _ in range(n)]


def test_a_judge_that_takes_the_first_candidate_is_found_out():
    answers = [answer(item(n), order[0], order) for n, order in enumerate(presented(200))]
    bias = position_bias(answers, rng())
    assert bias.answers == (1.0, 0.0, 0.0, 0.0)
    assert bias.truths[0] == pytest.approx(0.25, abs=0.08)
    assert bias.moved == pytest.approx(1 - bias.truths[0])
    assert bias.p_value < 0.001


def test_a_judge_that_errs_without_looking_at_the_position_is_not_accused():
    p_values = []
    for seed in range(100):
        draws = np.random.default_rng(seed)
        said = draws.choice(OFFERED, size=80, p=(0.7, 0.1, 0.1, 0.1))
        orders = presented(80, seed)
        answers = [answer(item(n), said[n], orders[n]) for n in range(80)]
        p_values.append(position_bias(answers, rng()).p_value)
    assert np.mean(np.array(p_values) < 0.05) < 0.12
    assert np.median(p_values) > 0.2


def test_a_judge_that_is_always_right_has_no_bias():
    bias = position_bias([answer(item(n), "a", o) for n, o in enumerate(presented(50))], rng())
    assert (bias.moved, bias.p_value) == (0.0, 1.0)


def test_position_bias_looks_only_where_the_truth_was_offered_and_a_label_answered():
    missed = item(0, offered=("b", "c"))
    others = [answer(missed, "b"), answer(item(1), None), failed(item(2), Outcome.UNREADABLE)]
    assert position_bias(others, rng()) is None
    assert position_bias([*others, answer(item(3), "b")], rng()).n == 1


def test_there_is_no_position_without_a_choice():
    assert position_bias([answer(item(0, offered=("a",)), "a")], rng()) is None


def test_agreement_is_over_what_both_answered():
    items = [item(n) for n in range(5)]
    first = [answer(one, label) for one, label in zip(items, "aabb", strict=False)]
    second = [answer(one, label) for one, label in zip(items, "aaba", strict=False)]
    both = agreement([*first, failed(items[4], Outcome.ERROR)], [*second, answer(items[4], "a")])
    assert (both.n, both.share) == (4, 0.75)
    assert both.interval == wilson_interval(3, 4)
    # By chance: 2/4 * 3/4 + 2/4 * 1/4 = 0.5.
    assert both.kappa == pytest.approx(0.5)


def test_two_judges_that_only_ever_say_one_thing_agree_without_kappa():
    items = [item(n) for n in range(3)]
    both = agreement([answer(one, None) for one in items], [answer(one, None) for one in items])
    assert (both.share, both.kappa) == (1.0, None)


def test_judges_without_a_common_answer_cannot_be_compared():
    assert agreement([answer(item(0), "a")], [failed(item(0), Outcome.TIMEOUT)]) is None
