"""`red-ray drift`: what it prints, what JSON it gives, and each mistake in one line."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from red_ray import drift
from red_ray.bundle import load_bundle, save_bundle
from red_ray.crossfit_file import NAME, save_crossfit
from red_ray.data.inputs import Inputs
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.evaluation.drift_run import rows_of
from red_ray.run_folder import RunFolder
from red_ray.snapshot import Snapshot, write_snapshot
from tests.unit.cli.running import said, tree, write_rows
from tests.unit.cli.test_mistakes import FILES, bad_file
from tests.unit.training.fakes import FakeValidator, make_corpus, train, truth

LARGE = make_corpus(pool_per_label=40, test_per_label=20)
"""Of the same labels as the shared corpus, with more texts."""


@pytest.fixture
def run(finished, corpus):
    """A finished run that has a pool."""
    train = LabelledRows(corpus.texts, corpus.labels)
    fresh = tuple(text for text in LARGE.pool if text not in corpus.hidden)
    write_snapshot(finished.path, Snapshot(Inputs(train, fresh, HiddenLabels({})), None))
    return finished


@pytest.fixture
def looped(tmp_path):
    """A run whose judge was asked about some of the pool, and recent texts as those."""
    loop = {"max_iterations": 1, "samples_per_iteration": 60}
    job = LARGE.job(loop=loop, judge={"top_k": 2})
    trained = asyncio.run(train(job, FakeValidator(truth(LARGE))))
    run = RunFolder(tmp_path / "looped")
    run.path.mkdir()
    save_bundle(trained.model, run.bundle, {})
    save_crossfit(run.path, trained.model, trained.crossfit)
    rows = LabelledRows(LARGE.texts, LARGE.labels)
    write_snapshot(run.path, Snapshot(Inputs(rows, LARGE.pool, HiddenLabels({})), None))
    recent = write_rows(tmp_path / "recent.csv", [[text] for text in LARGE.test], "text")
    return run, recent


@pytest.fixture
def same(tmp_path):
    """Texts that are drawn as the pool is, with their labels."""
    rows = [*zip(LARGE.test, LARGE.test_labels, strict=True)]
    return write_rows(tmp_path / "same.csv", rows, "text", "label")


@pytest.fixture
def shifted(tmp_path):
    """A new topic among them, and no labels."""
    new = [f"please family9 topic99 stray{i % 6} now topic99{i % 4} x{i}" for i in range(40)]
    return write_rows(tmp_path / "shifted.csv", [[text] for text in (*LARGE.test, *new)], "text")


def only_json(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_texts_as_those_of_the_pool_are_no_drift(red_ray, run, same):
    result = red_ray("drift", run.path, "--recent", same)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("no drift at level 0.01 for the whole report")
    assert "texts of the run's pool" in lines[1]
    assert "on 240 labelled recent texts" in result.stdout
    assert "the run has no goal, so nothing is" in result.stdout
    assert "Experts to refit" not in result.stdout
    assert "that it tripled takes" in lines[-1]


@pytest.mark.parametrize(("given", "is_known"), [("brand_new", False), (LARGE.labels[0], True)])
def test_novel_texts_that_came_with_a_known_label_are_no_new_topic(
    red_ray, run, tmp_path, shifted, given, is_known
):
    texts = shifted.read_text().splitlines()[1:]
    rows = [(text, given if "topic99" in text else "") for text in texts]
    labelled = write_rows(tmp_path / "labelled.csv", rows, "text", "label")
    printed = red_ray("drift", run.path, "--recent", labelled).stdout
    assert ("Novel texts of a known label: " in printed) is is_known
    assert (f"most came as {given}, and are unlike its examples" in printed) is is_known
    assert ("New topic: " in printed) is not is_known


def test_a_new_topic_is_shown_with_its_texts_and_the_experts_to_refit(red_ray, run, shifted):
    printed = red_ray("drift", run.path, "--recent", shifted).stdout
    assert printed.startswith("drift at level 0.01")
    assert "New topic: " in printed
    assert printed.count("“please family9 topic99") == 3
    assert "red-ray label add RUN --name" in printed.split("Experts to refit")[1]
    assert "accuracy:" not in printed


def test_json_stands_alone_on_stdout_and_says_the_same(red_ray, run, shifted):
    found = only_json(red_ray("drift", run.path, "--recent", shifted, "--json"))
    assert found["drift"] is True
    assert found["reference"] == "pool"
    assert found["n_recent"] == 280
    assert found["run"] == str(run.path)
    assert found["topics"][0]["compared"]["is_drift"]
    named = {expert["expert"] for expert in found["experts"]}
    assert named >= set(found["topics"][0]["experts"])
    assert found["accuracy"] is None


def test_a_reference_of_the_users_own_takes_the_pools_place(red_ray, run, shifted, tmp_path):
    new = [f"please family9 topic99 stray{i % 6} now topic99{i % 4} y{i}" for i in range(40)]
    texts = [[text] for text in (*LARGE.pool, *new)]
    given = write_rows(tmp_path / "given.csv", texts, "text")
    found = only_json(red_ray("drift", run.path, "--recent", shifted, "--json"))
    assert found["drift"] is True
    args = ("--recent", shifted, "--reference", given, "--json")
    found = only_json(red_ray("drift", run.path, *args))
    assert found["reference"] == "given"
    assert found["drift"] is False


def test_recent_texts_that_are_the_reference_are_a_mistake(red_ray, run, shifted):
    result = red_ray("drift", run.path, "--recent", shifted, "--reference", shifted)
    said(result, 2, "each of the 280 recent texts stands in what they are held against")


def test_without_rows_the_training_rows_serve_and_that_is_said(red_ray, finished, same):
    result = red_ray("drift", finished.path, "--recent", same, "--json")
    found = only_json(result)
    assert found["reference"] == "cross_fitted"
    assert "label shares cannot be compared" in result.stderr
    assert {one["kind"] for one in found["novelty"].values()} == {"novelty", "none"}


def test_a_stricter_level_and_what_matters_can_be_stated(red_ray, run, shifted):
    args = ("--level", "0.001", "--min-ratio", "1000", "--min-change", "0.5")
    found = only_json(red_ray("drift", run.path, "--recent", shifted, *args, "--json"))
    assert found["settings"]["level"] == 0.001
    assert found["drift"] is False


def test_what_was_left_out_is_said(red_ray, run, tmp_path, corpus):
    texts = [*LARGE.test, LARGE.test[0], "", corpus.texts[0]]
    recent = write_rows(tmp_path / "recent.csv", [[text] for text in texts], "text")
    result = red_ray("drift", run.path, "--recent", recent)
    assert "recent: dropped 1 row" in result.stderr
    assert "recent: left out 1 text that the model learned from" in result.stderr


def test_the_call_says_what_the_command_says(red_ray, run, shifted):
    found = only_json(red_ray("drift", run.path, "--recent", shifted, "--json"))
    texts = shifted.read_text().splitlines()[1:]
    report = drift(run.path, texts)
    assert json.loads(json.dumps(report.to_dict())) == {
        name: value for name, value in found.items() if name not in ("run", "bundle")
    }
    labels = [None] * 240 + ["new"] * 40
    assert drift(run.path, texts, labels=labels).accuracy.unknown == {"new": 40}
    assert not drift(run.path, texts[:240], reference=LARGE.pool).is_drift
    with pytest.raises(TypeError, match="put it into a list"):
        drift(run.path, texts[0])
    with pytest.raises(TypeError, match=r"texts\[1\] is a NoneType"):
        drift(run.path, texts, reference=[texts[0], None])


def test_agreement_with_a_judge_is_not_called_an_estimate(red_ray, run, same):
    printed = red_ray("drift", run.path, "--recent", same).stdout
    assert "the estimate at training was" in printed
    model = replace(load_bundle(run.bundle), labelled_by="judge")
    save_bundle(model, run.bundle, {})
    printed = red_ray("drift", run.path, "--recent", same).stdout
    assert "the estimate at training was" not in printed
    words = "of the labels of its hardest rows, by the judge's labels: no estimate of accuracy"
    assert words in printed


def test_what_the_run_keeps_of_its_cross_fitting_says_what_new_texts_look_like(red_ray, looped):
    """The command takes it from the run's folder; without it, label shares cannot be compared."""
    run, recent = looped
    found = only_json(red_ray("drift", run.path, "--recent", recent, "--json"))
    assert found["drift"] is False
    assert found["sight"] is not None
    (run.path / NAME).unlink()
    found = only_json(red_ray("drift", run.path, "--recent", recent, "--json"))
    assert found["sight"] is None
    assert "label shares are not compared" in found["notes"][-1]


