"""`red-ray label`: a run's labels change, and go back."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil

import pytest

from red_ray.bundle import load_bundle
from red_ray.cli.loop_thread import LoopThread
from red_ray.cli.reading import read_examples
from red_ray.core.text import text_key
from red_ray.crossfit_file import NAME, load_crossfit, save_crossfit
from red_ray.data.inputs import Inputs, KnownRows, TestRows
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.run_folder import RunFolder
from red_ray.snapshot import Snapshot, read_snapshot, write_snapshot
from tests.servers import OpenAIServer, by_text
from tests.unit.cli.running import said, tree, write_rows, write_run
from tests.unit.labels.conftest import HELD, rows_of, trained_without
from tests.unit.training.fakes import FakeValidator, make_corpus, train, truth
from tests.unit.training.test_cold_start import cold_job

NAME_OF_OTHER = "family1_topic04"


@pytest.fixture(scope="session")
def without(corpus):
    return trained_without(corpus, HELD)


def made(path, corpus, trained, *, known=None, test=None):
    """A finished run as `train` leaves it."""
    run = write_run(path, corpus, trained)
    save_crossfit(run.path, trained.model, trained.crossfit)
    names = [
        trained.model.labels[at] for at in trained.model.example_labels[: trained.model.n_seed]
    ]
    train = LabelledRows(trained.model.example_texts[: trained.model.n_seed], tuple(names))
    hidden = HiddenLabels(
        dict(zip(map(text_key, corpus.hidden), corpus.hidden.values(), strict=True))
    )
    inputs = Inputs(train, corpus.pool, hidden, calibration=known)
    write_snapshot(run.path, Snapshot(inputs, test))
    run.write_seen(inputs.seen_keys)
    run.finish()
    run._release()
    return run


@pytest.fixture
def run(tmp_path, corpus, without):
    """Without one of the corpus's labels, whose texts stand in the pool."""
    return made(tmp_path / "held", corpus, without)


@pytest.fixture
def whole(tmp_path, corpus, trained):
    """With all labels, calibration rows and test rows."""
    known = KnownRows(LabelledRows(corpus.test[:24], corpus.test_labels[:24]), ())
    test = TestRows(LabelledRows(corpus.test[24:], corpus.test_labels[24:]), ("sing",), 0, ())
    return made(tmp_path / "whole", corpus, trained, known=known, test=test)


@pytest.fixture
def examples(tmp_path, corpus):
    rows = [[text] for text in rows_of(corpus, HELD)]
    return write_rows(tmp_path / "examples.csv", rows, "text")


@pytest.fixture
def server():
    """A judge that chooses by the text."""
    with LoopThread() as loop:
        served = OpenAIServer(by_text())
        loop.submit(served.__aenter__()).result()
        yield served
        loop.submit(served.__aexit__()).result()


