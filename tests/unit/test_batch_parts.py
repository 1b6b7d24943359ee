"""Parts of an output: what is finished is not done again, and nothing is lost or doubled."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from red_ray.batch import BatchCounts, Finished, Job, PartsFolder, read_shards
from red_ray.batch.parts import JOB, LOCK, MANIFEST, write_part
from red_ray.batch.shards import _numbered
from red_ray.config import parse_config
from red_ray.data.tables import iter_tables
from red_ray.errors import DataError, OutputError, StorageError

N_ROWS, SHARD = 23, 5
N_SHARDS = 5


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("red_ray.batch.shards.SHARD_ROWS", SHARD)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.csv"
    pd.DataFrame({"id": range(N_ROWS), "text": "hello"}).to_csv(path, index=False)
    return path


@pytest.fixture
def job(source):
    return Job.of(source, "b" * 64, top_k=3)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out.csv"


def made(parts, shard):
    """The part of a shard is on the disk, and not yet in the manifest."""
    n_bytes = write_part(parts.path, shard.number, shard.table)
    return Finished(shard.number, n_bytes, shard.is_last, BatchCounts(shard.table.num_rows, 1))


def fill(parts, source, numbers=range(N_SHARDS)):
    for shard in read_shards(source, "text", parts.done):
        if shard.number in numbers:
            parts.add(made(parts, shard))


def cut_short(target, job, source, numbers):
    """A folder as a killed process leaves it; its path."""
    parts = PartsFolder.open(target, job)
    fill(parts, source, numbers)
    path = parts.path
    parts.close()
    return path


def ids(path):
    read = pd.read_csv if path.suffix else pd.read_parquet
    return list(read(path).id.astype(int))


# --- shards ------------------------------------------------------------------------------------


def test_shards_are_fixed_row_ranges_and_the_last_one_knows_it(source):
    shards = list(read_shards(source, "text"))
    assert [shard.number for shard in shards] == [0, 1, 2, 3, 4]
    assert [shard.table.num_rows for shard in shards] == [5, 5, 5, 5, 3]
    assert [shard.is_last for shard in shards] == [False] * 4 + [True]
    assert [shard.number for shard in read_shards(source, "text", {0, 3})] == [1, 2, 4]


def test_a_table_of_whole_shards_has_no_empty_one(tmp_path):
    path = tmp_path / "ten.csv"
    pd.DataFrame({"text": ["x"] * 2 * SHARD}).to_csv(path, index=False)
    assert [shard.is_last for shard in read_shards(path, "text")] == [False, True]


def test_shards_before_an_unreadable_row_are_good(tmp_path):
    def tables():
        yield from (pa.table({"text": ["x"] * SHARD}) for _ in range(2))
        raise DataError("torn")

    shards = _numbered(tables())
    assert [(shard.number, shard.is_last) for shard in (next(shards), next(shards))] == [
        (0, False),
        (1, False),
    ]
    with pytest.raises(DataError, match="torn"):
        next(shards)


# --- the output --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.csv", "out.parquet", "out"])
def test_parts_become_the_output_in_order(source, job, tmp_path, name):
    target = tmp_path / name
    with PartsFolder.open(target, job) as parts:
        for shard in reversed(list(read_shards(source, "text"))):
            parts.add(made(parts, shard))
        parts.finish()
    read = pd.read_csv if name == "out.csv" else pd.read_parquet
    assert list(read(target).id.astype(int)) == list(range(N_ROWS))
    assert not parts.path.exists()


def test_an_output_folder_is_read_by_others_as_its_parts_alone(source, job, tmp_path):
    target = tmp_path / "out"
    with PartsFolder.open(target, job) as parts:
        fill(parts, source)
        parts.finish()
    names = {path.name for path in target.iterdir()}
    assert {JOB, MANIFEST} < names
    assert len(names) == 2 + N_SHARDS
    ours = pa.concat_tables(iter_tables(target, text_column="text", chunk_rows=4))
    theirs = pyarrow.dataset.dataset(target).to_table()
    for table in (ours, theirs, pq.read_table(target)):
        assert table.column("id").to_pylist() == [str(n) for n in range(N_ROWS)]


def test_a_table_keeps_its_types(tmp_path, job):
    columns = {
        "text": pa.array(["a", None], pa.large_string()),
        "at": pa.array([1, 2], pa.timestamp("s", "UTC")),
        "tags": pa.array([["x"], []], pa.list_(pa.string())),
        "kind": pa.array(["u", "v"]).dictionary_encode(),
        "nothing": pa.nulls(2),
    }
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    table = pq.ParquetFile(tmp_path / "in.parquet").read()
    target = tmp_path / "year=2026" / "out.parquet"
    target.parent.mkdir()
    with PartsFolder.open(target, job) as parts:
        n_bytes = write_part(parts.path, 0, table)
        parts.add(Finished(0, n_bytes, True, BatchCounts(2)))
        parts.finish()
    assert pq.ParquetFile(target).read().equals(table)


def test_a_missing_shard_is_never_passed_over(source, job, target):
    with PartsFolder.open(target, job) as parts:
        for numbers in ({0, 2}, {0, 1, 2}):
            fill(parts, source, numbers)
            with pytest.raises(RuntimeError, match="missing"):
                parts.finish()
    assert not target.exists()


def test_a_link_is_not_replaced_but_what_it_points_to(source, job, tmp_path):
    (tmp_path / "far").mkdir()
    link = tmp_path / "out.csv"
    link.symlink_to(tmp_path / "far" / "real.csv")
    with PartsFolder.open(link, job) as parts:
        fill(parts, source)
        parts.finish()
    assert link.is_symlink()
    assert ids(tmp_path / "far" / "real.csv") == list(range(N_ROWS))


# --- going on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.csv", "out"])
def test_going_on_makes_only_what_is_missing(source, job, tmp_path, name):
    target = tmp_path / name
    path = cut_short(target, job, source, {0, 3})
    before = {part.name: part.stat().st_mtime_ns for part in path.glob("part-*")}
    with PartsFolder.open(target, job, resume=True) as parts:
        assert set(parts.done) == {0, 3}
        assert parts.counts == BatchCounts(10, 2)
        fill(parts, source)
        kept = {part.name: part.stat().st_mtime_ns for part in path.glob("part-*")}
        parts.finish()
    assert before.items() < kept.items()
    assert ids(target) == list(range(N_ROWS))


def test_a_torn_line_is_done_again(source, job, target):
    path = cut_short(target, job, source, {0, 1, 2})
    manifest = path / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:-20])
    with PartsFolder.open(target, job, resume=True) as parts:
        assert set(parts.done) == {0, 1}
        fill(parts, source)
        parts.finish()
    assert ids(target) == list(range(N_ROWS))


def test_a_part_without_a_line_is_done_again(source, job, target):
    path = cut_short(target, job, source, {0, 1})
    write_part(path, 2, pa.table({"id": ["99"], "text": ["not of this table"]}))
    with PartsFolder.open(target, job, resume=True) as parts:
        assert set(parts.done) == {0, 1}
        fill(parts, source)
        parts.finish()
    assert ids(target) == list(range(N_ROWS))


@pytest.mark.parametrize("harm", ["gone", "short"])
def test_a_line_without_its_part_is_done_again(source, job, target, harm):
    path = cut_short(target, job, source, {0, 1})
    part = path / "part-000001.parquet"
    if harm == "gone":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-1])
    with PartsFolder.open(target, job, resume=True) as parts:
        assert set(parts.done) == {0}


def test_what_a_kill_left_half_written_goes(source, job, target):
    path = cut_short(target, job, source, {0})
    (path / ".part-000001.parquet.1234abcd").write_bytes(b"half")
    with PartsFolder.open(target, job, resume=True):
        names = {entry.name for entry in path.iterdir()}
    assert names == {JOB, MANIFEST, LOCK, "part-000000.parquet"}


def test_going_on_where_nothing_is_begins(source, job, target):
    with PartsFolder.open(target, job, resume=True) as parts:
        assert not parts.done
        fill(parts, source)
        parts.finish()
    assert ids(target) == list(range(N_ROWS))


def test_a_kill_before_the_job_was_written_is_no_obstacle(job, target):
    folder = target.with_name("out.csv.parts")
    folder.mkdir()
    (folder / LOCK).touch()
    (folder / f".{JOB}").write_text("{")
    PartsFolder.open(target, job).close()


def test_a_kill_between_the_join_and_the_end_joins_again(source, job, target):
    path = cut_short(target, job, source, range(N_SHARDS))
    target.write_text("the parts, joined")
    with PartsFolder.open(target, job, resume=True) as parts:
        parts.finish()
    assert ids(target) == list(range(N_ROWS))
    assert not path.exists()


# --- refusals ----------------------------------------------------------------------------------


def test_an_unfinished_output_is_refused_with_both_ways_out(source, job, target):
    cut_short(target, job, source, {0})
    with pytest.raises(OutputError, match=r"--resume .* --overwrite"):
        PartsFolder.open(target, job)
    with PartsFolder.open(target, job, overwrite=True) as parts:
        assert not parts.done
        assert not list(parts.path.glob("part-*"))


def test_a_finished_output_is_refused_without_a_word_for_it(source, job, target):
    target.write_text("old")
    for resume in (False, True):
        with pytest.raises(OutputError, match="add --overwrite"):
            PartsFolder.open(target, job, resume=resume)
    with PartsFolder.open(target, job, overwrite=True) as parts:
        fill(parts, source)
        assert target.read_text() == "old"
        parts.finish()
    assert ids(target) == list(range(N_ROWS))


def test_a_finished_folder_is_replaced_whole(source, job, tmp_path):
    target = tmp_path / "out"
    for options in ({}, {"overwrite": True}):
        with PartsFolder.open(target, job, **options) as parts:
            fill(parts, source)
            parts.finish()
    with pytest.raises(OutputError, match="add --overwrite"):
        PartsFolder.open(target, job)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out"]
    assert ids(target) == list(range(N_ROWS))


@pytest.mark.parametrize("name", ["notes.txt", "sub"])
def test_a_folder_that_holds_something_else_is_never_replaced(source, job, tmp_path, name):
    target = tmp_path / "out"
    with PartsFolder.open(target, job) as parts:
        fill(parts, source)
        parts.finish()
    (target / name).mkdir()
    with pytest.raises(OutputError, match="something else"):
        PartsFolder.open(target, job, overwrite=True)
    assert (target / name).is_dir()


def test_a_folder_of_the_parts_name_that_is_not_ours_is_never_touched(job, target):
    folder = target.with_name("out.csv.parts")
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputError, match="in the way"):
            PartsFolder.open(target, job, **options)
    assert (folder / "thesis.tex").read_text() == "mine"


def test_another_process_that_writes_the_same_output_is_refused(job, target):
    """The lock is that of a process: another one is needed to meet it."""
    with PartsFolder.open(target, job) as parts:
        parts.add(
            Finished(0, write_part(parts.path, 0, pa.table({"id": [1]})), False, BatchCounts(1))
        )
        child = os.fork()
        if not child:
            try:
                PartsFolder.open(target, job, resume=True)
            except OutputError as error:
                os._exit(0 if "another process" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (parts.path / JOB).exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bundle": "c" * 64}, "another model"),
        ({"top_k": 5}, "top_k 3 and not 5"),
        ({"shard_rows": 7}, "shard_rows"),
        ({"escalation": {"spec": "ollama:m"}}, "no judge"),
    ],
)
def test_another_job_does_not_go_on(source, job, target, change, words):
    path = cut_short(target, job, source, {0})
    with pytest.raises(OutputError, match=words):
        PartsFolder.open(target, replace(job, **change), resume=True)
    assert (path / "part-000000.parquet").exists()


def test_a_changed_input_does_not_go_on(source, job, target):
    cut_short(target, job, source, {0})
    with source.open("a") as file:
        file.write("23,more\n")
    with pytest.raises(OutputError, match="has changed since"):
        PartsFolder.open(target, Job.of(source, "b" * 64, top_k=3), resume=True)


def test_the_judge_is_part_of_a_job_but_its_limits_are_not(source):
    def job(**judge):
        config = parse_config({"judge": {"spec": "ollama:m", **judge}})
        return Job.of(source, "", top_k=3, asking=config)

    assert job(budget_calls=5, concurrency=2, timeout_s=9.0) == job()
    for change in ({"spec": "ollama:n"}, {"question": "verify"}, {"top_k": 4}):
        assert job().differences(job(**change).to_dict()) == ["another judge"]
    plain = Job.of(source, "", top_k=3)
    assert plain.differences(job().to_dict()) == ["a judge was asked"]


def test_a_job_of_a_folder_sees_each_of_its_files(tmp_path):
    for number in range(2):
        pq.write_table(pa.table({"text": ["a"]}), tmp_path / f"{number}.parquet")
    before = Job.of(tmp_path, "", top_k=3)
    assert before.input["files"] == 2
    pq.write_table(pa.table({"text": ["b", "c"]}), tmp_path / "2.parquet")
    assert Job.of(tmp_path, "", top_k=3).differences(before.to_dict())


def test_an_input_that_is_not_there_is_the_users_mistake(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        Job.of(tmp_path / "nowhere.csv", "", top_k=3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("out.doc", "'.doc'"),
        ("no/where.csv", "there is no folder"),
        ("in.csv/x.csv", "cannot write"),
    ],
)
def test_a_place_that_cannot_be_written(source, job, tmp_path, name, words):
    with pytest.raises(OutputError, match=words):
        PartsFolder.open(tmp_path / name, job)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_part_that_another_machine_kept_to_itself_is_refused(job, target):
    with PartsFolder.open(target, job) as parts, pytest.raises(OutputError, match="share"):
        parts.add(Finished(0, 100, True, BatchCounts(5)))


# --- failures ----------------------------------------------------------------------------------


def test_nothing_is_left_where_nothing_was_finished(job, target, tmp_path):
    with pytest.raises(KeyError), PartsFolder.open(target, job):
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_full_disk_leaves_no_half_a_part(source, job, target, monkeypatch):
    with PartsFolder.open(target, job) as parts:
        fill(parts, source, {0})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StorageError, match="no space left"):
                fill(parts, source, {1})
    assert {entry.name for entry in parts.path.iterdir()} == {
        *(JOB, MANIFEST, LOCK),
        "part-000000.parquet",
    }


def test_a_format_that_cannot_hold_the_rows_keeps_the_parts(source, job, tmp_path, monkeypatch):
    monkeypatch.setattr("red_ray.data.writer._XLSX_MAX_ROWS", 10)
    with PartsFolder.open(tmp_path / "out.xlsx", job) as parts:
        fill(parts, source)
        with pytest.raises(OutputError, match="XLSX sheet holds at most"):
            parts.finish()
    assert len(list(parts.path.glob("part-*"))) == N_SHARDS


def full(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "line", ["", "{", "[]", '{"shard": 1}', '{"shard": 1, "bytes": 2, "last": 0, "x": 1}']
)
def test_a_line_that_is_no_line_is_none(line):
    assert Finished.from_line(line) is None


def test_a_line_comes_back(job):
    finished = Finished(7, 123, True, BatchCounts(*range(8)))
    assert Finished.from_line(finished.line()) == finished
    assert json.loads(finished.line())["rows"] == 0
