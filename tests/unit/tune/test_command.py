"""`red-ray tune`: mistakes are found before Ray starts, and a finished sweep needs no Ray."""

from __future__ import annotations

import asyncio
import csv
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from red_ray.bundle import save_bundle
from red_ray.calibration import with_goal
from red_ray.cli.app import app
from red_ray.cli.tune import _finished
from red_ray.config import Goal
from red_ray.errors import GoalError
from tests.unit.training.fakes import FakeEncoder, train
from tune.folder import Place


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RED_RAY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def swept(tmp_path, corpus):
    """Runs a sweep's file that differs from a good one in some keys; the line that it says."""
    with (tmp_path / "train.csv").open("w", newline="") as file:
        rows = zip(corpus.texts, corpus.labels, strict=True)
        csv.writer(file).writerows([("text", "label"), *rows])

    def run(*args, **keys):
        given = {"data": {"train": "train.csv"}, "space": {"seed": [1, 2]}} | keys
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(given))
        command = ["tune", tmp_path / "sweep.yaml", "--out", tmp_path / "out", *args]
        result = CliRunner().invoke(app, [str(one) for one in command])
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("red-ray: ")
        return line

    return run


def test_a_mistake_in_the_file_is_one_line(swept, tmp_path):
    assert "did you mean 'search'" in swept(serch="grid")
    assert not (tmp_path / "out").exists()


def test_a_table_that_is_not_there_is_named(swept, tmp_path):
    assert "nowhere.csv" in swept(data={"train": "train.csv", "test": "nowhere.csv"})
    assert not (tmp_path / "out").exists()


def test_a_judge_of_some_settings_is_checked_before_they_start(swept, tmp_path):
    line = swept(space={"judge.spec": [None, "simulated:2"]})
    assert "the accuracy must be from 0 to 1" in line
    assert not (tmp_path / "out").exists()


def test_a_goal_that_calibration_rows_cannot_promise_costs_no_sweep(swept, tmp_path):
    rows = [("text", "label"), *((f"other words {n}", "card_lost") for n in range(12))]
    with (tmp_path / "calibration.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    data = {"train": "train.csv", "calibration": "calibration.csv"}
    line = swept(data=data, goals=[{"catch_errors": 0.9}])
    assert "calibration rows, and there are 12 rows" in line
    assert not (tmp_path / "out").exists()
    confidence = {"router.confidence": [0.5, 0.95]}
    line = swept(data=data, goals=[{"catch_errors": 0.8}], space=confidence)
    assert "at confidence 0.95 needs at least 14" in line  # whichever is chosen must keep it


def test_a_goal_that_no_setting_has_rows_for_costs_no_sweep(swept, tmp_path):
    space = {"samples_per_class": [2, 3]}
    line = swept(space=space, goals=[{"catch_errors": 0.99}])
    assert "training rows, and there are 36 rows" in line
    assert not (tmp_path / "out").exists()


def test_a_finished_sweep_says_again_that_its_goal_is_not_kept(tmp_path, corpus):
    place = Place(tmp_path)
    goal = {"escalate_at_most": 0.5}
    model = asyncio.run(train(corpus.job(router={"goal": goal}))).model
    save_bundle(model, place.chosen / "bundle", {})
    (place.chosen / "details.json").write_text("{}")
    with pytest.raises(GoalError, match=r"without thresholds: `red-ray thresholds` sets them"):
        _finished(place)
    kept = with_goal(model, Goal(**goal), 0.9, None, FakeEncoder)
    shutil.rmtree(place.chosen / "bundle")
    bundle_id = save_bundle(kept, place.chosen / "bundle", {})
    assert _finished(place) == {"run": str(place.chosen), "bundle": bundle_id}


def test_the_folder_of_something_else_is_refused(swept, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letters.txt").write_text("mine")
    assert "is no sweep's folder" in swept("--resume")


def test_a_submitted_job_must_not_write_where_ray_cleans_up(swept, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert "give an absolute path" in swept("--out", "runs/sweep")