def only_json(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def without_times(found):
    """A run's files but for those that hold a date or are rendered anew."""
    hidden = ("history/", ".lock", "ledger.sqlite")
    return {k: v for k, v in found.items() if not k.startswith(hidden) and k != "report.html"}


def test_a_label_from_a_table_of_examples(red_ray, run, examples, corpus):
    before = load_bundle(run.bundle)
    found = only_json(
        red_ray("label", "add", run.path, "--name", HELD, "--examples", examples, "--json")
    )
    model = load_bundle(run.bundle)
    assert found["bundle"] == model.bundle_id != before.bundle_id
    assert found["change"] == f"add {HELD!r}"
    assert model.labels == (*before.labels, HELD)
    assert 1 <= len(found["experts_refitted"]) <= 4
    assert found["gate_refitted"]
    assert found["seconds"] > 0
    assert found["effect"]["source"] == "cross_fitted"
    assert found["thresholds"] is None
    # The run knows the rows from now on, and keeps what the next change needs.
    rows = read_snapshot(run.path).inputs
    assert [rows.train.texts[i] for i, label in enumerate(rows.train.labels) if label == HELD] == (
        rows_of(corpus, HELD)
    )
    keys = {text_key(text) for text in rows_of(corpus, HELD)}
    assert keys <= run.seen()
    assert load_crossfit(run.path, model) is not None
    assert run.read_json("details.json")["n_train"] == 60
    assert (run.path / "report.html").exists()


def test_what_is_printed_names_the_effect_and_the_way_back(red_ray, run, examples):
    result = red_ray("label", "add", run.path, "--name", HELD, "--examples", examples)
    assert result.exit_code == 0, result.output
    assert "refitted, and the gate" in result.stdout
    assert "the other labels: " in result.stdout
    assert "55 cross-fitted training rows: an estimate" in result.stdout
    assert f"`red-ray label undo {run.path}` goes back" in result.stdout


def test_files_of_experts_that_are_not_concerned_keep_their_bytes(red_ray, run, examples):
    before = tree(run.bundle)
    found = only_json(
        red_ray("label", "add", run.path, "--name", HELD, "--examples", examples, "--json")
    )
    after = tree(run.bundle)
    experts = {name for name in before if name.startswith("experts/expert-")}
    changed = {name.removeprefix("experts/")[:9] for name in experts if before[name] != after[name]}
    assert changed == set(found["experts_refitted"])


def test_undo_brings_back_the_bundle_and_all_that_stood_beside_it(red_ray, whole, tmp_path):
    before = without_times(tree(whole.path))
    old = load_bundle(whole.bundle).bundle_id
    only_json(red_ray("label", "retire", whole.path, NAME_OF_OTHER, "--json"))
    middle = load_bundle(whole.bundle).bundle_id
    only_json(red_ray("label", "rename", whole.path, HELD, "zebra", "--json"))
    found = only_json(red_ray("label", "undo", whole.path, "--json"))
    assert found == {
        "run": str(whole.path),
        "bundle": middle,
        "undone": f"rename {HELD!r} to 'zebra'",
        "n_left": 1,
        "goals": None,
    }
    assert load_bundle(whole.bundle).bundle_id == middle
    shown = red_ray("label", "undo", whole.path)
    assert "undone: retire 'family1_topic04'" in shown.stdout
    assert load_bundle(whole.bundle).bundle_id == old
    after = without_times(tree(whole.path))
    assert {k for k in after if after[k] != before.get(k)} == set()
    assert after.keys() == before.keys()
    said(red_ray("label", "undo", whole.path), 2, "has no earlier labels to go back to")


def test_the_history_lists_what_undo_takes_back_the_last_change_first(red_ray, whole):
    old = load_bundle(whole.bundle)
    assert "no change of labels can be undone" in red_ray("label", "history", whole.path).stdout
    only_json(red_ray("label", "retire", whole.path, NAME_OF_OTHER, "--json"))
    middle = load_bundle(whole.bundle)
    only_json(red_ray("label", "rename", whole.path, HELD, "ze[b]ra", "--json"))
    found = only_json(red_ray("label", "history", whole.path, "--json"))
    now = load_bundle(whole.bundle)
    assert (found["bundle"], found["labels"]) == (now.bundle_id, list(now.labels))
    first, second = found["changes"]
    assert first.pop("when") >= second.pop("when") > "2026"
    assert first == {
        "change": f"rename {HELD!r} to 'ze[b]ra'",
        "bundle": middle.bundle_id,
        "labels": list(middle.labels),
        "n_labels_after": 11,
    }
    assert second == {
        "change": f"retire {NAME_OF_OTHER!r}",
        "bundle": old.bundle_id,
        "labels": list(old.labels),
        "n_labels_after": 11,
    }
    shown = red_ray("label", "history", whole.path).stdout
    assert f"now: 11 labels, bundle {now.bundle_id[:16]}" in shown
    last, one = [line for line in shown.splitlines() if "to 11" in line]
    assert "rename 'family1_topic05' to 'ze[b]ra'" in last
    assert middle.bundle_id[:16] in last
    assert "12 to 11" in one
    # A change that was undone is not in it any more.
    undone = red_ray("label", "undo", whole.path)
    assert undone.exit_code == 0
    assert len(only_json(red_ray("label", "history", whole.path, "--json"))["changes"]) == 1


def test_undo_says_that_thresholds_of_since_are_gone(red_ray, whole):
    goal = ("thresholds", whole.path, "--goal")
    assert red_ray(*goal, "escalate_at_most=0.5").exit_code == 0
    only_json(red_ray("label", "retire", whole.path, NAME_OF_OTHER, "--json"))
    assert red_ray(*goal, "escalate_at_most=0.3").exit_code == 0
    shown = red_ray("label", "undo", whole.path).stdout
    told = "its thresholds of then are back, too (escalate_at_most 0.5); any given since are gone"
    assert told in shown


def test_the_runs_test_rows_are_scored_anew(red_ray, whole):
    only_json(red_ray("label", "retire", whole.path, NAME_OF_OTHER, "--json"))
    card = whole.read_json("scorecard.json")
    rows = read_snapshot(whole.path)
    assert NAME_OF_OTHER not in set(rows.test.rows.labels)
    assert card["n_test"] == len(rows.test.rows)
    assert card["n_labels"] == 11
    assert {row["label"] for row in whole.read_json("details.json")["labels"]} == set(
        load_bundle(whole.bundle).labels
    )


def test_a_retired_labels_rows_may_stay_as_texts_that_fit_none(red_ray, whole, corpus):
    name = "family0_topic00"
    only_json(red_ray("label", "retire", whole.path, name, "--keep-as-none", "--json"))
    rows = read_snapshot(whole.path)
    known = [
        t for t, one in zip(corpus.test[:24], corpus.test_labels[:24], strict=True) if one == name
    ]
    assert rows.inputs.calibration.out_of_scope == tuple(known)
    assert name not in set(rows.inputs.train.labels)
    kept = load_crossfit(whole.path, load_bundle(whole.bundle))
    assert set(rows_of(corpus, name)) <= set(kept.refused.texts)
    # What the model learned from stays known as such.
    assert {text_key(text) for text in rows_of(corpus, name)} <= whole.seen()


def test_labels_merge(red_ray, whole):
    names = (NAME_OF_OTHER, HELD)
    found = only_json(red_ray("label", "merge", whole.path, *names, "--into", "both", "--json"))
    assert found["effect"]["source"] == "rows"
    model, rows = load_bundle(whole.bundle), read_snapshot(whole.path)
    assert "both" in model.labels
    for part in (rows.inputs.train, rows.inputs.calibration.rows, rows.test.rows):
        assert set(part.labels).isdisjoint(names)
        assert set(part.labels) <= set(model.labels)


def test_a_label_is_renamed_everywhere(red_ray, whole, corpus):
    before = load_bundle(whole.bundle)
    found = only_json(
        red_ray(
            *("label", "rename", whole.path, HELD, "zebra"),
            *("--description", "a striped horse", "--json"),
        )
    )
    assert found["experts_refitted"] == []
    assert found["effect"] is None
    model, rows = load_bundle(whole.bundle), read_snapshot(whole.path)
    assert model.labels.index("zebra") == before.labels.index(HELD)
    assert model.descriptions[model.labels.index("zebra")] == "a striped horse"
    assert rows.inputs.descriptions == {"zebra": "a striped horse"}
    assert "zebra" in rows.inputs.train.labels
    assert HELD not in rows.inputs.train.labels
    hidden = [rows.inputs.hidden.of(text) for text in corpus.pool]
    assert "zebra" in hidden
    assert HELD not in hidden


def test_a_label_is_split_by_a_table(red_ray, whole, corpus, tmp_path):
    texts = rows_of(corpus, HELD)
    model = load_bundle(whole.bundle)
    at = model.labels.index(HELD)
    pairs = zip(model.example_texts, model.example_labels, strict=True)
    texts = [text for text, label in pairs if label == at]
    known = read_snapshot(whole.path).inputs.calibration.rows
    apart = [t for t, one in zip(known.texts, known.labels, strict=True) if one == HELD]
    rows = [(text, ("one", "two")[i % 2]) for i, text in enumerate(texts)]
    rows += [(text, "two") for text in apart[:1]]
    table = write_rows(tmp_path / "rows.csv", rows, "text", "label")
    split = ("label", "split", whole.path, HELD, "--into", "one", "--into", "two")
    found = only_json(red_ray(*split, "--rows", table, "--json"))
    model = load_bundle(whole.bundle)
    assert {"one", "two"} <= set(model.labels)
    assert HELD not in model.labels
    assert found["n_labels"] == 13
    known = read_snapshot(whole.path).inputs.calibration.rows
    # What the table says of a calibration row names it, and never makes it an example.
    assert known.labels.count("two") == len(apart[:1])
    assert set(apart).isdisjoint(model.example_texts)


def test_a_judge_finds_a_labels_examples_in_the_pool(red_ray, run, corpus, without):
    added = ("label", "add", run.path, "--name", HELD, "--description", "family1 topic05")
    result = red_ray(*added, "--judge", "simulated:1.0", "--calls", "20", "--json")
    found = only_json(result)
    assert "SIMULATED" in result.stderr
    model = load_bundle(run.bundle)
    texts = model.example_texts[without.model.n_seed :]
    assert texts
    assert {corpus.hidden[text] for text in texts} == {HELD}
    assert model.n_seed == without.model.n_seed
    # The judge's, and still of the pool: what is left of it would tell of other traffic.
    rows = read_snapshot(run.path).inputs
    assert rows.judged == LabelledRows(texts, (HELD,) * len(texts))
    assert HELD not in rows.train.labels
    assert set(texts) <= set(rows.pool) == set(corpus.pool)
    assert found["effect"]["n_rows"] == 55
    # Undone and done again, nothing is paid twice.
    red_ray("label", "undo", run.path)
    again = red_ray(*added, "--judge", "simulated:1.0", "--calls", "20", "--json")
    assert only_json(again)["bundle"] == found["bundle"]
    assert "0 requests, 20 answers from the ledger" in again.stderr


def test_a_judge_splits_a_label(red_ray, whole, server):
    n_seed = load_bundle(whole.bundle).n_seed
    split = ("label", "split", whole.path, HELD, "--into", "one", "--into", "two")
    judge = ("--judge", f"openai:m@{server.base_url}")
    found = only_json(red_ray(*split, *judge, "--json"))
    model = load_bundle(whole.bundle)
    assert {"one", "two"} <= set(model.labels)
    assert found["thresholds"] is None
    # The user's rows of the label are the judge's now, and nobody asked about those it is
    # measured by.
    assert model.n_seed == n_seed - 5
    rows = read_snapshot(whole.path)
    assert set(rows.inputs.judged.labels) <= {"one", "two"}
    assert len(rows.inputs.train) == model.n_seed
    assert len(rows.inputs.judged) == 5
    (told,) = (note for note in found["notes"] if "left: nobody said" in note)
    assert told.startswith(f"4 calibration rows of {HELD!r} left: ")
    n_asked = len(server.received)
    red_ray("label", "undo", whole.path)
    assert only_json(red_ray(*split, *judge, "--json"))["bundle"] == found["bundle"]
    assert len(server.received) == n_asked


def test_calibration_rows_that_left_may_be_given_again(red_ray, whole, server, tmp_path):
    known = read_snapshot(whole.path).inputs.calibration.rows
    split = ("label", "split", whole.path, HELD, "--into", "one", "--into", "two")
    only_json(red_ray(*split, "--judge", f"openai:m@{server.base_url}", "--json"))
    named = [("one" if label == HELD else label) for label in known.labels]
    rows = list(zip(known.texts, named, strict=True))
    table = write_rows(tmp_path / "again.csv", rows, "text", "label")
    goal = ("--goal", "escalate_at_most=0.5", "--calibration", table)
    told = red_ray("thresholds", whole.path, *goal)
    assert "dropped" not in told.stderr
    assert read_snapshot(whole.path).inputs.calibration.rows.labels.count("one") == 4


def test_a_text_that_was_learned_is_not_asked_about_again(red_ray, run, server, without):
    judge = ("--judge", f"openai:m@{server.base_url}", "--calls", "80")
    learned = server.received
    pool = read_snapshot(run.path).inputs.pool
    name = ("--name", "new", "--text", pool[0], "--text", pool[1])
    only_json(red_ray("label", "add", run.path, *name, "--json"))
    assert read_snapshot(run.path).inputs.pool == pool
    red_ray("label", "add", run.path, "--name", "another", *judge)
    asked = {one.text for one in learned}
    assert len(asked) == len(pool) - 2
    assert asked.isdisjoint(pool[:2])


def test_a_label_known_by_its_name_alone_is_renamed_everywhere(red_ray, tmp_path):
    corpus = make_corpus(4, per_label=1, pool_per_label=12)
    job = cold_job(corpus, names=(*corpus.names, "nowhere"))
    run = write_run(
        tmp_path / "cold", corpus, asyncio.run(train(job, FakeValidator(truth(corpus))))
    )
    nothing = LabelledRows((), ())
    inputs = Inputs(nothing, corpus.pool, HiddenLabels({}), labels=job.label_names)
    write_snapshot(run.path, Snapshot(inputs, None))
    run.finish()
    run._release()
    only_json(red_ray("label", "rename", run.path, "nowhere", "elsewhere", "--json"))
    assert load_bundle(run.bundle).unseen == ("elsewhere",)
    assert run.read_json("details.json")["unseen"] == ["elsewhere"]
    assert read_snapshot(run.path).inputs.labels == tuple(sorted((*corpus.names, "elsewhere")))
    warm = read_examples(str(run.path))
    assert len(warm.by_judge) == len(load_bundle(run.bundle).example_texts) - 1


def test_an_older_run_is_changed_all_the_same(red_ray, run, examples):
    (run.path / NAME).unlink()
    result = red_ray("label", "add", run.path, "--name", HELD, "--examples", examples, "--json")
    assert any("cross-fitted anew" in note for note in only_json(result)["notes"])
    assert (run.path / NAME).exists()


def test_thresholds_that_lack_rows_are_called_stale(red_ray, run, examples, corpus, tmp_path):
    pairs = [*zip(corpus.test, corpus.test_labels, strict=True)]
    rows = [(text, label) for text, label in pairs if label != HELD]
    calibration = write_rows(tmp_path / "calibration.csv", rows, "text", "label")
    goal = ("--goal", "escalate_at_most=0.5", "--calibration", calibration)
    assert red_ray("thresholds", run.path, *goal).exit_code == 0
    added = ("label", "add", run.path, "--name", HELD, "--examples", examples)
    result = red_ray(*added)
    assert f"guarantee is stale: no calibration row has the label {HELD!r}" in result.stdout
    shown = red_ray("thresholds", run.path)
    assert "is stale" in shown.stdout
    facts = only_json(red_ray("thresholds", run.path, "--json"))["thresholds"]
    assert HELD in facts["stale"]
    assert "Stale: no calibration row" in (run.path / "report.html").read_text()
    # The same rows again do not mend it.
    again = ("thresholds", run.path, "--goal", "escalate_at_most=0.4")
    assert "is stale" in red_ray(*again).stdout
    # Rows of all labels do.
    everything = write_rows(tmp_path / "all.csv", pairs, "text", "label")
    goal = ("--goal", "escalate_at_most=0.5", "--calibration", everything)
    assert red_ray("thresholds", run.path, *goal).exit_code == 0
    assert "stale" not in red_ray("thresholds", run.path).stdout


def test_a_run_at_an_address_changes_there_and_goes_back(red_ray, run, examples, tmp_path):
    (tmp_path / "there").mkdir()
    there = tmp_path / "there" / "run"
    shutil.copytree(run.path, there)
    old = load_bundle(there / "bundle").bundle_id
    address = f"file://{there}"
    found = only_json(
        red_ray("label", "add", address, "--name", HELD, "--examples", examples, "--json")
    )
    assert load_bundle(there / "bundle").bundle_id == found["bundle"] != old
    assert (there / "history" / "0001" / "entry.json").exists()
    assert not list(there.glob(".*.new"))
    only_json(red_ray("label", "undo", address, "--json"))
    assert load_bundle(there / "bundle").bundle_id == old
    assert not [path for path in (there / "history").rglob("*") if path.is_file()]


def test_a_reader_does_not_fetch_the_history(red_ray, run, examples, tmp_path):
    from red_ray.working_copy import local_folder

    red_ray("label", "add", run.path, "--name", HELD, "--examples", examples)
    with local_folder(f"file://{run.path}") as copy:
        assert (copy / "bundle" / "manifest.json").exists()
        assert not (copy / "history").exists()
        assert not (copy / NAME).exists()


@pytest.mark.parametrize("written", [False, True])
def test_a_kill_in_the_middle_leaves_one_state(red_ray, run, examples, monkeypatch, written):
    old = load_bundle(run.bundle).bundle_id
    with monkeypatch.context() as patch:
        name = "red_ray.history._place" if written else "red_ray.history._keep"

        def killed(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(name, killed)
        added = ("label", "add", run.path, "--name", HELD, "--examples", examples)
        assert red_ray(*added).exit_code == 130
    assert red_ray("report", run.path).exit_code == 0
    model = load_bundle(run.bundle)
    assert (HELD in model.labels) is written
    assert (HELD in read_snapshot(run.path).inputs.train.labels) is written
    if written:
        only_json(red_ray("label", "undo", run.path, "--json"))
        assert load_bundle(run.bundle).bundle_id == old


def test_a_damaged_bundle_can_be_gone_back_from(red_ray, run, examples):
    old = load_bundle(run.bundle).bundle_id
    red_ray("label", "add", run.path, "--name", HELD, "--examples", examples)
    (run.bundle / "manifest.json").unlink()
    only_json(red_ray("label", "undo", run.path, "--json"))
    assert load_bundle(run.bundle).bundle_id == old


def test_a_new_training_forgets_the_history(run, examples, red_ray, without):
    red_ray("label", "add", run.path, "--name", HELD, "--examples", examples)
    new = RunFolder.create(run.path, without.model.config, overwrite=True)
    assert not (run.path / "history").exists()
    assert not (run.path / NAME).exists()
    new._release()


def mistakes(corpus, tmp_path):
    strange = write_rows(tmp_path / "strange.csv", [("x", "zebra")], "text", "label")
    tested = write_rows(tmp_path / "tested.csv", [[corpus.test[30]], ["new"]], "text")
    known = write_rows(tmp_path / "known.csv", [[corpus.test[3]]], "text")
    split = ("split", HELD, "--into", "one", "--into", "two")
    return [
        (("add", "--name", " ", "--text", "x"), "a name that is not empty"),
        (("add", "--name", HELD, "--text", "x"), f"has a label {HELD!r} already"),
        (("add", "--name", "new", "--text", " "), "at least one example"),
        (("add", "--name", "new", "--text", corpus.texts[0]), "is a row of the model already"),
        (("add", "--name", "new", "--examples", tested), "one example is a row that the run was"),
        (("add", "--name", "new", "--examples", known), "tested or calibrated on"),
        (("add", "--name", "new", "--examples", tmp_path / "none.csv"), "none.csv"),
        (("add", "--name", "new", "--text", "x", "--judge", "neighbours"), "drop them"),
        (("add", "--name", "new", "--judge", "zebra"), "unknown judge 'zebra'"),
        (("add", "--name", "new", "--judge", "neighbours"), "a new one has none yet"),
        ((*split, "--judge", "neighbours"), "or say which row is which: --rows F"),
        (("add", "--name", "None", "--text", "x"), "says that no label fits"),
        (
            ("add", "--name", "new", "--examples", strange),
            "1 row is of another label than 'new', the first of 'zebra'",
        ),
        (("add", "--name", "new", "--text", "x", "--set", "judge.top_k=3"), "drop them"),
        (("add", "--name", "new", "--judge", "simulated:1.0"), "gave none of 40 texts the label"),
        (("merge", HELD, "--into", "x"), "a merge takes two labels or more"),
        (("merge", HELD, "zebra", "--into", "x"), "no label 'zebra'"),
        (("merge", HELD, NAME_OF_OTHER, "--into", "family0_topic00"), "already"),
        ((*split[:4],), "give --into twice"),
        ((*split, "--rows", strange), "names the label 'zebra'"),
        ((*split, "--rows", strange, "--judge", "neighbours"), "drop --judge"),
        ((*split, "--judge", "simulated:1.0"), "needs the pool's true labels"),
        (("rename", HELD, NAME_OF_OTHER), "already"),
        (("rename", "family1_topic5", "x"), f"did you mean {HELD!r}"),
        (("retire", "zebra"), "no label 'zebra'"),
        (("undo",), "no earlier labels"),
    ]


def test_mistakes_are_one_line_and_change_nothing(red_ray, whole, corpus, tmp_path):
    before = without_times(tree(whole.path))
    for (verb, *arguments), words in mistakes(corpus, tmp_path):
        result = red_ray("label", verb, whole.path, *arguments)
        assert result.exit_code == 2, (verb, arguments, result.output)
        last = result.stderr.splitlines()[-1]
        assert last.startswith("red-ray: "), result.stderr
        assert words in last, (words, last)
        assert without_times(tree(whole.path)) == before, (verb, arguments)


def test_no_judge_is_paid_for_a_change_that_cannot_be(red_ray, whole, server):
    judge = ("--judge", f"openai:m@{server.base_url}")
    said(red_ray("label", "add", whole.path, "--name", f" {HELD}", *judge), 2, f"a label {HELD!r}")
    for name, words in ((NAME_OF_OTHER, f"a label {NAME_OF_OTHER!r}"), (" ", "is not empty")):
        into = ("--into", "one", "--into", name)
        said(red_ray("label", "split", whole.path, HELD, *into, *judge), 2, words)
    assert server.received == []


def test_no_run_has_no_labels(red_ray, tmp_path):
    for verb in (("undo",), ("retire", "x")):
        said(red_ray("label", verb[0], tmp_path / "none", *verb[1:]), 2, "is no finished run")


def test_without_a_judge_one_must_be_named(red_ray, run):
    result = red_ray("label", "add", run.path, "--name", HELD)
    said(
        *(result, 2, "trained without a judge"),
        f"red-ray label add {run.path} --name {HELD} --judge",
        "or give examples: --examples F or --text T",
    )


@pytest.mark.parametrize("place", ["bundle", ""])
@pytest.mark.parametrize("verb", ["retire", "undo"])
def test_a_bundle_alone_has_no_rows_to_change(red_ray, run, tmp_path, place, verb):
    alone = tmp_path / "alone"
    shutil.copytree(run.bundle, alone / "bundle")
    arguments = (NAME_OF_OTHER,) if verb == "retire" else ()
    result = red_ray("label", verb, alone / place, *arguments)
    said(result, 2, "is a bundle alone", "give the folder that `red-ray train` made")


def test_a_table_may_name_its_columns_otherwise(red_ray, run, corpus, tmp_path):
    rows = [(text, HELD) for text in rows_of(corpus, HELD)]
    table = write_rows(tmp_path / "body.csv", rows, "body", "topic")
    added = ("label", "add", run.path, "--name", HELD, "--examples", table)
    said(red_ray(*added), 2, "has no column 'text'", "set text_column")
    columns = ("--set", "text_column=body", "--set", "label_column=topic")
    only_json(red_ray(*added, *columns, "--json"))
    assert HELD in load_bundle(run.bundle).labels
    # For this table alone: the run reads its own as ever.
    assert load_bundle(run.bundle).config.text_column == "text"


def test_a_split_may_name_its_tables_columns_otherwise(red_ray, run, corpus, tmp_path):
    texts = rows_of(corpus, NAME_OF_OTHER)
    rows = [(text, ("one", "two")[at % 2]) for at, text in enumerate(texts)]
    table = write_rows(tmp_path / "body.csv", rows, "body", "label")
    split = ("label", "split", run.path, NAME_OF_OTHER, "--into", "one", "--into", "two")
    only_json(red_ray(*split, "--rows", table, "--set", "text_column=body", "--json"))
    assert {"one", "two"} <= set(load_bundle(run.bundle).labels)


def test_a_budget_that_is_used_up_is_named(red_ray, run, server):
    added = ("label", "add", run.path, "--name", "new", "--judge", f"openai:m@{server.base_url}")
    budget = ("--set", "judge.budget_calls=7")
    result = red_ray(*added, *budget)
    assert "the judge gave 1 of 7 texts the label" in result.stderr
    told = "judge.budget_calls=7 is used up (all that the run asked counts), and 33 questions were"
    assert told in result.stderr
    assert "--set judge.budget_calls=… for more" in result.stderr
    red_ray("label", "undo", run.path)
    again = red_ray("label", "add", run.path, "--name", "other", *added[5:], *budget)
    said(again, 2, "red-ray: judge.budget_calls=7 is used up", "and 40 questions were not asked")


def test_a_judge_that_is_away_is_told_once_and_with_the_way_on(red_ray, run, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a process of its own
    judge = ("--judge", "openai:m@http://127.0.0.1:9/v1", "--set", "judge.total_time_s=1")
    result = red_ray("label", "add", run.path, "--name", "new", *judge)
    assert result.exit_code == 1
    assert "run the same command again: what was answered is not asked again" in result.stderr
    assert "red-ray resume" not in result.stderr
    assert "judge_away" not in result.stderr


def test_few_texts_that_a_judge_gave_a_label_are_shown(red_ray, run, corpus):
    added = ("label", "add", run.path, "--name", HELD, "--judge", "simulated:1.0")
    found = only_json(red_ray(*added, "--calls", "3", "--description", "family1 topic05", "--json"))
    (caution,) = (note for note in found["notes"] if "the judge gave only" in note)
    texts = [text for text, label in corpus.hidden.items() if label == HELD]
    assert any(repr(text) in caution for text in texts)


def test_a_change_that_was_cut_off_is_finished_aloud(red_ray, run, examples, monkeypatch):
    added = ("label", "add", run.path, "--name", HELD, "--examples", examples)
    with monkeypatch.context() as patch:

        def killed(*_, **__):
            raise KeyboardInterrupt

        patch.setattr("red_ray.history._place", killed)
        assert red_ray(*added).exit_code == 130
    result = red_ray("label", "rename", run.path, HELD, "zebra")
    assert f"finished a change that was cut off: add {HELD!r}" in result.stderr
    assert "cut off" not in red_ray("label", "undo", run.path).stderr
    with monkeypatch.context() as patch:
        patch.setattr("red_ray.history._place", killed)
        assert red_ray("label", "undo", run.path).exit_code == 130
    result = red_ray("label", "undo", run.path)
    assert f"finished an undo that was cut off: add {HELD!r}" in result.stderr