def test_whether_labels_were_changed_is_known_from_the_bundle(run):
    model = load_bundle(run.bundle)
    found = rows_of(run, model)
    assert not found.is_changed
    assert found.snapshot is not None
    save_bundle(model, run.bundle, {"labels_changed": "2026-01-01"})
    assert rows_of(run, model).is_changed


def test_nothing_in_the_run_changes(red_ray, run, same):
    before = tree(run.path)
    red_ray("drift", run.path, "--recent", same)
    assert tree(run.path) == before


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--recent", "--reference"])
@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_table_is_a_mistake(red_ray, run, same, tmp_path, kind, option):
    path = bad_file(tmp_path, kind)
    files = {"--recent": same, option: path}
    line = said(red_ray("drift", run.path, *(x for pair in files.items() for x in pair)), 2)
    assert FILES[kind][0] in line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--level", 0), ("between 0 and 1", "0.0")),
        (("--level", 2), ("between 0 and 1", "2.0")),
        (("--min-ratio", 0.9), ("at least 1", "0.9")),
        (("--min-change", -1), ("0 to 1", "-1.0")),
    ],
)
def test_a_setting_out_of_range_is_a_mistake(red_ray, run, same, args, words):
    said(red_ray("drift", run.path, "--recent", same, *args), 2, *words)


def test_a_folder_that_is_no_run_is_a_mistake(red_ray, tmp_path, same):
    said(red_ray("drift", tmp_path / "nothing", "--recent", same), 2, "is no finished run")


def test_texts_without_a_word_are_a_mistake(red_ray, run, tmp_path):
    recent = write_rows(tmp_path / "recent.csv", [[" "], ["  "]], "text")
    said(red_ray("drift", run.path, "--recent", recent), 2, "holds no usable text", "2 rows")


def test_texts_that_the_model_learned_are_a_mistake(red_ray, run, train_file):
    words = "none of the 60 recent texts is new to the model"
    said(red_ray("drift", run.path, "--recent", train_file), 2, words)


def test_a_reference_that_the_model_learned_is_a_mistake(red_ray, run, same, train_file):
    result = red_ray("drift", run.path, "--recent", same, "--reference", train_file)
    said(result, 2, "the model learned every text of the reference")


def test_a_damaged_snapshot_is_a_mistake(red_ray, run, same):
    (run.path / "inputs.parquet").write_bytes(b"no parquet")
    said(red_ray("drift", run.path, "--recent", same), 2, "is damaged")
