"""A run's folder: made once, gone on in, never mixed with another run's results."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from red_ray.config import RunConfig, load_config
from red_ray.errors import DataError, OutputError, StorageError
from red_ray.run_folder import RunFolder
from red_ray.types import Iteration

ITERATION = Iteration(
    1, "informative", 10, 7, 2, 1, 0, 11, 0, 67, 90, (0, 2), 0.5, -0.4, 0.8, None, *[0.1] * 5
)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "deep" / "run", RunConfig())


def finish(run):
    run.bundle.mkdir()
    (run.bundle / "manifest.json").write_text("{}")
    for name in ("scorecard.json", "details.json"):
        run.write_json(name, {"accuracy": 1.0})
    (run.path / "report.html").write_text("old")
    run.ledger.write_bytes(b"verdicts")


def test_it_keeps_the_resolved_configuration(tmp_path):
    config = RunConfig(seed=7)
    assert load_config(RunFolder.create(tmp_path / "run", config).path / "config.yaml") == config


def test_iterations_come_back_as_they_were(run):
    run.append(ITERATION)
    run.append(ITERATION)
    assert run.iterations() == [ITERATION, ITERATION]


def test_seen_keys_come_back(run):
    run.write_seen(["b" * 64, "a" * 64])
    assert run.seen() == {"a" * 64, "b" * 64}


def test_a_run_that_was_cut_short_goes_on_with_its_ledger(run):
    run.append(ITERATION)
    run.ledger.write_bytes(b"verdicts")
    again = RunFolder.create(run.path, RunConfig())
    assert again.ledger.read_bytes() == b"verdicts"
    assert again.iterations() == []  # they are run again, from the ledger


def test_an_empty_folder_that_is_there_is_taken(tmp_path):
    assert load_config(RunFolder.create(tmp_path, RunConfig()).path / "config.yaml") == RunConfig()


def test_a_finished_run_is_not_overwritten_by_chance(run):
    finish(run)
    with pytest.raises(OutputError, match="--overwrite"):
        RunFolder.create(run.path, RunConfig())
    assert run.read_json("scorecard.json") == {"accuracy": 1.0}


def test_overwriting_leaves_no_result_of_the_run_before(run):
    """Else a run without test rows would show the scorecard of another model."""
    finish(run)
    again = RunFolder.create(run.path, RunConfig(seed=8), overwrite=True)
    with again.replacing(), pytest.raises(DataError, match="no finished run"):
        RunFolder.open(run.path)
    assert {path.name for path in run.path.iterdir()} == {
        "config.yaml", "iterations.jsonl", "ledger.sqlite",
    }  # fmt: skip
    assert again.ledger.read_bytes() == b"verdicts"


def test_a_failed_overwrite_gives_the_finished_run_back(run):
    finish(run)
    before = {path.name: path.stat().st_size for path in run.path.rglob("*") if path.is_file()}
    again = RunFolder.create(run.path, RunConfig(seed=8), overwrite=True)
    with pytest.raises(KeyboardInterrupt), again.replacing():
        raise KeyboardInterrupt
    after = {path.name: path.stat().st_size for path in run.path.rglob("*") if path.is_file()}
    assert after == before
    assert RunFolder.open(run.path).read_json("scorecard.json") == {"accuracy": 1.0}


def test_what_a_killed_overwrite_had_set_aside_is_found_again(run):
    finish(run)
    RunFolder.create(run.path, RunConfig(seed=8), overwrite=True)
    with pytest.raises(OutputError, match="--overwrite"):
        RunFolder.create(run.path, RunConfig(seed=8))
    assert RunFolder.open(run.path).read_json("scorecard.json") == {"accuracy": 1.0}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_things_is_left_alone(tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="is no run folder"):
        RunFolder.create(tmp_path, RunConfig(), overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["iterations.jsonl", "details.json"])
@pytest.mark.parametrize("content", ["{", "[1]", '{"x": 1}\n{', "\x00"])
def test_a_damaged_record_is_told_in_one_line(run, name, content):
    (run.path / name).write_text(content)
    with pytest.raises(DataError, match=f"{name}.*is damaged"):
        run.iterations() if name == "iterations.jsonl" else run.read_json(name)


def test_a_missing_record_is_told(run):
    with pytest.raises(DataError, match="cannot read"):
        run.seen()


def test_a_full_disk_keeps_what_was_written(run, monkeypatch):
    run.write_json("scorecard.json", {"accuracy": 0.5})
    run.append(ITERATION)

    def full(self, *args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("write_text", "write_bytes", "open"):
        monkeypatch.setattr(Path, name, full)
    with pytest.raises(StorageError, match="no space left"):
        run.write_json("scorecard.json", {"accuracy": 0.9})
    with pytest.raises(StorageError, match="no space left"):
        run.append(ITERATION)
    with pytest.raises(StorageError, match="no space left"):
        run.write_seen(["a"])
    monkeypatch.undo()
    assert run.read_json("scorecard.json") == {"accuracy": 0.5}
    assert run.iterations() == [ITERATION]
