"""`red-ray classify`, cut short and gone on with, and where it runs."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from red_ray.actors import cluster
from red_ray.actors.batch import n_classifiers
from red_ray.actors.batch_rows import (
    failure,
    finished_shards,
    outcome,
    pack,
    pack_error,
    unpack,
)
from red_ray.batch import BatchCounts, Finished, classify_shard, read_shards
from red_ray.bundle import load_bundle
from red_ray.cli import classifying
from red_ray.errors import ConfigError, DataError, StorageError
from tests.unit.cli.running import said
from tests.unit.training.fakes import FakeEncoder

N_ROWS = 48


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("red_ray.batch.shards.CHUNK_ROWS", 5)
    monkeypatch.setattr("red_ray.batch.shards.SHARD_ROWS", 10)


class Encoder(FakeEncoder):
    """Counts what it encodes; something happens at its nth call."""

    def __init__(self):
        super().__init__()
        self.n_texts = self.n_calls = 0
        self.happens_at = -1
        self.what = None

    def encode(self, texts):
        if self.n_calls == self.happens_at:
            self.what()
        self.n_calls += 1
        self.n_texts += len(texts)
        return super().encode(texts)


def interrupt():
    raise KeyboardInterrupt


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def fill_the_disk():
    raise StorageError("no space left")


@pytest.fixture
def encoder(monkeypatch):
    """The encoder of the model, which may break off."""
    made = Encoder()

    class Loads:
        @staticmethod
        def load(config, *, n_threads=None):
            return made

    monkeypatch.setattr("red_ray.model.SentenceEncoder", Loads)
    return made


@pytest.fixture
def classify(red_ray, finished, test_file, tmp_path):
    def go(*options, target="done.csv"):
        given = ("--input", test_file, "--output", tmp_path / target)
        return red_ray("classify", finished.path, *given, *options)

    return go


def broken_off(classify, encoder, *, by=interrupt, at=5, **where):
    """The command, in whose third shard something happens."""
    encoder.happens_at, encoder.what = encoder.n_calls + at, by
    result = classify(**where)
    encoder.happens_at, encoder.n_texts = -1, 0
    return result


def undisturbed(classify, target):
    """What comes out in one go, as bytes."""
    assert classify("--overwrite", target=target).exit_code == 0


@pytest.mark.parametrize("target", ["done.csv", "done.jsonl", "done.parquet"])
def test_what_was_cut_short_goes_on_to_the_same_bytes(classify, encoder, tmp_path, target):
    undisturbed(classify, f"whole.{target}")
    stopped = broken_off(classify, encoder, target=target)
    assert stopped.exit_code == 130
    line = stopped.stderr.splitlines()[-1]
    assert line.startswith("red-ray: stopped; 20 rows are kept")
    assert "--resume" in line
    assert not (tmp_path / target).exists()
    done = classify("--resume", "--json", target=target)
    found = json.loads(done.stdout)
    assert (found["rows"], found["resumed_rows"]) == (N_ROWS, 20)
    assert encoder.n_texts == N_ROWS - 20
    assert (tmp_path / target).read_bytes() == (tmp_path / f"whole.{target}").read_bytes()
    assert not list(tmp_path.glob("*.parts"))


def test_a_folder_goes_on_too_and_keeps_its_parts(classify, encoder, tmp_path):
    undisturbed(classify, "whole.parquet")
    assert broken_off(classify, encoder, target="done").exit_code == 130
    assert not (tmp_path / "done").exists()
    assert classify("--resume", target="done").exit_code == 0
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "done"), pd.read_parquet(tmp_path / "whole.parquet")
    )
    assert len(list((tmp_path / "done").glob("part-*.parquet"))) == 5


def test_sigterm_keeps_what_is_finished(classify, encoder):
    result = broken_off(classify, encoder, by=terminate)
    assert result.exit_code == 143
    assert "20 rows are kept" in result.stderr.splitlines()[-1]


def test_interrupted_before_anything_is_finished_leaves_nothing(classify, encoder, tmp_path):
    stopped = broken_off(classify, encoder, at=1)
    said(stopped, 130, "stopped", "nothing was finished")
    assert not list(tmp_path.glob("*done*"))


def test_an_unfinished_output_is_refused_in_one_line_that_names_both(classify, encoder):
    broken_off(classify, encoder)
    said(classify(), 2, "unfinished", "--resume", "--overwrite")
    again = classify("--overwrite", "--json")
    assert json.loads(again.stdout)["resumed_rows"] == 0


def test_another_job_is_refused(classify, encoder):
    broken_off(classify, encoder)
    said(classify("--resume", "--top-k", 5), 2, "another job", "top_k 3 and not 5")


def test_a_failure_says_how_to_go_on(classify, encoder):
    result = broken_off(classify, encoder, by=fill_the_disk)
    assert result.exit_code == 1
    assert "--resume" in result.stderr.splitlines()[-2]
    assert result.stderr.splitlines()[-1] == "red-ray: no space left"


def test_going_on_where_nothing_is_begins(classify):
    found = json.loads(classify("--resume", "--json").stdout)
    assert (found["rows"], found["resumed_rows"]) == (N_ROWS, 0)


@pytest.mark.parametrize("inside", ["part-000000.parquet", "."])
def test_the_output_never_replaces_what_is_read(red_ray, classify, finished, tmp_path, inside):
    assert classify(target="done").exit_code == 0
    target, source = tmp_path / "done", tmp_path / "done" / inside
    args = ("--input", source, "--output", target, "--overwrite")
    said(red_ray("classify", finished.path, *args), 2, "holds it")


def test_unfinished_parts_are_no_input_of_their_own_output(
    red_ray, classify, encoder, finished, tmp_path
):
    broken_off(classify, encoder)
    args = ("--input", tmp_path / "done.csv.parts", "--output", tmp_path / "done.csv")
    said(red_ray("classify", finished.path, *args, "--overwrite"), 2, "holds it")


# --- where -------------------------------------------------------------------------------------


@pytest.fixture
def engines(monkeypatch):
    """What the command chose, and nothing done."""
    chosen = []

    class Stop(Exception):
        pass

    def choose(name):
        def go(self, *_):
            chosen.append((name, sum(shard.table.num_rows for shard in self.shards)))
            raise Stop

        return go

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(classifying.Batch, "classify_here", choose("local"))
    monkeypatch.setattr(classifying.Batch, "classify_on_ray", choose("ray"))
    monkeypatch.setattr(classifying, "_ray", lambda: pytest.MonkeyPatch.context())
    monkeypatch.setattr("red_ray.encoding.resolve.choose_device", lambda: "cpu")
    monkeypatch.setattr("red_ray.encoding.encoder.available_processors", lambda: 8)
    return chosen


def test_a_small_table_stays_in_this_process_whole(classify, engines):
    classify()
    assert engines == [("local", N_ROWS)]


@pytest.mark.parametrize(("name", "bound"), [("LOCAL_ROWS", 40), ("LOCAL_BYTES", 100)])
def test_a_large_one_goes_to_ray(classify, engines, monkeypatch, name, bound):
    monkeypatch.setattr(classifying, name, bound)
    classify()
    assert engines[0][0] == "ray"


def test_what_is_finished_does_not_count_for_the_size(classify, encoder, request, monkeypatch):
    broken_off(classify, encoder)
    monkeypatch.setattr(classifying, "LOCAL_ROWS", 30)
    engines = request.getfixturevalue("engines")
    classify("--resume")
    assert engines == [("local", N_ROWS - 20)]


@pytest.mark.parametrize(
    ("n_nodes", "free_cpus", "options", "engine"),
    [
        (1, 2.0, (), "ray"),
        (1, 1.0, (), "local"),
        (2, 1.0, (), "ray"),  # which refuses: this machine is not the one to do it
        (1, 1.0, ("--engine", "ray"), "ray"),
    ],
)
def test_on_a_cluster_every_table_goes_there_but_for_a_busy_machine_of_ones_own(
    classify, engines, monkeypatch, n_nodes, free_cpus, options, engine
):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(cluster, "room", lambda: SimpleNamespace(n_nodes=n_nodes))
    monkeypatch.setattr(cluster, "free_cpus", lambda: free_cpus)
    told = classify(*options).stderr
    assert engines == [(engine, N_ROWS)]
    assert ("at work: without it, then" in told) == (engine == "local")


def test_one_process_feeds_a_graphics_card(classify, engines, monkeypatch):
    monkeypatch.setattr(classifying, "LOCAL_ROWS", 1)
    monkeypatch.setattr("red_ray.encoding.resolve.choose_device", lambda: "cuda")
    classify()
    assert engines[0][0] == "local"


@pytest.mark.parametrize(("n_processors", "engine"), [(1, "local"), (2, "local"), (3, "ray")])
def test_one_process_keeps_two_processors_busy(
    classify, engines, monkeypatch, n_processors, engine
):
    monkeypatch.setattr(classifying, "LOCAL_ROWS", 1)
    monkeypatch.setattr("red_ray.encoding.encoder.available_processors", lambda: n_processors)
    classify()
    assert engines[0][0] == engine


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_the_engine_can_be_named(classify, engines, monkeypatch, engine):
    classify("--engine", engine)
    assert engines[0][0] == engine


def test_the_judge_is_not_asked_from_ray(classify):
    said(classify("--escalate", "--engine", "ray"), 2, "--engine ray")


@pytest.mark.parametrize("n_cpus", [0.0, 1.0, 1.9])
def test_a_cluster_without_a_processor_for_reading_is_refused(n_cpus):
    with pytest.raises(ConfigError, match=f"has {n_cpus:g} free .* at least 2"):
        n_classifiers(n_cpus)


@pytest.mark.parametrize(("n_cpus", "expected"), [(2.0, 1), (3.0, 2), (64.5, 63)])
def test_one_processor_is_always_left_for_reading(n_cpus, expected):
    assert n_classifiers(n_cpus) == expected


# --- what a worker does ------------------------------------------------------------------------


def test_a_shard_travels_as_one_row(tmp_path):
    path = tmp_path / "in.csv"
    pd.DataFrame({"text": [f"t{n}" for n in range(13)]}).to_csv(path, index=False)
    for shard in read_shards(path, "text"):
        row = pack(shard)
        assert row.num_rows == 1
        again = unpack(row)
        assert (again.number, again.is_last) == (shard.number, shard.is_last)
        assert again.table.equals(shard.table)


def test_an_error_of_the_reader_waits_for_the_shards_before_it():
    lost, full = DataError("row 9 is torn"), StorageError("no space left")
    assert str(unpack(pack_error(lost))) == str(lost)
    done = [Finished(number, 1, False, BatchCounts(5)) for number in range(3)]
    rows = [outcome(done[0]), failure(lost, is_unread=True), outcome(done[2])]
    found = finished_shards(rows)
    assert [next(found), next(found)] == [done[0], done[2]]
    with pytest.raises(DataError, match="row 9 is torn"):
        next(found)
    found = finished_shards([outcome(done[0]), failure(full, is_unread=False), outcome(done[2])])
    assert next(found) == done[0]
    with pytest.raises(StorageError, match="no space left"):
        next(found)


def test_a_worker_makes_the_bits_of_this_process(classify, finished, test_file, tmp_path):
    assert classify(target="done").exit_code == 0
    model = replace(load_bundle(finished.bundle), encoder=FakeEncoder())
    folder = tmp_path / "parts"
    folder.mkdir()
    lines = [
        classify_shard(model, shard, folder, top_k=3) for shard in read_shards(test_file, "text")
    ]
    manifest = (tmp_path / "done" / "_manifest.jsonl").read_text().splitlines()
    assert lines == [Finished.from_line(line) for line in manifest]
    for part in folder.iterdir():
        ours = (tmp_path / "done" / part.name).read_bytes()
        assert part.read_bytes() == ours


def test_decisions_are_those_of_predict(classify, finished, test_file, tmp_path, corpus):
    assert classify(target="done.parquet").exit_code == 0
    model = replace(load_bundle(finished.bundle), encoder=FakeEncoder())
    found = pd.read_parquet(tmp_path / "done.parquet")
    decisions = model.predict(list(corpus.test))
    assert list(found.label) == [one.label for one in decisions]
    assert list(found.decision) == [one.decision for one in decisions]
    np.testing.assert_allclose(found.confidence, [one.confidence for one in decisions], rtol=1e-5)
