"""A sweep's folder: who may write in it, what stands there, and what goes on."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from red_ray.data.inputs import KnownRows, TestRows
from red_ray.data.prepare import LabelledRows
from red_ray.errors import ConfigError, DataError, OutputError
from tune.folder import FINISHED, STOPPED, Place, Record, check_own, sweep_folder
from tune.points import Point
from tune.rows import marks_of

MARKS = {"its file": "a", "its rows": "b"}
POINT = Point("model alone", None, 0.0, 0.0, 0.1, None, 0.8, 0.8)


def begin(path, *, resume=False, marks=MARKS):
    with sweep_folder(path, "text of the file", marks, resume=resume) as place:
        return place


def test_a_record_comes_back_as_it_was(tmp_path):
    place = begin(tmp_path / "out")
    record = Record("id", {"a.b": None, "c": 2}, FINISHED, (POINT,), estimated_accuracy=0.9)
    place.write(record)
    assert place.read("id") == record
    assert place.records() == [record]
    assert place.read("other") is None


def test_a_damaged_record_is_told_with_the_remedy(tmp_path):
    place = begin(tmp_path / "out")
    place.write(Record("id", {}, STOPPED))
    (place.path / "trials" / "id.json").write_text("{")
    with pytest.raises(DataError, match=r"is damaged: .*; remove it"):
        place.records()


def test_a_sweep_goes_on_only_where_that_is_asked_for(tmp_path):
    begin(tmp_path / "out")
    with pytest.raises(OutputError, match="holds a sweep: --resume goes on with it"):
        begin(tmp_path / "out")
    assert begin(tmp_path / "out", resume=True).path == tmp_path / "out"


def test_to_resume_what_was_never_begun_begins_it(tmp_path):
    assert begin(tmp_path / "out", resume=True).path.is_dir()


def test_another_sweep_is_refused(tmp_path):
    begin(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"another sweep \(its rows changed"):
        begin(tmp_path / "out", resume=True, marks=MARKS | {"its rows": "c"})


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(OutputError, match="is no sweep's folder"):
        begin(tmp_path, resume=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["letters.txt"]


def test_two_processes_do_not_sweep_in_one_folder(tmp_path):
    out = tmp_path / "out"
    begin(out)
    lock = os.open(out / ".lock", os.O_RDWR)
    child = os.fork()
    if not child:  # locks of one process do not meet each other
        fcntl.lockf(lock, fcntl.LOCK_EX)
        os.kill(os.getpid(), 19)
        os._exit(0)
    try:
        os.waitpid(child, os.WUNTRACED)
        with pytest.raises(OutputError, match="another process is sweeping"):
            begin(out, resume=True)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(lock)


def test_the_chosen_run_knows_what_was_paid_for(tmp_path):
    place = Place(tmp_path)
    target = tmp_path / "chosen" / "ledger.sqlite"
    place.give_ledger(target)
    assert not target.exists()
    with closing(sqlite3.connect(place.ledger)) as paid, paid:
        paid.execute("create table verdicts (key)")
        paid.execute("insert into verdicts values ('mine')")
    place.give_ledger(target)
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("select key from verdicts").fetchall() == [("mine",)]


def test_marks_follow_what_decides_the_results_and_nothing_else(sweep, inputs):
    marks = marks_of(sweep(), inputs, None)
    moved = sweep(concurrent=1, data={"train": Path("moved/train.csv")})
    assert marks == marks_of(moved, inputs, None)
    other = marks_of(sweep(assumed_judge_accuracy=0.8), inputs, None)
    assert marks["its file"] != other["its file"]
    fewer = replace(inputs, pool=inputs.pool[1:])
    assert marks["its rows"] != marks_of(sweep(), fewer, None)["its rows"]


def test_marks_follow_the_rows_that_the_chosen_setting_alone_meets(sweep, inputs):
    rows = LabelledRows(("where is it?",), ("card",))
    none = marks_of(sweep(), inputs, None)
    test = marks_of(sweep(), inputs, TestRows(rows, (), 0, ()))
    more = marks_of(sweep(), inputs, TestRows(rows, ("rain",), 3, ("a note",)))
    assert len({one["its test rows"] for one in (none, test, more)}) == 3
    known = marks_of(sweep(), replace(inputs, calibration=KnownRows(rows, ())), None)
    assert {name for name in none if none[name] != known[name]} == {"its calibration rows"}


def test_a_sweep_over_other_test_rows_is_refused(tmp_path, sweep, inputs):
    begin(tmp_path / "out", marks=marks_of(sweep(), inputs, None))
    rows = TestRows(LabelledRows(("where is it?",), ("card",)), (), 0, ())
    with pytest.raises(ConfigError, match=r"its test rows changed"):
        begin(tmp_path / "out", resume=True, marks=marks_of(sweep(), inputs, rows))


def test_one_setting_is_trained_by_one_at_a_time(tmp_path):
    place, told = Place(tmp_path), []

    def other():
        with place.alone_with("id"):
            told.append("other")

    thread = threading.Thread(target=other)
    with place.alone_with("id"), open(tmp_path / "trials" / "id.lock") as again:
        with pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        thread.start()
        told.append("first")
    thread.join(10)
    assert told == ["first", "other"]
    assert place.records() == []


def test_state_that_others_may_write_is_not_unpickled(tmp_path):
    (tmp_path / "tuner.pkl").write_bytes(b"")
    check_own(tmp_path)
    (tmp_path / "tuner.pkl").chmod(0o666)
    with pytest.raises(ConfigError, match=r"tuner.pkl' can be written by another user"):
        check_own(tmp_path)
