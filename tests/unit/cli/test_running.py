"""What stands around a run: who is heard before it, what is said when it fails, its bill."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from red_ray.address import Remote
from red_ray.bundle import load_bundle
from red_ray.cli import running
from red_ray.cli.console import Output, guarded
from red_ray.cli.show import show_run
from red_ray.config import changed
from red_ray.core.text import text_key
from red_ray.crossfit_file import load_crossfit
from red_ray.data.inputs import Inputs, TestRows
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.errors import GoalError, OutputError, StorageError
from red_ray.judges import Ledger
from red_ray.judges.ledger import HumanVerdict, Received, Sent, utc_now
from red_ray.run_folder import RunFolder
from red_ray.snapshot import Snapshot, read_snapshot, write_snapshot
from red_ray.training.job import Paraphrase
from red_ray.working_copy import PlaceTaken, at_place
from tests.unit.cli.running import said
from tests.unit.training.fakes import run_config

INPUTS = Inputs(
    LabelledRows(("one", "two", "three", "four"), ("a", "a", "b", "b")), ("five",), HiddenLabels({})
)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", run_config())


@pytest.fixture
def ledger(run):
    opened = Ledger(run.ledger)
    yield opened
    opened.close()


def fail_in_place_of(run, capsys):
    """What is said where training fails in the folder of a run."""
    with pytest.raises(KeyboardInterrupt), running._replacing(Output(as_json=True), run):
        raise KeyboardInterrupt
    return " ".join(capsys.readouterr().err.split())


def test_a_failure_that_leaves_the_run_before_says_that_there_is_nothing_to_resume(run, capsys):
    run.bundle.mkdir()
    (run.bundle / "manifest.json").write_text("{}")
    run.finish()
    again = RunFolder.create(run.path, run_config(), overwrite=True)
    said = fail_in_place_of(again, capsys)
    assert "the finished run that stood here is back" in said
    assert "run the same command again: what was paid for is in the ledger" in said


def test_a_failure_that_can_be_resumed_says_no_such_thing(run, capsys):
    assert fail_in_place_of(run, capsys) == ""


def interrupt(run, send=signal.SIGINT):
    output = Output(as_json=True)
    with guarded(output), running._replacing(output, run):
        os.kill(os.getpid(), send)
        time.sleep(5)


def test_a_goal_that_cannot_be_kept_costs_no_training(run, monkeypatch):
    """The finished run that stood there is not put back over the new one."""
    run.bundle.mkdir()
    (run.bundle / "manifest.json").write_text("old")
    run.finish()

    def trains(output, new, *_, **__):
        new.bundle.mkdir()
        (new.bundle / "manifest.json").write_text("new")
        new.finish()
        return {}, GoalError("too few errors")

    monkeypatch.setattr(running, "check_parts", lambda config, inputs: None)
    monkeypatch.setattr(running, "_train_and_score", trains)
    with pytest.raises(GoalError, match="too few errors; the model is trained and stands in"):
        running.run_training(
            Output(as_json=True),
            run_config(),
            INPUTS,
            None,
            run.path,
            overwrite=True,
            dashboard=False,
        )
    assert (run.bundle / "manifest.json").read_text() == "new"
    assert not list(run.path.glob(".previous"))


@pytest.mark.parametrize("kind", [StorageError, OutputError])
def test_a_trained_run_that_cannot_be_copied_yet_is_not_given_up(run, monkeypatch, capsys, kind):
    """An error would put the run before back in its place."""

    def away():
        raise kind("cannot write")

    monkeypatch.setattr(run, "save", away)
    running._save_now_or_later(Output(as_json=True), run)
    assert "the trained run is not copied yet: cannot write" in capsys.readouterr().err


def test_an_outage_after_training_leaves_the_new_run_to_copy(tmp_path, monkeypatch, trained):
    """And not the finished one that stood there before, though it was set aside."""
    address = f"file://{tmp_path}/there"
    Remote(address).write("config.yaml", b"")
    Remote(address).write("bundle/manifest.json", b"old")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))

    def away(*_):
        raise StorageError("cannot write")

    def trains(*_, **__):
        monkeypatch.setattr(Remote, "upload", away)
        return SimpleNamespace(trained=trained, judge=None, encoder=None)

    monkeypatch.setattr("red_ray.actors.environment.prepare_environment", lambda: None)
    monkeypatch.setattr("red_ray.actors.cluster.ray_session", lambda **_: nullcontext(None))
    monkeypatch.setattr("red_ray.actors.run.train_on_cluster", trains)
    monkeypatch.setattr("red_ray.evaluation.report.write_report", lambda _: None)
    monkeypatch.setattr(running, "check_parts", lambda *_: None)
    monkeypatch.setattr(running, "catch_sigterm", lambda: None)
    with (
        pytest.raises(StorageError, match="what could not be copied is in"),
        at_place(address) as out,
    ):
        running.run_training(
            Output(as_json=True), run_config(), INPUTS, None, out, overwrite=True, dashboard=False
        )
    (kept,) = (tmp_path / "tmp").iterdir()
    assert load_bundle(kept / "bundle").labels == trained.model.labels
    assert load_crossfit(kept, trained.model) is not None
    assert not RunFolder(kept).is_cut_short


def test_a_trained_run_whose_place_was_taken_stops(run, monkeypatch):
    def taken():
        raise PlaceTaken("another process")

    monkeypatch.setattr(run, "save", taken)
    with pytest.raises(PlaceTaken):
        running._save_now_or_later(Output(as_json=True), run)


@pytest.mark.parametrize(("send", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_names_the_command_that_goes_on(run, capsys, send, code):
    write_snapshot(run.path, Snapshot(INPUTS, None))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as ended:
        interrupt(run, send)
    assert ended.value.exit_code == code
    said = capsys.readouterr().err
    assert said == f"red-ray: stopped; `red-ray resume {run.path}` goes on with it\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_where_no_rows_were_written_there_is_nothing_to_go_on_with(run, capsys):
    with pytest.raises(typer.Exit):
        interrupt(run)
    assert "resume" not in capsys.readouterr().err


def answered_table(run):
    (run.path / "disputed.csv").write_text("text,answer\none,b\n")
    return run.path / "disputed.csv"


def test_answers_that_the_ledger_does_not_hold_are_told_of(run, ledger, capsys):
    answered_table(run)
    assert running._has_unheard_answers(run_config(), run.path)
    again, _ = RunFolder.resume(run.path, keep_answers=True)
    running._tell_of_answers(Output(as_json=True), again)
    kept = run.path / "disputed.1.csv"
    told = capsys.readouterr().err
    assert f"kept in {kept}: `red-ray ledger import {run.path} --input {kept}`" in told


def test_imported_answers_need_no_keeping(run, ledger):
    answered_table(run)
    ledger.add_humans([HumanVerdict("one", "b")])
    assert not running._has_unheard_answers(run_config(), run.path)


def loss(before, after, labelled_by="user"):
    first, last = (
        SimpleNamespace(accuracy=accuracy, log_likelihood=likelihood)
        for accuracy, likelihood in (before, after)
    )
    model = SimpleNamespace(labelled_by=labelled_by)
    return SimpleNamespace(first_estimate=first, estimate=last, iterations=(1,), model=model)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ((0.9, -0.3), (0.8, -0.4), "estimated accuracy 90.0% before, 80.0% after"),
        ((0.9871, -0.3), (0.987, -0.4), "estimated log-likelihood -0.300 before, -0.400 after"),
        ((0.8, -0.3), (0.9, -0.4), "estimated log-likelihood -0.300 before, -0.400 after"),
        ((0.9, -0.30001), (0.9, -0.30002), ""),
        ((0.9, -0.3), (0.8, -0.2), ""),
    ],
)
def test_a_loss_is_told_by_the_figure_that_fell(capsys, before, after, told):
    running._warn_of_loss(Output(as_json=True), loss(before, after))
    said = capsys.readouterr().err
    assert told in said
    assert bool(said) == bool(told)


def test_where_no_user_labelled_a_row_nothing_says_that_a_judge_made_it_worse(capsys):
    running._warn_of_loss(Output(as_json=True), loss((0.9, -0.3), (0.7, -0.6), "judge"))
    assert capsys.readouterr().err == ""


SAID = (HumanVerdict("five", "c"), HumanVerdict("fever", "flu"), HumanVerdict("more", "b"))


def gained(heard):
    """Rows that people added, by text."""
    rows = dict(zip(heard.train.texts, heard.train.labels, strict=True))
    return {text: label for text, label in rows.items() if text not in INPUTS.train.texts}


def test_of_a_run_s_own_ledger_every_word_is_heard(run, ledger):
    ledger.add_humans(SAID)
    heard = running.listen_to_people(run_config(), INPUTS, run.path)
    assert gained(heard) == {"five": "c", "fever": "flu", "more": "b"}


def test_of_a_shared_ledger_only_what_concerns_the_run_is_heard(run, ledger, monkeypatch):
    ledger.add_humans(SAID)
    place = "postgresql://somebody@somewhere/verdicts"
    monkeypatch.setattr(running, "Ledger", {place: ledger}.get)
    heard = running.listen_to_people(run_config(judge={"ledger": place}), INPUTS, run.path)
    assert gained(heard) == {"five": "c", "more": "b"}


def details(run, trained, *, judge):
    """What is kept of a run whose loop never came to a round."""
    done = SimpleNamespace(trained=replace(trained, iterations=()), judge=judge, encoder=None)
    config = run_config(judge={"spec": "openai:m@http://host/v1"})
    running._evaluated(run, done, config, Snapshot(INPUTS, None))
    return run.read_json("details.json")


def test_a_judge_that_was_asked_before_the_first_round_has_its_bill(run, ledger, trained):
    """Descriptions of labels may use up the budget."""
    sent = Sent("r", "key", "fake", f"{run.run_id}/0", utc_now(), 9, 0.5)
    ledger.write([sent, Received("r", "label", 5, 2, 0.25, 1.0)])
    kept = details(run, trained, judge=object())
    assert kept["bill"] == {"results": {"label": 1}, "tokens": 7, "cost_usd": 0.25}


def test_without_test_rows_the_judge_s_figures_are_kept_and_shown(run, ledger, trained, capsys):
    sent = Sent("r", "key", "fake", f"{run.run_id}/0", utc_now(), 9, 0.5)
    ledger.write([sent, Received("r", "label", 5, 2, 0.0031, 1.0)])
    judge = details(run, trained, judge=object())["judge"]
    assert (judge["calls"], judge["tokens"], judge["cost_usd"]) == (1, 7, 0.0031)
    result = {"bundle": "b" * 64, "estimate": {"accuracy": 0.9}, "judge": judge}
    show_run(Output(as_json=False), run.path, result)
    told = " ".join(capsys.readouterr().out.split())
    assert "estimated accuracy 90.0%" in told
    assert "judge openai:m@http://host/v1 calls 1 " in told
    assert "cost 0.0031 USD for 7 tokens" in told


def test_what_an_earlier_run_bought_is_told_apart_from_what_this_one_paid(capsys):
    figures = {"labels_per_call": None, "label_precision": None, "n_gold": 0, "results": {}}
    figures |= {"unreadable": 0, "failed": 0, "tokens": 8, "cost_usd": 0.5}
    judge = {"spec": "ollama:m", "calls": 9, "from_ledger": 7, **figures}
    result = {"bundle": "b", "estimate": {"accuracy": 0.9}, "judge": judge}
    show_run(Output(as_json=False), Path("run"), result)
    told = " ".join(capsys.readouterr().out.split())
    assert "calls 9, 7 of them by an earlier run" in told
    assert "0.5000 USD for 8 tokens of this run's own calls" in told


WRITTEN = (
    Paraphrase("says one anew", "a", "one", "ollama:m", learned=True),
    Paraphrase("says three anew \ud83d", "b", "three \ud83d", "ollama:m", learned=False),
)


def test_what_a_judge_wrote_is_kept_for_people_and_apart_from_the_test_rows(run, trained, capsys):
    run.write_seen(INPUTS.seen_keys)
    texts = ("Says one  anew", "says three anew \ud83d", "another")
    test = TestRows(LabelledRows(texts, ("a", "b", "a")), ("says one anew", "odd"), 2, ())
    done = replace(trained, paraphrases=WRITTEN)
    rows = running._without_written(Output(as_json=True), run, done, Snapshot(INPUTS, test))
    assert rows.inputs == INPUTS
    assert rows.test.rows.texts == texts[1:]  # no model learned the second
    assert (rows.test.out_of_scope, rows.test.n_dropped) == (("odd",), 3)
    assert read_snapshot(run.path).test.rows == rows.test.rows
    assert "test rows that a learned paraphrase repeats do not count" in capsys.readouterr().err
    assert run.seen() == INPUTS.seen_keys | {text_key("says one anew")}
    lines = (run.path / "paraphrases.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["learned"] for line in lines] == [True, False]
    told = {"text": "says one anew", "label": "a", "source": "one", "by": "ollama:m"}
    assert json.loads(lines[0]) == told | {"learned": True}


def test_without_paraphrases_nothing_is_written_or_dropped(run, trained):
    rows = Snapshot(INPUTS, None)
    assert running._without_written(Output(as_json=True), run, trained, rows) is rows
    assert not (run.path / "paraphrases.jsonl").exists()


def test_where_no_judge_was_asked_there_is_no_bill(run, trained):
    assert "bill" not in details(run, trained, judge=None)
    assert not run.ledger.exists()


def test_who_answers_disputed_labels_is_told_how_to_train_on_them(run, capsys):
    run.write_json("details.json", {"n_disputed": 3})
    running._tell_of_disputes(Output(as_json=True), run)
    said = " ".join(capsys.readouterr().err.split())
    assert "3 disputed labels" in said
    assert said.endswith("and train again with --overwrite")


def test_a_configuration_that_was_edited_is_told(run, capsys):
    running._tell_of_changes(Output(as_json=True), run, run_config())
    assert capsys.readouterr().err == ""
    edited = changed(run_config(), {"loop": {"max_iterations": 7}, "judge": {"timeout_s": 9}})
    running._tell_of_changes(Output(as_json=True), run, edited)
    told = capsys.readouterr().err
    assert "(loop.max_iterations)" in told  # a limit changes no result
    assert "another one" in told


def test_a_finished_run_is_no_failure_to_resume(red_ray, finished):
    finished.finish()
    told = red_ray("resume", finished.path, "--json")
    assert told.exit_code == 0
    assert "nothing is left to do" in told.stderr
    assert json.loads(told.stdout) == {"run": str(finished.path), "finished": True}


def test_resume_takes_limits_alone(red_ray, run):
    write_snapshot(run.path, Snapshot(INPUTS, None))
    line = said(
        red_ray("resume", run.path, "--set", "loop.max_iterations=3"), 2, "'loop.max_iterations'"
    )
    assert "judge.budget_calls" in line
    said(red_ray("resume", run.path, "--set", "judge.budget_cals=3"), 2, "did you mean")
    assert run.is_cut_short
