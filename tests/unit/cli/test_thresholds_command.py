"""`red-ray thresholds`, and what `train` says of a goal."""

from __future__ import annotations

import dataclasses
import json

import pytest

from red_ray.bundle import load_bundle, save_bundle
from red_ray.data.inputs import Inputs, KnownRows, TestRows
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.snapshot import Snapshot, read_snapshot, write_snapshot
from tests.unit.cli.running import said, tree, write_rows

HALF = ("--goal", "escalate_at_most=0.5")


@pytest.fixture
def run(finished, corpus):
    """A finished run with its rows."""
    train = LabelledRows(corpus.texts, corpus.labels)
    test = TestRows(LabelledRows(corpus.test[:24], corpus.test_labels[:24]), ("sing",), 0, ())
    inputs = Inputs(train, corpus.pool, HiddenLabels(corpus.hidden))
    write_snapshot(finished.path, Snapshot(inputs, test))
    return finished


@pytest.fixture
def calibration(tmp_path, corpus):
    rows = [*zip(corpus.test[24:], corpus.test_labels[24:], strict=True)]
    return write_rows(tmp_path / "calibration.csv", rows, "text", "label")


def only_json(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_new_thresholds_stand_in_the_bundle_and_nothing_else_changes(red_ray, run):
    before, model = tree(run.bundle), load_bundle(run.bundle)
    result = only_json(red_ray("thresholds", run.path, *HALF, "--json"))
    after, changed = tree(run.bundle), load_bundle(run.bundle)
    names = {name for name in before if before[name] != after[name]}
    assert names == {"manifest.json", "provenance.json"}
    assert changed.bundle_id == result["bundle"] != model.bundle_id
    assert changed.thresholds.escalate == result["thresholds"]["thresholds"]["escalate"]
    assert changed.promise.source == "cross_fitted"
    provenance = json.loads(after["provenance.json"])
    assert provenance["thresholds_derived"].startswith("20")


def test_the_test_rows_are_scored_with_them(red_ray, run):
    only_json(red_ray("thresholds", run.path, *HALF, "--json"))
    router = run.read_json("scorecard.json")["router"]
    assert router["goals"] == {"escalate_at_most": 0.5}
    assert router["n_positive"] == round(router["positive_rate"] * 24)
    assert run.read_json("details.json")["thresholds"]["n_rows"] == 60
    assert "<svg" in (run.path / "thresholds.svg").read_text()


def test_what_is_printed_is_named_an_estimate_or_a_guarantee(red_ray, run, calibration):
    assert "estimate from 60 rows" in red_ray("thresholds", run.path, *HALF).stdout
    printed = red_ray("thresholds", run.path, *HALF, "--calibration", calibration).stdout
    assert "guarantee from 24 rows" in printed
    assert "at most 50.0% of the texts are escalated" in printed


@pytest.mark.parametrize(
    ("escalated", "labelled_by", "goal", "told"),
    [
        (0.62, "user", "catch_errors", "escalates 62% of these rows: a weaker goal"),
        (0.62, "judge", "catch_errors", "most of them chosen as the hardest: --calibration rows"),
        (0.62, "user", "escalate_at_most", ""),
        (0.3, "judge", "catch_errors", ""),
    ],
)
def test_a_goal_that_leaves_the_model_little_is_called_so(
    red_ray, run, escalated, labelled_by, goal, told
):
    red_ray("thresholds", run.path, *HALF)
    model = load_bundle(run.bundle)
    promise = model.promise
    point = dataclasses.replace(
        promise.curve[0], threshold=promise.thresholds.escalate, escalated=escalated
    )
    changed = dataclasses.replace(
        promise, curve=(point,), goals={goal: 0.9}, labelled_by=labelled_by
    )
    save_bundle(dataclasses.replace(model, promise=changed), run.bundle, {})
    printed = red_ray("thresholds", run.path).stdout
    assert told in printed
    assert ("keeping it escalates" in printed) is bool(told)


def test_calibration_rows_are_no_test_rows_from_then_on(red_ray, run, calibration, corpus):
    red_ray("thresholds", run.path, *HALF, "--calibration", calibration)
    everything = [*zip(corpus.test, corpus.test_labels, strict=True)]
    test = write_rows(calibration.with_name("all.csv"), everything, "text", "label")
    card = only_json(red_ray("evaluate", run.path, "--test", test, "--json"))
    assert card["leaks"]["train_test_dropped"] == 24
    # The same file may set them anew.
    result = red_ray("thresholds", run.path, *HALF, "--calibration", calibration, "--json")
    assert only_json(result)["thresholds"]["n_rows"] == 24


def test_test_rows_never_set_a_threshold(red_ray, run, tmp_path, corpus):
    rows = [*zip(corpus.test[:24], corpus.test_labels[:24], strict=True)]
    same = write_rows(tmp_path / "same.csv", rows, "text", "label")
    result = red_ray("thresholds", run.path, *HALF, "--calibration", same)
    said(result, 2, "all 24 calibration rows stand in training, pool or test")


@pytest.fixture
def tested(red_ray, run, tmp_path, corpus):
    """A run that was trained without test rows and evaluated; its test file and its details."""
    write_snapshot(run.path, dataclasses.replace(read_snapshot(run.path), test=None))
    before = run.read_json("details.json")
    rows = [*zip(corpus.test[:24], corpus.test_labels[:24], strict=True)]
    test = write_rows(tmp_path / "tested.csv", rows, "text", "label")
    strange = write_rows(tmp_path / "strange.csv", [["sing"]], "text")
    only_json(red_ray("evaluate", run.path, "--test", test, "--oos", strange, "--json"))
    return test, before


def test_rows_that_evaluate_scored_never_set_a_threshold(red_ray, run, tested, calibration):
    test, _ = tested
    before = tree(run.path)
    result = red_ray("thresholds", run.path, *HALF, "--calibration", test)
    said(result, 2, "all 24 calibration rows stand in training, pool or test")
    assert tree(run.path) == before
    # Nor do the texts that fit no label, however they are written.
    strange = write_rows(test.with_name("again.csv"), [["  SING "], ["dance"]], "text")
    given = ("--calibration", calibration, "--calibration-oos", strange)
    result = only_json(red_ray("thresholds", run.path, *HALF, *given, "--json"))
    assert result["thresholds"]["n_out_of_scope"] == 1
    # Evaluated again, they are test rows as before.
    card = only_json(red_ray("evaluate", run.path, "--test", test, "--json"))
    assert (card["n_test"], card["leaks"]["train_test_dropped"]) == (24, 0)


def test_no_scorecard_outlives_its_thresholds(red_ray, run, tested):
    test, before = tested
    assert run.read_json("details.json").keys() > before.keys()
    result = red_ray("thresholds", run.path, *HALF)
    assert "run evaluate again" in result.stderr
    assert not (run.path / "scorecard.json").exists()
    details = run.read_json("details.json")
    assert details.pop("thresholds")["n_rows"] == 60
    assert details == {name: value for name, value in before.items() if name != "thresholds"}
    assert "scorecard" not in json.loads((run.bundle / "provenance.json").read_text())
    again = red_ray("thresholds", run.path, *HALF)
    assert "run evaluate again" not in again.stderr
    card = only_json(red_ray("evaluate", run.path, "--test", test, "--json"))
    assert card["router"]["goals"] == {"escalate_at_most": 0.5}


def test_a_kill_before_the_bundle_loses_no_mark(red_ray, run, calibration, tested, monkeypatch):
    before = tree(run.bundle)

    def killed(*_):
        raise KeyboardInterrupt

    given = ("thresholds", run.path, *HALF, "--calibration", calibration)
    with monkeypatch.context() as patch:
        patch.setattr("red_ray.bundle.save_bundle", killed)
        assert red_ray(*given).exit_code != 0
    assert tree(run.bundle) == before
    assert not (run.path / "scorecard.json").exists()
    result = red_ray("evaluate", run.path, "--test", calibration)
    said(result, 2, "all 24 test rows stand in training")
    assert only_json(red_ray(*given, "--json"))["thresholds"]["n_rows"] == 24


def test_the_runs_own_calibration_rows_count_again(red_ray, run, corpus):
    train = LabelledRows(corpus.texts, corpus.labels)
    known = KnownRows(LabelledRows(corpus.test[24:], corpus.test_labels[24:]), ())
    inputs = Inputs(train, corpus.pool, HiddenLabels({}), calibration=known)
    write_snapshot(run.path, Snapshot(inputs, None))
    promise = only_json(red_ray("thresholds", run.path, *HALF, "--json"))["thresholds"]
    assert (promise["source"], promise["n_rows"]) == ("rows", 24)


def test_without_a_goal_they_are_shown_and_nothing_is_written(red_ray, run):
    before = tree(run.path)
    assert "nothing is escalated" in red_ray("thresholds", run.path).stdout
    assert only_json(red_ray("thresholds", run.path, "--json"))["thresholds"] is None
    assert tree(run.path) == before
    red_ray("thresholds", run.path, *HALF)
    shown = only_json(red_ray("thresholds", run.path, "--json"))
    assert shown["thresholds"]["goals"] == {"escalate_at_most": 0.5}


def test_a_new_goal_takes_the_place_of_the_old_one(red_ray, run):
    red_ray("thresholds", run.path, *HALF)
    other = ("--goal", "none_false_alarm=0.2")
    shown = only_json(red_ray("thresholds", run.path, *other, "--confidence", "0.8", "--json"))
    assert shown["thresholds"]["goals"] == {"none_false_alarm": 0.2}
    assert shown["thresholds"]["confidence"] == 0.8
    assert "none_false_alarm: 0.2" in (run.path / "config.yaml").read_text()
    assert shown["thresholds"]["thresholds"]["escalate"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--goal", "catch_errors"), "--goal takes name=share"),
        (("--goal", "catch_errors=most"), "--goal takes name=share"),
        ((*HALF, "--goal", "escalate_at_most=0.3"), "states escalate_at_most twice"),
        (("--goal", "catch_error=0.9"), "did you mean 'router.goal.catch_errors'"),
        (("--goal", "catch_errors=1.5"), "router.goal.catch_errors"),
        (("--goal", "catch_errors=0.99"), "needs at least 230 errors among"),
        (("--goal", "escalate_at_most=0.01"), "needs at least 230 of the training rows"),
        (("--goal", "none_recall=0.9"), "give --calibration and --calibration-oos"),
        (("--confidence", "0.9"), "nothing to derive"),
        ((*HALF, "--calibration-oos", "x.csv"), "--calibration-oos goes with"),
        ((*HALF, "--calibration", "missing.csv"), "missing.csv"),
    ],
)
def test_mistakes_change_nothing(red_ray, run, arguments, words):
    before = tree(run.path)
    said(red_ray("thresholds", run.path, *arguments), 2, words)
    assert tree(run.path) == before


def test_train_says_at_once_what_its_rows_cannot_promise(
    red_ray, train_file, calibration, tmp_path
):
    result = red_ray(
        *("train", "--train", train_file, "--out", tmp_path / "new"),
        *("--calibration", calibration, "--goal", "precision=0.99"),
    )
    said(result, 2, "precision 0.99", "at least 230 of the calibration rows", "there are 24")
    assert not (tmp_path / "new").exists()
