"""The rows of a run: what is no mistake is counted and told in one line."""

from __future__ import annotations

import csv

import pytest

from red_ray.config import RunConfig
from red_ray.data.holdout import hold_out
from red_ray.data.inputs import Inputs, read_cold, read_inputs, read_test
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.errors import DataError


@pytest.fixture
def write(tmp_path):
    def go(name, rows, header=("text", "label")):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return go


TRAIN = [("pay a", "pay"), ("pay b", "pay"), ("ship a", "ship"), ("ship b", "ship")]


@pytest.fixture
def read(write):
    def go(rows=TRAIN, pool=None, **config):
        path = write("train.csv", rows)
        return read_inputs(RunConfig(**config), path, pool, None)

    return go


def test_usable_rows_say_nothing(read):
    inputs = read()
    assert (inputs.train.texts, inputs.notes, inputs.pool) == (tuple(t for t, _ in TRAIN), (), ())


def test_repeats_are_one_counted_line(read):
    """Defect 14: no text stands in training twice."""
    inputs = read([*TRAIN, *TRAIN, ("  PAY a", "pay")])
    assert len(inputs.train) == 4
    assert inputs.notes == ("train: dropped 5 rows: a text that stands there before",)


def test_one_text_under_two_labels_keeps_the_first(read):
    """Defect 9."""
    inputs = read([*TRAIN, ("pay a", "ship")])
    assert dict(zip(inputs.train.texts, inputs.train.labels, strict=True))["pay a"] == "pay"
    (line,) = inputs.notes
    assert "dropped 1 row: a text that stands there before with another label" in line


def test_a_label_with_one_example_is_kept_and_named(read):
    inputs = read([*TRAIN, ("refund a", "refund")])
    assert "refund" in inputs.train.labels
    assert inputs.notes == ("train: 1 label has a single row and stays weak: refund",)


def test_many_weak_labels_are_counted(read):
    inputs = read([*TRAIN, *((f"text {i}", f"label{i}") for i in range(5))])
    assert inputs.notes == (
        "train: 5 labels have a single row and stay weak: label0, label1, label2 and 2 more",
    )


def test_rows_without_a_usable_text_or_label_are_dropped_by_reason(read):
    rows = [*TRAIN, ("", "pay"), ("  ", "pay"), ("x" * 30, "pay"), ("pay c", " ")]
    inputs = read(rows, max_chars=20)
    assert len(inputs.train) == 4
    assert inputs.notes == (
        "train: dropped 2 rows: an empty text",
        "train: dropped 1 row: a text longer than max_chars",
        "train: dropped 1 row: no label",
    )


def test_missing_texts_are_dropped(tmp_path):
    path = tmp_path / "train.jsonl"
    lines = [f'{{"text": "{text}", "label": "{label}"}}' for text, label in TRAIN]
    path.write_text(
        "\n".join([*lines, '{"text": null, "label": "pay"}', '{"text": NaN, "label": "pay"}'])
    )
    inputs = read_inputs(RunConfig(), path, None, None)
    assert len(inputs.train) == 4
    (line,) = inputs.notes
    assert line.startswith("train: dropped 2 rows: no text")


@pytest.mark.parametrize("rows", [[], [("",)], [("pay a",)]])
def test_a_pool_without_a_usable_text_is_no_error(read, write, rows):
    inputs = read(pool=write("pool.csv", rows, ("text",)))
    assert inputs.pool == ()
    assert inputs.notes[-1] == ("pool: no usable text, so there is nothing to ask a judge about")


def test_a_pools_labels_are_hidden_and_its_texts_unknown_to_training(read, write):
    pool = write("pool.csv", [("Pay A", "pay"), ("new", "ship"), ("newer", ""), ("new", "ship")])
    inputs = read(pool=pool)
    assert inputs.pool == ("new", "newer")
    assert inputs.hidden.of("new") == "ship"
    assert inputs.hidden.of("newer") is None
    assert len(inputs.hidden) == 1
    assert len(inputs.notes) == 2


def test_rows_that_were_not_drawn_join_the_pool(read):
    rows = [(f"{label} {i}", label) for label in ("pay", "ship") for i in range(5)]
    inputs = read(rows, samples_per_class=2)
    assert sorted(inputs.train.labels) == ["pay", "pay", "ship", "ship"]
    assert set(inputs.train.texts) | set(inputs.pool) == {text for text, _ in rows}
    assert len(inputs.pool) == 6
    assert all(inputs.hidden.of(text) == text.split()[0] for text in inputs.pool)


