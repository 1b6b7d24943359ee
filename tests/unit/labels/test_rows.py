"""A run's rows follow a change of its labels, whoever labelled them."""

from __future__ import annotations

import pytest

from red_ray.core.text import text_key
from red_ray.data.inputs import Inputs, KnownRows, TestRows
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.labels.rows import told_of_left, with_learned, with_names, with_parts, without_label
from red_ray.snapshot import Snapshot, read_snapshot, write_snapshot

KNOWN = KnownRows(LabelledRows(("k1", "k2"), ("a", "b")), ())
AFTER = KnownRows(LabelledRows(("k2",), ("b",)), ("k1",))


@pytest.fixture
def rows():
    """Labels by rows of the user, of a judge and by their names alone."""
    return Snapshot(
        Inputs(
            train=LabelledRows(("t1", "t2", "t3"), ("a", "a", "b")),
            pool=("p1", "p2"),
            hidden=HiddenLabels.of_texts([("p1", "a"), ("p2", "b")]),
            descriptions={"a": "the first"},
            calibration=KNOWN,
            labels=("a", "b", "c"),
            judged=LabelledRows(("j1", "j2"), ("a", "b")),
        ),
        TestRows(LabelledRows(("x1", "x2", "x3"), ("a", "a", "b")), (), 0, ()),
    )


def test_what_was_learned_stands_with_whose_it_is_and_stays_in_the_pool(rows):
    more = LabelledRows(("p1", "new"), ("d", "b"))
    by_user = with_learned(rows, more, judged=False, descriptions={"d": "the last"}).inputs
    assert by_user.train == LabelledRows(("t1", "t2", "t3", "p1", "new"), (*"aab", "d", "b"))
    assert by_user.judged == rows.inputs.judged
    assert by_user.descriptions == {"a": "the first", "d": "the last"}
    by_judge = with_learned(rows, more, judged=True).inputs
    assert by_judge.judged == LabelledRows(("j1", "j2", "p1", "new"), ("a", "b", "d", "b"))
    assert by_judge.train == rows.inputs.train
    assert by_user.pool == by_judge.pool == rows.inputs.pool
    assert by_user.label_set == by_judge.label_set == {*"abcd"}


def test_a_name_changes_wherever_it_stands(rows):
    found = with_names(rows, {"a": "A"}, None, AFTER).inputs
    assert found.label_set == {"A", "b", "c"}
    assert found.labels == ("A", "b", "c")
    assert found.judged.labels == ("A", "b")
    assert found.train.labels == ("A", "A", "b")
    assert found.calibration == AFTER
    assert with_names(rows, {"c": "C"}, None, None).inputs.unseen == ("C",)


def test_merged_names_are_one(rows):
    found = with_names(rows, {"a": "b", "b": "b", "c": "b"}, None, AFTER).inputs
    assert (found.labels, found.label_set) == (("b",), {"b"})
    assert found.judged.labels == ("b", "b")


def test_a_retired_label_is_nowhere(rows):
    after = without_label(rows, "a", keep_as_none=True, known=AFTER)
    found = after.inputs
    assert found.label_set == {"b", "c"}
    assert found.labels == ("b", "c")
    assert found.judged == LabelledRows(("j2",), ("b",))
    assert (found.calibration, found.descriptions) == (AFTER, {})
    assert found.hidden.of("p1") is None
    assert after.test.out_of_scope == ("x1", "x2")
    assert without_label(rows, "a", keep_as_none=False, known=AFTER).test.out_of_scope == ()


@pytest.fixture
def part_of():
    return {text_key("t1"): "one", text_key("t2"): "two", text_key("j1"): None}


def test_of_a_split_label_the_parts_are_known(rows, part_of):
    found = with_parts(rows, "a", part_of, {"one": "", "two": "second"}, known=AFTER).inputs
    assert found.train == LabelledRows(("t1", "t2", "t3"), ("one", "two", "b"))
    assert found.judged == LabelledRows(("j2",), ("b",))
    assert found.label_set == {"one", "two", "b", "c"}
    assert (found.descriptions, found.calibration) == ({"two": "second"}, AFTER)


def test_rows_that_a_judge_divided_are_the_judges(rows, part_of):
    parts = {"one": "", "two": ""}
    found = with_parts(rows, "a", part_of, parts, known=AFTER, judged=True).inputs
    assert found.train == LabelledRows(("t3",), ("b",))
    assert found.judged == LabelledRows(("t1", "t2", "j2"), ("one", "two", "b"))


def test_a_part_that_only_the_loop_has_rows_of_is_a_label_of_the_run(rows):
    of_user = {text_key(text): "one" for text in ("t1", "t2", "j1")}
    found = with_parts(rows, "a", of_user, {"one": "", "two": ""}, known=AFTER).inputs
    assert "two" in found.label_set


def test_rows_that_a_split_takes_from_what_the_run_is_measured_by_are_told_of(rows, part_of):
    def told(known, *named):
        parts = part_of | dict.fromkeys(map(text_key, named), "one")
        after = with_parts(rows, "a", parts, {"one": "", "two": ""}, known=known)
        return told_of_left(rows, after, "a")

    (line,) = told(AFTER)
    assert line.startswith("2 test rows and 1 calibration row of 'a' left: nobody said")
    (line,) = told(KNOWN, "x1")
    assert line.startswith("1 test row of 'a' left: ")
    assert told(KNOWN, "x1", "x2") == ()


def test_all_of_it_is_kept(rows, tmp_path):
    more = LabelledRows(("p1",), ("d",))
    after = with_learned(with_names(rows, {"a": "A"}, None, AFTER), more, judged=True)
    write_snapshot(tmp_path, after)
    found = read_snapshot(tmp_path)
    assert (found.inputs.judged, found.inputs.labels) == (after.inputs.judged, after.inputs.labels)
    assert (found.inputs.pool, found.inputs.calibration) == (("p1", "p2"), AFTER)
