"""`red-ray judge audit`: what it prints, keeps and refuses."""

from __future__ import annotations

import csv
import json

import pytest

from red_ray.judges import Ledger
from tests.unit.cli.running import said, write_rows
from tests.unit.evaluation.auditing import big_corpus

SMALL = ("--set", "audit.size=60", "--set", "router.folds=3")


@pytest.fixture(scope="module")
def rows():
    corpus = big_corpus(per_label=12)
    return list(zip(corpus.texts, corpus.labels, strict=True))


@pytest.fixture
def audit(red_ray, rows, tmp_path):
    """Audits judges in `tmp_path / "audit"`."""
    train = write_rows(tmp_path / "rows.csv", rows, "text", "label")

    def invoke(*args):
        args = (*args, *SMALL, "--out", tmp_path / "audit")
        return red_ray("judge", "audit", "--train", train, *args)

    return invoke


def test_the_tables_rank_the_judges_and_call_simulated_ones_so(audit, tmp_path):
    result = audit("--judge", "simulated:0.2", "--judge", "simulated:1.0")
    assert result.exit_code == 0, result.output
    assert result.stdout.index("1 SIMULATED 1.0") < result.stdout.index("2 SIMULATED 0.2")
    for words in ("ABORT", "95 % interval", "p95", "kappa", "moved", "easy", "provider"):
        assert words in result.stdout
    assert "asking simulated:0.2 (SIMULATED)" in result.stderr
    for name in ("audit.json", "audit.md", "disputed.csv", "ledger.sqlite"):
        assert (tmp_path / "audit" / name).stat().st_size > 0


def test_no_table_is_wider_than_a_terminal(audit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = audit("--judge", "simulated:0.6", "--judge", "simulated:0.95")
    lines = result.stdout.splitlines()[:-1]  # the last names paths
    assert max(map(len, lines)) <= 80
    assert all("…" not in line for line in lines)


def test_json_is_the_report_alone(audit, tmp_path):
    result = audit("--judge", "simulated:0.9", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report == json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert report["judges"][0]["judge"] == "simulated:0.9"
    assert report["suite"]["n"] == 60


def test_the_judge_of_the_configuration_is_audited_where_none_is_named(audit):
    result = audit("--json", "--set", "judge.spec=simulated:0.7")
    assert [one["judge"] for one in json.loads(result.stdout)["judges"]] == ["simulated:0.7"]


def test_an_outcome_of_abort_is_no_failure_of_the_command(audit):
    result = audit("--judge", "simulated:0.0", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["judges"][0]["outcome"] == "ABORT"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "an audit needs a judge: give --judge"),
        (("--judge", "oracle"), "unknown judge 'oracle'"),
        (("--judge", "simulated:2"), "the accuracy must be from 0 to 1"),
        (("--judge", "neighbours", "--set", "audit.held_share=1"), "audit.held_share"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(audit, tmp_path, args, words):
    said(audit(*args), 2, words)
    assert not (tmp_path / "audit").exists()


def test_a_folder_with_other_things_is_not_touched(audit, tmp_path):
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "notes.txt").write_text("mine")
    said(audit("--judge", "neighbours"), 2, "holds something else")
    assert [one.name for one in (tmp_path / "audit").iterdir()] == ["notes.txt"]


def test_disputed_rows_come_back_as_a_persons_answers(audit, red_ray, tmp_path):
    audit("--judge", "simulated:0.3")
    path = tmp_path / "audit" / "disputed.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert rows
    for row in rows:
        row["answer"] = row["model"]
    write_rows(path, [list(row.values()) for row in rows], *rows[0])
    place = tmp_path / "audit" / "ledger.sqlite"
    result = red_ray("ledger", "import", place, "--input", path, "--json")
    assert json.loads(result.stdout)["taken"] == len(rows)
    ledger = Ledger(place)
    people = {one.text: one.label for one in ledger.humans()}
    ledger.close()
    assert people == {row["text"]: row["model"] for row in rows}


def test_answers_that_were_not_imported_outlive_the_next_audit(audit, tmp_path):
    audit("--judge", "simulated:0.3")
    path = tmp_path / "audit" / "disputed.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    rows[0]["answer"] = rows[0]["model"]
    write_rows(path, [list(row.values()) for row in rows], *rows[0])
    filled_in = path.read_bytes()
    result = audit("--judge", "simulated:0.3")
    kept = path.with_name("disputed.1.csv")
    assert kept.read_bytes() == filled_in
    assert f"`red-ray ledger import {path.parent / 'ledger.sqlite'} --input {kept}`" in " ".join(
        result.stderr.split("\n")
    )
    assert audit("--judge", "simulated:0.3").exit_code == 0
    assert not path.with_name("disputed.2.csv").exists()


def test_an_audit_of_other_rows_is_replaced_on_request_alone(audit, red_ray, rows, tmp_path):
    assert audit("--judge", "simulated:0.9").exit_code == 0
    report = tmp_path / "audit" / "audit.json"
    before = report.read_bytes()
    other = write_rows(tmp_path / "other.csv", rows[1:], "text", "label")
    command = ("judge", "audit", "--train", other, "--judge", "simulated:0.9", *SMALL)
    command = (*command, "--out", tmp_path / "audit")
    said(red_ray(*command), 2, "holds an audit of other rows", "add --overwrite")
    assert report.read_bytes() == before
    assert red_ray(*command, "--overwrite").exit_code == 0
    assert report.read_bytes() != before


def test_other_judges_are_asked_about_the_same_rows_without_it(audit):
    for judge in ("simulated:0.9", "simulated:0.8"):
        assert audit("--judge", judge).exit_code == 0
