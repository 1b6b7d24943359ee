"""Criteria: the four outcomes, holes, pairs of columns, and when they were declared."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import yaml

from benchmarks.matrix import intervals
from benchmarks.matrix.check import (
    Criterion,
    Outcome,
    check,
    check_text,
    declare,
    is_near,
    load_criteria,
    verdict,
)
from benchmarks.matrix.results import USES
from benchmarks.matrix.summary import Measured
from red_ray.errors import ConfigError
from tests.unit.benchmarks.matrix.planted import Planted, exactly


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "N_RESAMPLES", 1000)


@pytest.fixture
def ask(tmp_path):
    """Declare criteria before a matrix of two columns is run, then check them."""

    def asked(*criteria, declared=True, **cells):
        file = tmp_path / "criteria.yaml"
        file.write_text(yaml.safe_dump({"criteria": list(criteria)}), encoding="utf-8")
        folder = tmp_path / "matrix"
        if declared:
            declare(folder, file, now=lambda: datetime(2026, 1, 2, tzinfo=UTC))
        fill(folder, **cells)
        return check(folder, file)

    return asked


def fill(folder, seeds=(0, 1, 2), hole=False, **figures):
    """flat is right on 85 %, BERT on 95 % of 400 rows; BERT's p95 latency is 12 ms."""
    planted = Planted(folder)
    for seed in seeds:
        planted.cell("flat", exactly(340, 400), seed=seed, n=400)
        planted.cell("BERT", exactly(380, 400), seed=seed, n=400, **figures)
    if hole:
        planted.hole("BERT", "timed_out", "took 61 s", seed=2)


def criterion(figure="accuracy", column="BERT", **limits):
    return {"column": column, "figure": figure, **limits}


def test_all_met_is_deploy(ask):
    found = ask(
        criterion(at_least=0.9),
        criterion("latency_p95_ms", at_most=50),
        criterion("peak_mb", at_most=1000),
        criterion("n_unreadable_share", at_most=0.02),
        criterion("mcc", at_least=0.8),
        criterion("specificity", at_least=0.85),
    )
    assert found.outcome is Outcome.DEPLOY, check_text(found)
    assert [one.verdict for one in found.findings] == ["met"] * 6
    assert "all 6 criteria" in found.why
    assert "2026-01-02" in found.declared
    assert "before any cell was finished" in found.declared


def test_surely_missed_and_far_is_abort(ask):
    found = ask(criterion(at_least=0.9), criterion(column="flat", at_least=0.95))
    assert found.outcome is Outcome.ABORT
    assert found.why.startswith("flat: accuracy ≥ 0.95 on sst2: 0.850 (")
    assert [one.verdict for one in found.findings] == ["met", "missed"]


def test_surely_missed_but_near_is_iterate(ask):
    found = ask(criterion(at_least=0.985, near=0.04))
    assert found.outcome is Outcome.ITERATE
    assert "near the limit" in found.why


def test_an_interval_that_holds_the_limit_is_inconclusive(ask):
    found = ask(criterion(at_least=0.95))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "the interval has the limit inside" in found.why


def test_a_hole_leaves_a_met_criterion_open(ask):
    found = ask(criterion(at_least=0.9), hole=True)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "BERT, seed 2, timed out: took 61 s" in found.why


def test_a_hole_saves_nothing_that_is_missed_already(ask):
    assert ask(criterion(at_least=0.999), hole=True).outcome is Outcome.ABORT


def test_a_column_without_any_figure_is_open(ask):
    found = ask(criterion("usd_per_1000", at_most=1))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "nothing measured usd_per_1000" in found.why


def test_over_another_column_is_paired(ask):
    """BERT is 10 points above flat; each alone has an interval of 6 points or more."""
    found = ask(criterion(over="flat", at_least=0.05), criterion("fit_s", over="flat", at_most=1))
    accuracy, fit = found.findings
    assert accuracy.verdict == "met"
    assert accuracy.figure.value == pytest.approx(0.1)
    assert fit.figure.value == pytest.approx(0.0)
    assert ask(criterion(over="flat", at_least=0.2)).outcome is Outcome.ABORT


def test_other_rows_leave_a_comparison_open(tmp_path):
    file = tmp_path / "criteria.yaml"
    one = criterion(over="flat", at_least=0.05)
    file.write_text(yaml.safe_dump({"criteria": [one]}), encoding="utf-8")
    planted = Planted(tmp_path / "matrix", seeds=(0,))
    planted.cell("flat", exactly(170, 200), n=200)
    planted.cell("BERT", exactly(150, 150), n=150)
    found = check(tmp_path / "matrix", file)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "changing denominator" in found.why


def test_undeclared_criteria_deploy_nothing(ask):
    found = ask(criterion(at_least=0.9), declared=False)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "not declared before" in found.why
    assert "NOT declared" in found.declared


def test_undeclared_criteria_still_abort(ask):
    assert ask(criterion(at_least=0.999), declared=False).outcome is Outcome.ABORT


