"""RUN and outputs at an address; `file://` stands for any."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import pytest

import red_ray as package
from red_ray.bundle import load_bundle
from red_ray.judges import Ledger
from tests.unit.cli.running import said, tree


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where local copies are made; nothing is left in it."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    yield
    assert not list((tmp_path / "tmp").iterdir())


@pytest.fixture
def folder(tmp_path, finished):
    """Where a finished run is, behind its address."""
    finished._release()
    (tmp_path / "there").mkdir()
    return Path(shutil.copytree(finished.path, tmp_path / "there" / "run"))


@pytest.fixture
def run(folder):
    return f"file://{folder}"


def test_evaluate_and_report_write_to_the_address(red_ray, run, folder, test_file):
    done = red_ray("evaluate", run, "--test", test_file, "--json")
    assert done.exit_code == 0, done.output
    card = json.loads(done.stdout)
    assert card["run"] == run
    assert json.loads((folder / "scorecard.json").read_text())["accuracy"] == card["accuracy"]
    assert (folder / "tested.txt").read_text()
    (folder / "report.html").unlink()
    done = red_ray("report", run)
    assert done.stdout.strip() == f"{run}/report.html"
    assert (folder / "report.html").read_text().startswith("<!")


def test_a_command_on_an_address_leaves_what_the_local_one_does(
    red_ray, run, folder, finished, test_file
):
    for place in (run, finished.path):
        done = red_ray("evaluate", place, "--test", test_file)
        assert done.exit_code == 0, done.output
    here, there = tree(finished.path), tree(folder)
    assert here.keys() == there.keys() - {".owner"}


def test_thresholds_are_shown_from_an_address(red_ray, run):
    done = red_ray("thresholds", run, "--json")
    assert json.loads(done.stdout)["run"] == run


def test_a_model_loads_from_an_address(run, folder):
    bundle_id = load_bundle(folder / "bundle").bundle_id
    assert package.load(run).bundle_id == bundle_id
    assert package.load(f"{run}/bundle").bundle_id == bundle_id


@pytest.mark.parametrize("name", ["out.csv", "out"])
def test_classify_writes_to_an_address_what_it_writes_to_a_disk(
    red_ray, run, tmp_path, test_file, name, monkeypatch
):
    monkeypatch.setattr("red_ray.batch.shards.CHUNK_ROWS", 5)
    monkeypatch.setattr("red_ray.batch.shards.SHARD_ROWS", 10)
    local, there = tmp_path / name, tmp_path / "there" / name
    for target in (local, f"file://{there}"):
        done = red_ray("classify", run, "--input", test_file, "--output", target)
        assert done.exit_code == 0, done.output
        assert f"written to {target}" in done.stdout
    read = pd.read_csv if there.suffix else pd.read_parquet
    pd.testing.assert_frame_equal(read(there), read(local))
    assert not there.with_name(f"{name}.parts").exists() or not tree(
        there.with_name(f"{name}.parts")
    )
    target = f"file://{there}"
    again = red_ray("classify", run, "--input", test_file, "--output", target)
    said(again, 2, f"'{target}' is there already; add --overwrite")
    again = red_ray("classify", run, "--input", test_file, "--output", target, "--overwrite")
    assert again.exit_code == 0, again.output
    pd.testing.assert_frame_equal(read(there), read(local))


def test_a_run_at_an_address_needs_a_database_for_its_judge(red_ray, train_file):
    address = "s3://key:secret@bucket/run"
    done = red_ray("train", "--train", train_file, "--out", address, "--judge", "ollama:m")
    line = said(done, 2, "'s3://bucket/run' cannot be a file", "judge.ledger=postgresql://")
    assert "secret" not in line


def test_the_real_mistake_is_told_before_that(red_ray, train_file, tmp_path):
    def told(train, out, judge="ollama:m"):
        done = red_ray("train", "--train", train, "--out", out, "--judge", judge)
        line = said(done, 2)
        assert "postgresql" not in line
        return line

    assert "flie://" in told(train_file, "flie:///tmp/x")
    assert "no.csv" in told(tmp_path / "no.csv", "s3://bucket/run")
    assert "oracle" in told(train_file, "s3://bucket/run", "oracle:m")


def test_a_place_that_cannot_be(red_ray, train_file, monkeypatch):
    monkeypatch.setattr("red_ray.encoding.resolve_spec", lambda config: None)
    for out in ("/proc/x/t3", "file:///proc/x/t3"):
        done = red_ray("train", "--train", train_file, "--out", out)
        said(done, 2, "cannot write '", "/proc/x/t3", "choose another place")


def test_a_judge_asked_about_such_a_run_needs_one_too(red_ray, run, test_file):
    options = ("--escalate-share", "0.2", "--judge", "neighbours")
    done = red_ray("evaluate", run, "--test", test_file, *options)
    assert done.exit_code == 2
    assert "cannot be a file: name a database" in done.stderr


def test_the_ledger_of_a_run_at_an_address_is_its_database(red_ray, run, folder, tmp_path):
    done = red_ray("ledger", "stats", run)
    said(done, 2, f"the run at '{run}' names no ledger")
    ledger = Ledger(tmp_path / "other.sqlite")
    ledger.close()
    text = (folder / "config.yaml").read_text()
    place = str(tmp_path / "other.sqlite")
    (folder / "config.yaml").write_text(text.replace("ledger: null", f"ledger: {place}"))
    done = red_ray("ledger", "stats", run, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["ledger"] == run


def test_a_password_of_a_ledger_is_not_in_its_figures(red_ray, monkeypatch, tmp_path):
    ledger = Ledger(tmp_path / "other.sqlite")
    monkeypatch.setattr("red_ray.cli.ledger.Ledger", lambda _: ledger)
    place = "postgresql://name:pass-word@host/verdicts?sslmode=require"
    done = red_ray("ledger", "stats", place, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["ledger"] == "postgresql://host/verdicts?sslmode=require"


def test_tables_are_read_from_a_disk_and_that_is_said(red_ray, tmp_path):
    done = red_ray("train", "--train", "s3://bucket/train.csv", "--out", tmp_path / "run")
    said(done, 2, "tables are read from a disk: copy it to one first")


def test_a_store_with_a_password_is_refused_and_not_quoted(red_ray, train_file, tmp_path):
    store = "encoder.store=s3://key:pass-word@bucket/store"
    done = red_ray("train", "--train", train_file, "--out", tmp_path / "run", "--set", store)
    line = said(done, 2, "encoder.store", "'s3://bucket/store'", "config.yaml would keep it")
    assert "pass-word" not in line


@pytest.mark.parametrize("verb", ["report", "resume"])
def test_a_run_that_is_not_there_is_told_by_its_address(red_ray, tmp_path, verb):
    address = f"file://{tmp_path}/nowhere"
    said(red_ray(verb, address), 2, f"'{address}' is no ")


@pytest.mark.parametrize(
    "verb",
    [("tune", "sweep.yaml", "--out"), ("ledger", "export", "run", "--output")],
)
def test_where_only_a_path_will_do_an_address_is_refused(red_ray, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    said(red_ray(*verb, "s3://bucket/x"), 2, f"{verb[-1]} takes a path of this machine")
    assert not (tmp_path / "s3:").exists()
