"""The curve of thresholds, in a report and as a drawing of its own."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from xml.etree import ElementTree

import numpy as np
import pytest

from red_ray.config import dump_config, load_config
from red_ray.core.thresholds import CalibrationRows, promise
from red_ray.errors import OutputError
from red_ray.evaluation.report import write_report
from red_ray.evaluation.report.curve import write_curve
from red_ray.evaluation.report.svg import Axis, Plot, write_percent

SPACE = "\u00a0"
SVG = "{http://www.w3.org/2000/svg}"


def promised(goals, *, source="rows", n=600, n_strange=0):
    rng = np.random.default_rng(0)
    risk = rng.beta(1, 6, n)
    right = rng.random(n) >= risk
    strange = rng.beta(6, 2, n_strange)
    rows = CalibrationRows(risk, right, right, rng.beta(1, 9, n), strange)
    return promise(rows, goals, confidence=0.9, none_default=0.5, source=source)


def section(folder, found, scorecard=None):
    """The thresholds' section of a page, its spaces plain."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(load_config()))
    details = {"thresholds": None if found is None else asdict(found) | asdict(found.thresholds)}
    (folder / "details.json").write_text(json.dumps(details))
    if scorecard is not None:
        (folder / "scorecard.json").write_text(json.dumps(scorecard))
    page = write_report(folder).read_text(encoding="utf-8")
    return re.search(r'<section id="thresholds".*?</section>', page, re.S)[0].replace(SPACE, " ")


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def test_a_guarantee_says_on_what_it_was_counted(run):
    found = promised({"catch_errors": 0.9, "escalate_at_most": 0.975})
    text = section(run, found)
    assert "Goal: escalate at least 90 % of the errors; escalate at most 97.5 % of" in text
    told = "A guarantee at confidence 90 %, counted on 600 calibration rows of their own "
    assert f"{told}({found.n_errors} errors)." in text
    assert "estimate" not in text


def test_an_estimate_is_called_one(run):
    text = section(run, promised({"precision": 0.9}, source="cross_fitted"))
    assert "Goal: at least 90 % right where it answers alone." in text
    assert "An estimate at confidence 90 %, counted on 600 training rows by models" in text
    assert "guarantee" not in text


def test_goals_of_none_are_told_with_their_rows(run):
    goals = {"none_recall": 0.5, "none_false_alarm": 0.2}
    text = section(run, promised(goals, n_strange=80))
    assert "refuse at least 50 % of the texts that fit none; refuse at most 20 % of the" in text
    assert "and 80 texts that fit no label." in text


def test_without_test_rows_there_is_the_curve_and_no_claim_about_test_rows(run):
    text = section(run, promised({"catch_errors": 0.9}))
    assert "Errors caught" not in text
    assert "What the threshold does on the test rows" not in text
    assert text.count('class="band') == 2


def test_with_test_rows_both_are_there(run):
    router = {"recall": 0.96, "positive_rate": 0.3, "n_positive": 30, "n_errors": 9}
    text = section(run, promised({"catch_errors": 0.9}), {"router": router})
    assert "Errors caught" in text
    assert 'class="chosen"' in text


def test_a_scorecard_without_its_curve_shows_its_figures(run):
    router = {"recall_target": 0.95, "recall": 0.96, "positive_rate": 0.3}
    text = section(run, None, {"router": router})
    assert "Goal: escalate at least 95 % of the errors." in text
    assert 'class="chosen"' not in text


def test_no_goal_is_said_to_be_none(run):
    assert "No goal was named" in section(run, None)


def test_the_line_stands_at_the_share_that_is_escalated(run):
    found = promised({"catch_errors": 0.9})
    (chosen,) = [p for p in found.curve if p.threshold == found.thresholds.escalate]
    text = section(run, found)
    axis = Axis("", 0, 1, write_percent)
    plot = Plot(axis, axis, height=340)
    x = f"{plot.across(chosen.escalated):.1f}"
    assert f'class="chosen" points="{x},' in text
    assert f"in use: {100 * chosen.escalated:.1f} % escalated" in text
    assert f'cx="{x}" cy="{plot.up(chosen.catch):.1f}"' in text
    assert f'cx="{x}" cy="{plot.up(chosen.precision):.1f}"' in text


def test_a_goal_that_escalates_nothing_marks_the_start(run):
    found = promised({"precision": 0.5})
    assert found.thresholds.escalate is None
    assert "in use: 0.0 % escalated" in section(run, found)


def test_rows_without_an_error_have_no_recall_to_draw(run):
    right = np.ones(100, bool)
    calm = CalibrationRows(np.linspace(0, 1, 100), right, right, np.zeros(100), np.zeros(0))
    found = promise(
        calm, {"escalate_at_most": 0.2}, confidence=0.9, none_default=0.5, source="rows"
    )
    text = section(run, found)
    assert "in use" in text
    assert "nan" not in text.lower()


def test_the_drawing_stands_alone(tmp_path):
    found = promised({"catch_errors": 0.9})
    target = tmp_path / "curve.svg"
    write_curve(target, found)
    root = ElementTree.fromstring(target.read_text(encoding="utf-8"))
    assert root.tag == f"{SVG}svg"
    assert root.find(f"{SVG}style") is not None
    lines = root.findall(f".//{SVG}polyline")
    assert {line.get("class") for line in lines} == {"line", "line other", "chosen"}
    catch = next(line for line in lines if line.get("class") == "line")
    assert len(catch.get("points").split()) == len(found.curve)
    words = " ".join(root.itertext()).replace(SPACE, " ")
    assert "errors that are escalated" in words
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", target.read_text())


def test_a_drawing_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        write_curve(tmp_path / "absent" / "curve.svg", promised({"catch_errors": 0.9}))
