"""What stands around a run: who is heard before it, what is said when it fails, its bill."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from red_ray.cli import running
from red_ray.cli.console import Output
from red_ray.data.inputs import Inputs
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.judges import Ledger
from red_ray.judges.ledger import HumanVerdict, Received, Sent, utc_now
from red_ray.run_folder import RunFolder
from red_ray.snapshot import Snapshot
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
    assert "train again with --overwrite: what was paid for is in the ledger" in said


def test_a_failure_that_can_be_resumed_says_no_such_thing(run, capsys):
    assert fail_in_place_of(run, capsys) == ""


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
    running._evaluated(run, done, run_config(), Snapshot(INPUTS, None))
    return run.read_json("details.json")


def test_a_judge_that_was_asked_before_the_first_round_has_its_bill(run, ledger, trained):
    """Descriptions of labels may use up the budget."""
    sent = Sent("r", "key", "fake", f"{run.run_id}/0", utc_now(), 9, 0.5)
    ledger.write([sent, Received("r", "label", 5, 2, 0.25, 1.0)])
    bill = details(run, trained, judge=object())["bill"]
    assert bill == {"results": {"label": 1}, "tokens": 7, "cost_usd": 0.25}


def test_where_no_judge_was_asked_there_is_no_bill(run, trained):
    assert "bill" not in details(run, trained, judge=None)
    assert not run.ledger.exists()


def test_who_answers_disputed_labels_is_told_how_to_train_on_them(run, capsys):
    run.write_json("details.json", {"n_disputed": 3})
    running._tell_of_disputes(Output(as_json=True), run)
    said = " ".join(capsys.readouterr().err.split())
    assert "3 disputed labels" in said
    assert said.endswith("and train again with --overwrite")
