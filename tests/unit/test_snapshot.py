"""The rows of a run come back as they were, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from red_ray.core.text import text_key
from red_ray.data.inputs import Inputs, KnownRows, TestRows
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.errors import DataError, OutputError
from red_ray.snapshot import ROWS, Snapshot, read_snapshot, write_snapshot

STRANGE = ("\ud800 alone", "None", "nul \x00 in it", "'; --", "line\nline\u2028", "🙂" * 9, " x ")
TRAIN = LabelledRows(STRANGE, ("a", "b", "a", "\udfff", "None", "", "b"))
POOL = ("p1", "p2 \udc00", "p3")
HIDDEN = HiddenLabels.of_texts([("p1", "a"), ("p2 \udc00", "\udfff")])
INPUTS = Inputs(TRAIN, POOL, HIDDEN, {"a": "first \ud800", "b": ""})
TEST = TestRows(LabelledRows(("t", "t"), ("a", "b")), ("o1", "o2"), 7, ())


def back(folder: Path, snapshot: Snapshot) -> Snapshot:
    write_snapshot(folder, snapshot)
    return read_snapshot(folder)


def test_everything_comes_back_in_its_order(tmp_path):
    found = back(tmp_path, Snapshot(INPUTS, TEST))
    assert found == Snapshot(INPUTS, TEST)
    assert found.inputs.seen_keys == INPUTS.seen_keys


def test_calibration_rows_come_back_and_are_seen(tmp_path):
    known = KnownRows(LabelledRows(("c1", "c2 \udc00"), ("a", "b")), ("far",))
    inputs = Inputs(TRAIN, POOL, HIDDEN, calibration=known)
    assert back(tmp_path, Snapshot(inputs, TEST)).inputs.calibration == known
    assert {text_key("c1"), text_key("far")} <= inputs.seen_keys


def test_a_pool_text_without_a_label_comes_back_without_one(tmp_path):
    hidden = back(tmp_path, Snapshot(INPUTS, None)).inputs.hidden
    assert [hidden.of(text) for text in POOL] == ["a", "\udfff", None]


def test_a_run_may_have_neither_pool_nor_test_rows(tmp_path):
    inputs = Inputs(TRAIN, (), HiddenLabels({}))
    assert back(tmp_path, Snapshot(inputs, None)) == Snapshot(inputs, None)


def test_test_rows_may_be_without_texts_that_fit_no_label(tmp_path):
    test = TestRows(TEST.rows, (), 0, ())
    assert back(tmp_path, Snapshot(INPUTS, test)).test == test


def test_a_change_of_labels_may_take_the_last_test_row(tmp_path):
    test = TestRows(LabelledRows((), ()), ("o1",), 3, ())
    found = back(tmp_path, Snapshot(INPUTS, test))
    assert found.test == test  # what fits no label sets no threshold still
    assert found.scored is None
    assert Snapshot(INPUTS, TEST).scored == TEST
    assert Snapshot(INPUTS, None).scored is None


def test_a_second_snapshot_replaces_the_first_and_leaves_nothing_beside(tmp_path):
    write_snapshot(tmp_path, Snapshot(INPUTS, TEST))
    inputs = Inputs(TRAIN, ("other",), HiddenLabels({}))
    assert back(tmp_path, Snapshot(inputs, None)).inputs.pool == ("other",)
    assert [path.name for path in tmp_path.iterdir()] == [ROWS]


def test_a_folder_without_one_is_told(tmp_path):
    with pytest.raises(DataError, match="was stopped before it began; run the training again"):
        read_snapshot(tmp_path)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        write_snapshot(tmp_path / "missing", Snapshot(INPUTS, None))


@pytest.fixture
def written(tmp_path):
    write_snapshot(tmp_path, Snapshot(INPUTS, TEST))
    return tmp_path / ROWS


def read_damaged(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged \(\w+\); train again") as caught:
        read_snapshot(path.parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet" * 99])
def test_a_file_of_something_else_is_told_in_one_line(written, content):
    read_damaged(written, content)


def test_a_file_that_was_cut_is_told_in_one_line(written):
    whole = written.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        read_damaged(written, whole[: int(len(whole) * share)])


def test_a_changed_bit_in_a_text_is_not_read_as_another_text(written):
    """Bits rot; a run must not go on with other rows than it began with."""
    whole = bytearray(written.read_bytes())
    whole[whole.index(b"nul \x00 in it")] ^= 1
    read_damaged(written, bytes(whole))


def test_any_changed_byte_is_told_or_changes_nothing(written):
    whole = written.read_bytes()
    for at in np.random.default_rng(0).integers(len(whole), size=200):
        changed = bytearray(whole)
        changed[at] ^= 0x55
        written.write_bytes(changed)
        try:
            assert read_snapshot(written.parent) == Snapshot(INPUTS, TEST)
        except DataError as error:
            assert "is damaged" in str(error)  # noqa: PT017 (both ways are right)


@pytest.mark.parametrize("about", [None, b"{}", b"[]", b"{", b'{"descriptions": {}, "test": 1}'])
@pytest.mark.parametrize("columns", [("part", "text", "label"), ("text",)])
def test_a_table_of_another_form_is_told_in_one_line(written, about, columns):
    table = pa.table({name: pa.array([b"train"], pa.binary()) for name in columns})
    if about is not None:
        table = table.replace_schema_metadata({b"red_ray": about})
    pq.write_table(table, written)
    read_damaged(written, written.read_bytes())


def test_labels_without_rows_and_rows_of_a_judge_come_back(tmp_path):
    judged = LabelledRows(("j1", "j2 \udc00"), ("a", "b"))
    inputs = Inputs(TRAIN, POOL, HIDDEN, labels=("a", "z"), judged=judged)
    found = back(tmp_path, Snapshot(inputs, TEST))
    assert found == Snapshot(inputs, TEST)
    assert text_key("j1") in found.inputs.seen_keys
