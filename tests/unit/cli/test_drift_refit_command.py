"""`red-ray drift --refit`: just the experts named, on labels of the file or of a judge."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from red_ray.bundle import load_bundle
from red_ray.cli.loop_thread import LoopThread
from red_ray.core.text import text_key
from red_ray.data.inputs import Inputs, TestRows
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.judges import NONE_OPTION
from red_ray.snapshot import Snapshot, read_snapshot, write_snapshot
from tests.servers import OpenAIServer
from tests.servers.steps import Step
from tests.unit.cli.running import said, tree, write_rows
from tests.unit.training.fakes import make_corpus

LARGE = make_corpus(pool_per_label=40, test_per_label=60)
GROWN = LARGE.names[5]


@pytest.fixture
def run(finished, corpus):
    """A finished run that has a pool, and test rows."""
    train = LabelledRows(corpus.texts, corpus.labels)
    fresh = tuple(text for text in LARGE.pool if text not in corpus.hidden)
    test = TestRows(LabelledRows(corpus.test, corpus.test_labels), (), 0, ())
    write_snapshot(finished.path, Snapshot(Inputs(train, fresh, HiddenLabels({})), test))
    return finished


def recent_rows(model):
    """A label whose share grew to a quarter."""
    known = {text_key(text) for text in model.example_texts}
    rows = [
        (text, label)
        for number, (text, label) in enumerate(zip(LARGE.test, LARGE.test_labels, strict=True))
        if text_key(text) not in known and (label == GROWN or number % 60 < 16)
    ]
    assert Counter(label for _, label in rows)[GROWN] >= 55
    return rows


@pytest.fixture
def model(run):
    return load_bundle(run.bundle)


@pytest.fixture
def labelled(tmp_path, model):
    return write_rows(tmp_path / "labelled.csv", recent_rows(model), "text", "label")


@pytest.fixture
def unlabelled(tmp_path, model):
    rows = [[text] for text, _ in recent_rows(model)]
    return write_rows(tmp_path / "unlabelled.csv", rows, "text")


def only_json(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def weights(model):
    return [expert.weights.tobytes() for expert in model.experts]


def test_just_the_experts_named_are_refitted_on_the_labels_of_the_file(
    red_ray, run, model, labelled
):
    found = only_json(red_ray("drift", run.path, "--recent", labelled, "--refit", "--json"))
    named = [expert["expert"] for expert in found["experts"]]
    assert named == [model.expert_of[model.labels.index(GROWN)]]
    refit = found["refit"]
    assert refit["experts_refitted"] == named
    assert refit["change"] == f"refit {named[0]} after drift"
    after = load_bundle(run.bundle)
    assert after.bundle_id == refit["bundle"] != found["bundle"] == model.bundle_id
    pairs = zip(weights(model), weights(after), strict=True)
    changed = [f"expert-{at:02d}" for at, (a, b) in enumerate(pairs) if a != b]
    assert changed == named
    held = {model.labels[label] for label in model.subsets[int(named[0][-2:])]}
    assert set(refit["n_taught"]) <= held
    assert refit["n_taught"][GROWN] >= 55
    assert len(after.example_texts) == len(model.example_texts) + sum(refit["n_taught"].values())


def test_what_was_learned_is_the_runs_own_from_then_on(red_ray, run, model, labelled):
    only_json(red_ray("drift", run.path, "--recent", labelled, "--refit", "--json"))
    rows, texts = read_snapshot(run.path), set(load_bundle(run.bundle).example_texts)
    new = texts - set(model.example_texts)
    assert new <= set(rows.inputs.train.texts)
    assert {text_key(text) for text in new} <= run.seen()
    assert run.read_json("scorecard.json")["n_test"] > 0


def test_what_the_run_is_measured_by_teaches_nobody(red_ray, run, model, labelled):
    rows = read_snapshot(run.path)
    measured = [row for row in recent_rows(model) if row[1] == GROWN][:10]
    texts, labels = zip(*measured, strict=True)
    test = TestRows(LabelledRows(texts, labels), (), 0, ())
    write_snapshot(run.path, Snapshot(rows.inputs, test))
    result = red_ray("drift", run.path, "--recent", labelled, "--refit", "--json")
    found = only_json(result)
    n_tested = len(set(texts) | (run.tested() & {text_key(text) for text, _ in recent_rows(model)}))
    told = f"left out: {n_tested} are what the run learned, or is tested or calibrated on"
    assert told in result.stderr
    assert found["refit"]["n_taught"][GROWN] >= 45
    assert not set(load_bundle(run.bundle).example_texts) & set(texts)


def test_undo_brings_back_the_bundle(red_ray, run, model, labelled):
    before = tree(run.bundle)
    only_json(red_ray("drift", run.path, "--recent", labelled, "--refit", "--json"))
    assert tree(run.bundle) != before
    undone = only_json(red_ray("label", "undo", run.path, "--json"))
    assert undone["bundle"] == model.bundle_id
    assert tree(run.bundle) == before


def test_as_text_the_report_comes_first_and_then_the_refit(red_ray, run, labelled):
    printed = red_ray("drift", run.path, "--recent", labelled, "--refit").stdout
    report, refit = printed.split("Experts to refit")
    assert report.startswith("drift at level 0.01")
    assert "1 expert refitted" in refit
    assert f"`red-ray label undo {run.path}` goes back" in refit


def test_a_judge_labels_the_most_doubtful_texts_near_them_and_is_paid_once(
    red_ray, run, model, unlabelled
):
    truth = dict(zip(LARGE.test, LARGE.test_labels, strict=True))
    with LoopThread() as loop:
        server = OpenAIServer(lambda _, received: Step(label=truth[received.text]))
        loop.submit(server.__aenter__()).result()
        judge = ("--judge", f"openai:m@{server.base_url}", "--calls", "20")
        args = ("drift", run.path, "--recent", unlabelled, "--refit", *judge, "--json")
        found = only_json(red_ray(*args))
        asked = {one.text for one in server.received}
        only_json(red_ray("label", "undo", run.path, "--json"))
        again = red_ray(*args)
        n_requests = server.n_requests
        loop.submit(server.__aexit__()).result()
    assert len(asked) == 20
    assert n_requests == 20  # the second time from the ledger
    assert "20 answers from the ledger" in again.stderr
    assert only_json(again)["refit"]["bundle"] == found["refit"]["bundle"]
    taught = found["refit"]["n_taught"]
    assert 0 < sum(taught.values()) <= 20
    after = load_bundle(run.bundle)
    assert after.n_seed == model.n_seed  # a judge's labels are no user's
    n_before = len(model.example_texts)
    new = after.example_texts[n_before:]
    assert set(new) <= asked
    names = [after.labels[label] for label in after.example_labels[n_before:]]
    assert names == [truth[text] for text in new]


def test_a_simulated_judge_is_told_the_files_labels_and_named(red_ray, run, labelled):
    args = ("--refit", "--judge", "simulated:1.0", "--calls", "10", "--json")
    result = red_ray("drift", run.path, "--recent", labelled, *args)
    assert only_json(result)["refit"]["experts_refitted"]
    assert "SIMULATED" in result.stderr


def test_without_drift_nothing_is_changed(red_ray, run, tmp_path, model):
    rows = [row for number, row in enumerate(recent_rows(model)) if row[1] != GROWN or number % 4]
    rng = np.random.default_rng(2)
    few = [rows[at] for at in rng.permutation(len(rows))[:20]]
    recent = write_rows(tmp_path / "few.csv", few, "text", "label")
    before = tree(run.bundle)
    result = red_ray("drift", run.path, "--recent", recent, "--refit", "--json")
    assert only_json(result)["refit"] is None
    assert "no expert needs a refit" in result.stderr
    assert tree(run.bundle) == before


# --- mistakes -----------------------------------------------------------------------------------


def test_without_labels_and_without_a_judge_there_is_nothing_to_learn_from(
    red_ray, run, unlabelled
):
    result = red_ray("drift", run.path, "--recent", unlabelled, "--refit")
    said(result, 2, "--refit needs labels", "'label'", "--judge ollama:MODEL --calls 100")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--judge", "neighbours"), "add --refit"),
        (("--set", "judge.top_k=3"), "add --refit"),
        (("--refit", "--set", "judge.top_k=3"), "add --judge SPEC"),
        (("--refit", "--judge", "nobody"), "nobody"),
    ],
)
def test_options_that_do_not_go_together_are_a_mistake(red_ray, run, labelled, args, words):
    said(red_ray("drift", run.path, "--recent", labelled, *args), 2, words)


def test_a_simulated_judge_without_the_truth_is_a_mistake(red_ray, run, unlabelled):
    result = red_ray("drift", run.path, "--recent", unlabelled, "--refit", "--judge", "simulated:1")
    said(result, 2, "only plays one and needs the truth")


def test_labels_of_other_experts_alone_teach_nobody(red_ray, run, tmp_path, model):
    expert = model.expert_of[model.labels.index(GROWN)]
    held = {name for at, name in enumerate(model.labels) if model.expert_of[at] == expert}
    rows = [(text, "" if label in held else label) for text, label in recent_rows(model)]
    recent = write_rows(tmp_path / "others.csv", rows, "text", "label")
    before = tree(run.bundle)
    result = red_ray("drift", run.path, "--recent", recent, "--refit", "--json")
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert f"no recent text is left to teach {expert}; " in last
    assert "are of other experts' labels" in last
    assert tree(run.bundle) == before


@pytest.mark.parametrize("judge", [(), ("--judge", "simulated:1.0")])
def test_texts_that_the_run_is_measured_by_are_named_as_the_reason(
    red_ray, run, model, labelled, judge
):
    rows, measured = read_snapshot(run.path), recent_rows(model)
    texts, labels = zip(*measured, strict=True)
    test = TestRows(LabelledRows(texts, labels), (), 0, ())
    write_snapshot(run.path, Snapshot(rows.inputs, test))
    result = red_ray("drift", run.path, "--recent", labelled, "--refit", *judge)
    assert result.exit_code == 2
    expert = model.expert_of[model.labels.index(GROWN)]
    assert result.stderr.splitlines()[-1] == (
        f"red-ray: no recent text is left to teach {expert}; {len(texts)} are what the run "
        "learned, or is tested or calibrated on"
    )
    assert "requests" not in result.stderr  # nobody was asked


def test_what_a_judge_says_fits_no_label_is_no_unknown_label(red_ray, run, unlabelled):
    truth = dict(zip(LARGE.test, LARGE.test_labels, strict=True))
    fits = iter([True, False] * 5)

    def answer(_, received):
        return Step(label=truth[received.text] if next(fits) else NONE_OPTION)

    with LoopThread() as loop:
        server = OpenAIServer(answer)
        loop.submit(server.__aenter__()).result()
        judge = ("--judge", f"openai:m@{server.base_url}", "--calls", "10")
        result = red_ray("drift", run.path, "--recent", unlabelled, "--refit", *judge, "--json")
        loop.submit(server.__aexit__()).result()
    assert 0 < sum(only_json(result)["refit"]["n_taught"].values()) <= 5
    assert "left out: 5 fit no label" in result.stderr
    assert "red-ray label add" not in result.stderr


def test_a_budget_that_is_used_up_is_named(red_ray, run, labelled):
    judge = ("--refit", "--judge", "simulated:1.0", "--set", "judge.budget_calls=6")
    args = ("drift", run.path, "--recent", labelled, *judge)
    result = red_ray(*args, "--calls", "10", "--json")
    assert only_json(result)["refit"]
    told = "judge.budget_calls=6 is used up (all that the run asked counts), and 4 questions were"
    assert told in result.stderr
    red_ray("label", "undo", run.path)
    other = red_ray(*args, "--calls", "10", "--set", "judge.top_k=2")  # other questions
    assert other.exit_code == 2
    last = other.stderr.splitlines()[-1]
    assert last.startswith("red-ray: judge.budget_calls=6 is used up")
    assert "10 questions were not asked" in last


def test_a_table_may_name_its_columns_otherwise(red_ray, run, tmp_path, model, labelled):
    table = write_rows(tmp_path / "body.csv", recent_rows(model), "body", "topic")
    said(red_ray("drift", run.path, "--recent", table), 2, "has no column 'text'")
    columns = ("--set", "text_column=body", "--set", "label_column=topic")
    found = only_json(red_ray("drift", run.path, "--recent", table, *columns, "--json"))
    assert found == only_json(red_ray("drift", run.path, "--recent", labelled, "--json"))
    refit = only_json(red_ray("drift", run.path, "--recent", table, *columns, "--refit", "--json"))
    assert refit["refit"]["n_taught"][GROWN] >= 55
