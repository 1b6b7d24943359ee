"""What the commands print, and that `--json` prints JSON alone."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pandas as pd
import pytest

from tests.unit.cli.running import said, tree, write_rows


def only_json(result):
    """The document that is all of stdout."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_evaluate_prints_and_keeps_the_scorecard(red_ray, finished, test_file, corpus):
    card = only_json(red_ray("evaluate", finished.path, "--test", test_file, "--json"))
    assert card["n_test"] == len(corpus.test)
    assert card["run"] == str(finished.path)
    kept = finished.read_json("scorecard.json")
    assert kept == {key: card[key] for key in kept}
    assert (finished.path / "report.html").stat().st_size > 1000
    assert "confusions" in finished.read_json("details.json")


def test_evaluate_changes_nothing_of_the_model(red_ray, finished, test_file):
    before = tree(finished.bundle)
    red_ray("evaluate", finished.path, "--test", test_file)
    after = tree(finished.bundle)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"provenance.json"}


def test_evaluate_drops_and_counts_rows_that_training_saw(red_ray, finished, tmp_path, corpus):
    """Defect 3."""
    rows = [*zip(corpus.test, corpus.test_labels, strict=True)]
    seen = [(text, corpus.hidden[text]) for text in corpus.pool[:4]]
    test = write_rows(tmp_path / "leaky.csv", rows + seen, "text", "label")
    card = only_json(red_ray("evaluate", finished.path, "--test", test, "--json"))
    assert card["leaks"] == {"train_test": 0, "train_test_dropped": 4}
    assert card["n_test"] == len(corpus.test)


def test_evaluate_tells_of_labels_that_training_never_saw(red_ray, finished, tmp_path, corpus):
    rows = [*zip(corpus.test, corpus.test_labels, strict=True), ("hello there", "greeting")]
    test = write_rows(tmp_path / "new.csv", rows, "text", "label")
    result = red_ray("evaluate", finished.path, "--test", test, "--json")
    assert only_json(result)["n_unknown_label"] == 1
    assert "1 row carries a label without a training row" in result.stderr
    assert "greeting" in result.stderr


def test_evaluate_scores_texts_that_fit_no_label(red_ray, finished, test_file, tmp_path):
    oos = write_rows(tmp_path / "oos.csv", [["sing a song"], ["who won"]], "text")
    args = ("--test", test_file, "--oos", oos, "--json")
    assert only_json(red_ray("evaluate", finished.path, *args))["none"]["n_oos"] == 2


def test_evaluate_shows_a_table_without_json(red_ray, finished, test_file):
    result = red_ray("evaluate", finished.path, "--test", test_file)
    assert result.exit_code == 0
    for words in ("red_ray", "accuracy", "95 % interval", "flat", "SIMULATED"):
        assert words in result.stdout
    assert "Traceback" not in result.stderr


def test_classify_says_what_it_wrote(red_ray, finished, test_file, tmp_path, corpus):
    target = tmp_path / "done.csv"
    args = ("--input", test_file, "--output", target)
    found = only_json(red_ray("classify", finished.path, *args, "--json"))
    assert found["rows"] == len(corpus.test) == found["accepted"] + found["none"]
    assert found["errors"] == 0
    assert len(found["bundle"]) == 64
    table = pd.read_csv(target)
    assert list(table.input_label) == list(corpus.test_labels)
    again = red_ray("classify", finished.path, *args)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    again = red_ray("classify", finished.path, *args, "--overwrite")
    assert f"{len(corpus.test)} rows" in again.stdout


def test_classify_never_writes_over_its_input(red_ray, finished, test_file):
    before = test_file.read_bytes()
    args = ("--input", test_file, "--output", test_file, "--overwrite")
    assert red_ray("classify", finished.path, *args).exit_code == 2
    assert test_file.read_bytes() == before


def test_classify_keeps_rows_without_a_text(red_ray, finished, tmp_path):
    source = write_rows(tmp_path / "in.csv", [["family0 topic01", "1"], ["", "2"]], "text", "id")
    target = tmp_path / "out.csv"
    args = ("--input", source, "--output", target, "--json")
    assert only_json(red_ray("classify", finished.path, *args))["errors"] == 1
    assert list(pd.read_csv(target).error.fillna("")) == ["", "empty text"]


def test_report_names_the_page(red_ray, finished):
    found = only_json(red_ray("report", finished.path, "--json"))
    assert Path(found["report"]).read_text().startswith("<!")


@pytest.fixture
def no_training(monkeypatch):
    """The run itself needs Ray: here only what is printed of it."""
    seen = {}
    result = {
        "run": "x",
        "bundle": "b" * 64,
        "estimate": {"accuracy": 0.5, "ece": 0.1, "brier": 0.2, "log_likelihood": -1.0},
    }

    def run(output, config, inputs, test, out, **options):
        seen.update(config=config, inputs=inputs, test=test, out=out, **options)
        output.note("beside it")
        return result

    monkeypatch.setattr("red_ray.cli.demo.run_training", run)
    monkeypatch.setattr("red_ray.cli.train.run_training", run)
    return seen


@pytest.mark.parametrize("verb", ["train", "demo"])
def test_json_stands_alone_on_stdout(red_ray, no_training, train_file, tmp_path, verb):
    args = ("--train", train_file) if verb == "train" else ()
    result = red_ray(verb, *args, "--out", tmp_path / "out", "--json")
    assert only_json(result)["bundle"] == "b" * 64
    assert "beside it" in result.stderr


def test_the_command_line_wins_over_the_file(red_ray, no_training, train_file, tmp_path):
    """Defect 18: each override reaches the object that the run reads."""
    config = tmp_path / "c.yaml"
    config.write_text("mode: balanced\nseed: 1\nloop: {max_iterations: 4, diversity: 0.25}\n")
    args = ("--config", config, "--seed", 2, "--set", "loop.max_iterations=7", "--mode", "speed")
    red_ray("train", "--train", train_file, "--out", tmp_path / "out", *args)
    found = no_training["config"]
    assert (found.seed, found.mode, found.loop.max_iterations) == (2, "speed", 7)
    assert found.loop.diversity == 0.25
    assert found.expert.kind == "logistic_regression"


def test_the_demo_names_its_judge(red_ray, no_training, tmp_path):
    red_ray("demo", "--out", tmp_path / "out")
    assert no_training["config"].judge.spec == "simulated:0.9"
    assert no_training["test"].n_dropped == 0


# --- a full disk -------------------------------------------------------------------------------


def test_a_full_disk_while_scoring_is_a_failure_that_keeps_the_run(
    red_ray, finished, test_file, monkeypatch
):
    red_ray("evaluate", finished.path, "--test", test_file)
    before = tree(finished.path)
    real = Path.write_text

    def write_text(self, text, **options):
        if "scorecard" in self.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, text, **options)

    monkeypatch.setattr(Path, "write_text", write_text)
    result = red_ray("evaluate", finished.path, "--test", test_file)
    assert result.exit_code == 1
    assert "no space left" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert tree(finished.path) == before


def test_a_full_disk_while_classifying_is_a_failure(
    red_ray, finished, test_file, tmp_path, monkeypatch
):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    target = tmp_path / "done.csv"
    args = ("--input", test_file, "--output", target)
    said(red_ray("classify", finished.path, *args), 1, "no space left")
    assert not list(tmp_path.glob("*done*"))
