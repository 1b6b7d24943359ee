"""Tables in, tables out: every row comes out, with a decision or the reason why not."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import os
from concurrent.futures import Future

import numpy as np
import pandas as pd
import pytest

from red_ray.batch import COLUMNS, BatchCounts, Job, PartsFolder, classify_here, read_shards
from red_ray.errors import DataError, JudgeUnavailable, StorageError
from tests.unit.training.fakes import FakeEncoder, train

READ = {".csv": pd.read_csv, ".jsonl": lambda path: pd.read_json(path, lines=True)}
READ[".parquet"] = READ[""] = pd.read_parquet
WRITE = {
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
    ".parquet": lambda table, path: table.to_parquet(path, index=False),
}


@pytest.fixture(scope="module")
def model(corpus):
    trained = asyncio.run(train(corpus.job()))
    return dataclasses.replace(trained.model, encoder=FakeEncoder())


@pytest.fixture
def rows(monkeypatch):
    """Sets how many rows a chunk and a shard have."""

    def go(chunk, shard):
        monkeypatch.setattr("red_ray.batch.shards.CHUNK_ROWS", chunk)
        monkeypatch.setattr("red_ray.batch.shards.SHARD_ROWS", shard)

    return go


def classify(model, source, target, *, escalate=None, **options):
    """Classify a table; the counts after each chunk."""
    shards = read_shards(source, model.config.text_column)
    job = Job.of(source, model.bundle_id, top_k=3)
    with PartsFolder.open(target, job, **options) as parts:
        left = (shard for shard in shards if shard.number not in parts.done)
        counts = list(classify_here(model, left, parts, escalate=escalate))
        parts.finish()
    return counts


@pytest.fixture
def classified(model, tmp_path):
    def go(table, kind=".csv", target=".parquet"):
        source, out = tmp_path / f"in{kind}", tmp_path / f"out{target}"
        WRITE[kind](table, source)
        counts = classify(model, source, out, overwrite=True)[-1]
        return READ[target](out), counts

    return go


@pytest.fixture
def table(corpus):
    return pd.DataFrame({"id": range(len(corpus.test)), "text": corpus.test})


@pytest.mark.parametrize("kind", WRITE)
@pytest.mark.parametrize("target", READ)
def test_each_format_gives_the_decisions_of_predict(classified, model, table, kind, target):
    found, counts = classified(table, kind, target)
    decisions = model.predict(list(table.text))
    labels = [None if pd.isna(label) else label for label in found.label]
    assert labels == [one.label for one in decisions]
    assert list(found.decision) == [one.decision for one in decisions]
    np.testing.assert_allclose(found.confidence, [one.confidence for one in decisions], rtol=1e-12)
    assert list(found.expert) == [one.expert for one in decisions]
    first = json.loads(found.alternatives[0]) if target == ".csv" else found.alternatives[0]
    first = json.loads(first) if isinstance(first, str) else first
    assert first == [dataclasses.asdict(one) for one in decisions[0].alternatives]
    kinds = [one.decision for one in decisions]
    assert counts == BatchCounts(len(table), kinds.count("accept"), kinds.count("none"), 0)


def test_the_inputs_columns_are_kept_and_come_first(classified, table):
    found, _ = classified(table, ".parquet")
    assert list(found.columns) == ["id", "text", *(column.name for column in COLUMNS)]
    assert list(found.id) == list(table.id)


def test_a_column_with_the_name_of_an_output_is_renamed(classified, table, corpus):
    table["label"] = corpus.test_labels
    table["input_error"] = "mine"
    table["error"] = "mine too"
    found, _ = classified(table)
    assert list(found.input_label) == list(corpus.test_labels)
    assert set(found.input_error) == {"mine"}
    assert set(found.input_input_error) == {"mine too"}
    assert found.columns.is_unique


def test_rows_without_a_usable_text_stay_with_the_reason(classified, model):
    texts = ["family0 topic01", None, "   ", "x" * (model.config.max_chars + 1), "family1 topic05"]
    found, counts = classified(pd.DataFrame({"text": texts}), ".parquet")
    errors = [None if pd.isna(error) else error for error in found.error]
    assert errors == [None, "no text", "empty text", "over 10000 characters", None]
    for row in (1, 2, 3):
        assert found.iloc[row][["label", "decision", "confidence", "expert"]].isna().all()
    for row in (0, 4):
        assert found.decision[row] in ("accept", "none")
    assert (counts.rows, counts.errors) == (5, 3)


def test_a_table_without_one_usable_text_is_no_error(classified):
    found, counts = classified(pd.DataFrame({"text": [None, " "]}), ".parquet")
    assert counts == BatchCounts(2, 0, 0, 2)
    assert len(found) == 2


def test_numbers_are_texts_too(classified):
    found, counts = classified(pd.DataFrame({"text": [12, 34]}), ".parquet")
    assert counts.errors == 0
    assert found.decision.notna().all()


@pytest.mark.parametrize(("chunk", "shard"), [(1, 2), (3, 6), (5, 20), (48, 48)])
def test_chunks_and_shards_give_the_same_decisions(classified, table, rows, chunk, shard):
    whole, _ = classified(table, ".parquet")
    rows(chunk, shard)
    table.loc[[0, 5], "text"] = ""
    streamed, counts = classified(table, ".parquet")
    assert counts.rows == len(table)
    assert counts.errors == 2
    kept = [row for row in range(len(table)) if row not in (0, 5)]
    exact = ["id", "text", "label", "decision", "expert"]
    pd.testing.assert_frame_equal(streamed.loc[kept, exact], whole.loc[kept, exact])
    np.testing.assert_allclose(streamed.confidence[kept], whole.confidence[kept], rtol=1e-5)


def test_counts_grow_with_each_chunk(model, table, tmp_path, rows):
    rows(20, 40)
    table.to_csv(tmp_path / "in.csv", index=False)
    counts = classify(model, tmp_path / "in.csv", tmp_path / "out.csv")
    assert [one.rows for one in counts] == [20, 40, 48]


def test_nothing_is_left_where_the_source_breaks_off(model, tmp_path):
    source = tmp_path / "in.csv"
    source.write_bytes(b"text\n" + b"hello\n" * 3000 + b"caf\xe9\n")
    target = tmp_path / "out.csv"
    with pytest.raises(DataError, match="not UTF-8"):
        classify(model, source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_full_disk_leaves_the_old_table(model, table, tmp_path, monkeypatch):
    table.to_csv(tmp_path / "in.csv", index=False)
    target = tmp_path / "out.csv"
    target.write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left"):
        classify(model, tmp_path / "in.csv", target, overwrite=True)
    assert target.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "out.csv"}


# --- with a judge ------------------------------------------------------------------------------


def answered(decisions):
    done = Future()
    done.set_result(decisions)
    return done


def test_each_chunk_is_put_to_the_judge_with_its_own_vectors(model, table, tmp_path, rows):
    rows(7, 14)
    table.loc[[3, 20], "text"] = ""
    table.to_csv(tmp_path / "in.csv", index=False)
    given = []

    def escalate(texts, vectors, assessment, decisions):
        given.extend(texts)
        np.testing.assert_array_equal(vectors, FakeEncoder().encode(texts))
        again = model.assess(texts, vectors).label_proba
        np.testing.assert_allclose(assessment.label_proba, again, rtol=1e-5)
        said = zip(texts, decisions, strict=True)
        return answered([dataclasses.replace(one, label=t, source="judge") for t, one in said])

    target = tmp_path / "out.csv"
    counts = classify(model, tmp_path / "in.csv", target, escalate=escalate)
    found = pd.read_csv(target, keep_default_na=False)
    assert given == [text for text in table.text if text]
    assert list(found.label) == list(table.text)
    assert [one.rows for one in counts] == [7, 14, 21, 28, 35, 42, 48]
    assert (counts[-1].by_judge, counts[-1].errors) == (46, 2)


def test_the_next_chunk_is_out_while_one_waits_for_the_judge(model, table, tmp_path, rows):
    """And no more than the next: memory stays bounded however slow the judge is."""
    rows(12, 24)
    table.to_csv(tmp_path / "in.csv", index=False)
    out, most = [], []

    class Slow(Future):
        def result(self, timeout=None):
            most.append(len(out))
            out.pop(0)
            return super().result(timeout)

    def escalate(texts, vectors, assessment, decisions):
        out.append(texts)
        done = Slow()
        done.set_result(list(decisions))
        return done

    classify(model, tmp_path / "in.csv", tmp_path / "out.csv", escalate=escalate)
    assert most == [2, 2, 2, 1]


def test_a_judge_that_fails_leaves_no_table(model, table, tmp_path):
    table.to_csv(tmp_path / "in.csv", index=False)

    def escalate(*_):
        failed = Future()
        failed.set_exception(JudgeUnavailable("nobody there"))
        return failed

    with pytest.raises(JudgeUnavailable, match="nobody there"):
        classify(model, tmp_path / "in.csv", tmp_path / "out.csv", escalate=escalate)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