def test_criteria_changed_since_are_said_so(ask, tmp_path):
    assert ask(criterion(at_least=0.9)).in_time
    file = tmp_path / "criteria.yaml"
    file.write_text(yaml.safe_dump({"criteria": [criterion(at_least=0.8)]}), encoding="utf-8")
    found = check(tmp_path / "matrix", file)
    assert "CHANGED" in found.declared
    assert found.outcome is Outcome.INCONCLUSIVE


def test_criteria_declared_after_cells_were_finished_are_late(ask, tmp_path):
    ask(criterion(at_least=0.9))
    file = tmp_path / "criteria.yaml"
    file.write_text(yaml.safe_dump({"criteria": [criterion(at_least=0.8)]}), encoding="utf-8")
    declare(tmp_path / "matrix", file)
    found = check(tmp_path / "matrix", file)
    assert "when 6 cells were finished already" in found.declared
    assert found.outcome is Outcome.INCONCLUSIVE


def test_declaring_again_keeps_the_first_time(ask, tmp_path):
    ask(criterion(at_least=0.9))
    declare(tmp_path / "matrix", tmp_path / "criteria.yaml")
    assert "2026-01-02" in check(tmp_path / "matrix", tmp_path / "criteria.yaml").declared


@pytest.mark.parametrize(
    ("interval", "limits", "expected"),
    [
        ((0.9, 0.95), {"at_least": 0.9}, "met"),
        ((0.85, 0.95), {"at_least": 0.9}, "open"),
        ((0.8, 0.89), {"at_least": 0.9}, "missed"),
        ((10, 20), {"at_most": 20}, "met"),
        ((10, float("inf")), {"at_most": 20}, "open"),
        ((21, 30), {"at_most": 20}, "missed"),
        (None, {"at_most": 20}, "open"),
    ],
)
def test_a_verdict_is_the_whole_intervals(interval, limits, expected):
    asked = Criterion(column="a", figure="fit_s", **limits)
    assert verdict(Measured(1.0, interval), asked) == expected


def test_near_is_two_points_or_a_tenth_unless_said():
    assert is_near(0.88, Criterion(column="a", figure="accuracy", at_least=0.9))
    assert not is_near(0.87, Criterion(column="a", figure="accuracy", at_least=0.9))
    assert is_near(22, Criterion(column="a", figure="fit_s", at_most=20))
    assert not is_near(22.1, Criterion(column="a", figure="fit_s", at_most=20))
    assert is_near(30, Criterion(column="a", figure="fit_s", at_most=20, near=10))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("criteria: []", "criteria"),
        ("criteria: [{column: a, figure: speed, at_least: 1}]", "figure"),
        ("criteria: [{column: a, figure: accuracy}]", "at_least"),
        ("criteria: [{column: a, figure: accuracy, at_least: 1, at_most: 2}]", "at_most"),
        ("criteria: [{column: a, figure: accuracy, at_least: 1, over: a}]", "over"),
        ("criteria: [", "no YAML"),
    ],
)
def test_criteria_that_are_none_are_refused(tmp_path, content, match):
    file = tmp_path / "criteria.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=match):
        load_criteria(file)


def test_names_that_are_not_there_are_refused(ask):
    with pytest.raises(ConfigError, match="no column 'Bert'"):
        ask(criterion(column="Bert", at_least=0.5))
    with pytest.raises(ConfigError, match="no task 'rte'"):
        ask(criterion(at_least=0.5, task="rte"))


def test_a_figure_that_a_task_does_not_have_is_open(tmp_path):
    """f1 is of two labels; this task has three."""
    file = tmp_path / "criteria.yaml"
    content = {"criteria": [criterion("f1", over="flat", at_least=0)]}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    planted = Planted(tmp_path / "matrix", seeds=(0,))
    for name in ("flat", "BERT"):
        planted.cell(name, 0.8, labels=("no", "yes", "maybe"))
    found = check(tmp_path / "matrix", file)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "nothing measured f1" in found.why


def test_a_figure_without_any_spread_meets_nothing(ask):
    """Nothing is answered: the balance gap of no answers is 0 in every resample."""
    found = ask(criterion("balance_gap", at_most=0.1), unreadable=range(400))
    assert found.findings[0].figure.value == 0
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "it has no interval" in found.why


def test_criteria_declared_after_a_run_in_another_folder_are_late(ask, tmp_path):
    """The looks that the folder knows of say that the same matrix ran before."""
    asked = criterion(at_least=0.9)
    assert ask(asked).in_time
    folder, file = tmp_path / "matrix", tmp_path / "criteria.yaml"
    key, at = json.loads((folder / USES).read_text().splitlines()[0])["report_key"], "2026-01-01"
    with (folder / USES).open("a") as lines:
        lines.write(json.dumps({"report_key": key, "matrix": "another", "at": at}) + "\n")
    assert check(folder, file).in_time
    with (folder / USES).open("a") as lines:
        lines.write(json.dumps({"report_key": key, "matrix": "planted", "at": at}) + "\n")
    found = check(folder, file)
    assert "had run already, at 2026-01-01, in another folder" in found.declared
    assert found.outcome is Outcome.INCONCLUSIVE


def test_one_seed_is_said_to_be_one_training(ask):
    found = ask(criterion(at_least=0.999), seeds=(0,))
    assert "of this one training, not near the limit" in found.why