def test_the_draw_follows_the_seed_alone(read):
    """Defect 22."""
    rows = [(f"{label} {i}", label) for label in ("pay", "ship") for i in range(20)]
    drawn = [read(rows, samples_per_class=3, seed=seed).train.texts for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_test_rows_keep_away_from_training_and_pool(read, write):
    """Defect 3."""
    inputs = read(pool=write("pool.csv", [("waiting",)], ("text",)))
    test = write("test.csv", [("PAY  a", "pay"), ("Waiting", "ship"), ("fresh", "ship")])
    rows = read_test(RunConfig(), inputs.seen_keys, frozenset({"pay", "ship"}), test=test)
    assert rows.rows.texts == ("fresh",)
    assert rows.n_dropped == 2


def test_unknown_labels_stay_and_are_told(read, write):
    test = write("test.csv", [("fresh", "ship"), ("strange", "alien")])
    rows = read_test(RunConfig(), frozenset(), frozenset({"pay", "ship"}), test=test)
    assert len(rows.rows) == 2
    assert rows.notes == (
        "test: 1 row carries a label without a training row, and counts as an error: alien",
    )


def test_out_of_scope_texts_need_no_label(read, write):
    oos = write("oos.csv", [("sing",), ("pay a",), ("sing",)], ("text",))
    test = write("test.csv", [("fresh", "ship")])
    inputs = read()
    labels = frozenset({"pay", "ship"})
    rows = read_test(RunConfig(), inputs.seen_keys, labels, test=test, out_of_scope=oos)
    assert rows.out_of_scope == ("sing",)
    assert len(rows.notes) == 2


def test_test_rows_that_were_all_seen_are_a_mistake(read, write):
    inputs = read()
    test = write("test.csv", TRAIN)
    with pytest.raises(DataError, match="all 4 test rows stand in training, pool or calibration"):
        read_test(RunConfig(), inputs.seen_keys, frozenset({"pay", "ship"}), test=test)


def test_descriptions_are_read_by_label(write):
    train = write("train.csv", TRAIN)
    described = write(
        "labels.csv", [(" pay ", "about money"), ("ship", "")], ("label", "description")
    )
    inputs = read_inputs(RunConfig(), train, None, described)
    assert inputs.descriptions == {"pay": "about money"}


def test_a_label_that_is_described_twice_is_a_mistake(write):
    train = write("train.csv", TRAIN)
    rows = [("ship", "parcels"), ("pay", "money"), (" ship", "again")]
    table = write("labels.csv", rows, ("label", "description"))
    with pytest.raises(DataError, match="describes the label 'ship' twice; leave one of them"):
        read_inputs(RunConfig(), train, None, table)
    with pytest.raises(DataError, match="describes the label 'ship' twice; leave one of them"):
        read_cold(RunConfig(), table, None)


def test_a_column_is_asked_for_by_what_names_it(write):
    train = write("train.csv", TRAIN)
    rows = [("pay", "x"), ("ship", "y")]
    table = write("labels.csv", rows, ("name", "told"))
    with pytest.raises(DataError, match=r"no column 'label'.* set label_column, or name"):
        read_cold(RunConfig(), table, None)
    with pytest.raises(DataError, match=r"no column 'description'.*'told'; name the column"):
        read_inputs(RunConfig(), train, None, write("told.csv", rows, ("label", "told")))


def test_held_out_rows_are_of_every_label_and_leave_the_training_rows():
    texts = tuple(f"text {number}" for number in range(40))
    rows = LabelledRows(texts, tuple("abcd"[number % 4] for number in range(40)))
    inputs, test = hold_out(Inputs(rows, (), HiddenLabels({})), 0.2, seed=1)
    assert len(test.rows) == 8
    assert set(test.rows.labels) == set("abcd")
    assert set(test.rows.texts).isdisjoint(inputs.train.texts)
    assert len(inputs.train) == 32
    again, _ = hold_out(Inputs(rows, (), HiddenLabels({})), 0.2, seed=1)
    assert again == inputs


@pytest.mark.parametrize("header", [("label", "description"), ("label",)])
def test_labels_alone_may_begin_a_run_described_or_not(write, header):
    rows = [("ship", "parcels"), (" pay ", ""), ("ship", ""), ("ship", "parcels")]
    table = write("labels.csv", [row[: len(header)] for row in rows], header)
    pool = write("pool.csv", [("where is it", "ship"), ("refund me", "pay")])
    inputs = read_cold(RunConfig(), table, pool)
    assert (inputs.labels, inputs.unseen, len(inputs.train)) == (("pay", "ship"),) * 2 + (0,)
    assert inputs.descriptions == ({"ship": "parcels"} if len(header) > 1 else {})
    assert inputs.pool == ("where is it", "refund me")
    assert inputs.hidden.of("refund me") == "pay"


def test_a_single_label_is_nothing_to_tell_apart(write):
    table = write("labels.csv", [("pay",)], ("label",))
    with pytest.raises(DataError, match="names fewer than two labels; give at least two"):
        read_cold(RunConfig(), table, None)
