"""The rows of a task: drawn as stated, kept apart, and never from the report."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest

from benchmarks.matrix.config import TaskConfig
from benchmarks.matrix.tasks import joined, load_task
from red_ray.errors import DataError


def table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def folder(tmp_path):
    train = [(f"good film {i}", "yes") for i in range(60)] + [
        (f"bad film {i}", "no") for i in range(40)
    ]
    report = [(f"good play {i}", "yes") for i in range(30)] + [
        (f"bad play {i}", "no") for i in range(20)
    ]
    table(tmp_path / "train.csv", ["text", "label"], train)
    table(
        tmp_path / "test.csv",
        ["text", "label"],
        [*report, ("Bad   FILM 3", "no"), ("no label", "")],
    )
    return tmp_path


def config(folder, **changes):
    return TaskConfig(path=str(folder), **changes)


def texts(rows):
    return {text for (text,) in rows.texts}


def test_train_select_and_report_share_no_text_and_leaks_are_counted(folder):
    loaded = load_task("films", config(folder), 0)
    train, select, report = loaded.task.train, loaded.task.select, loaded.report
    assert (len(train), len(select), len(report)) == (80, 20, 50)
    assert loaded.n_leaks == 1  # as a text is compared: without case and spaces
    assert not texts(train) & texts(select)
    assert not (texts(train) | texts(select)) & texts(report)
    assert Counter(select.labels.tolist()) == {0: 8, 1: 12}
    assert loaded.task.labels == ("no", "yes")
    assert loaded.positive == 1


def test_seeds_draw_other_rows_to_learn_from_and_the_same_to_report_on(folder):
    stated = config(folder, n_train=50, n_report=20)
    first, second, again = (load_task("films", stated, seed) for seed in (0, 1, 0))
    assert first.report_key == second.report_key
    assert first.train_key != second.train_key
    assert first.train_key == again.train_key
    assert len(first.task.everything) == 50
    assert Counter(first.task.everything.labels.tolist()) == {0: 20, 1: 30}
    assert Counter(first.report.labels.tolist()) == {0: 8, 1: 12}


def test_so_many_rows_of_each_label(folder):
    loaded = load_task("films", config(folder, per_label=10), 0)
    assert Counter(loaded.task.everything.labels.tolist()) == {0: 10, 1: 10}


def test_a_pair_is_joined_under_the_names_of_its_columns(tmp_path):
    rows = [(f"it rains {i}", f"it is wet {i}", i % 2) for i in range(20)]
    table(tmp_path / "train.csv", ["premise", "hypothesis", "label"], rows)
    table(tmp_path / "test.csv", ["premise", "hypothesis", "label"], [("a", "b", 1), ("b", "a", 0)])
    stated = config(
        tmp_path, text=("premise", "hypothesis"), words={"1": "true"}, positive="0", n_report=2
    )
    loaded = load_task("pairs", stated, 0)
    assert loaded.task.words == ("0", "true")
    assert loaded.positive == 0
    # The order of a pair matters: neither is a repeat of the other.
    assert set(loaded.report.texts) == {("a", "b"), ("b", "a")}
    assert joined(("a", "b"), loaded.task.columns) == "premise: a\nhypothesis: b"
    np.testing.assert_array_equal(
        loaded.task.train.labels, [int(text[0].split()[-1]) % 2 for text in loaded.task.train.texts]
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"report": "strange.csv"}, r"has labels that train.csv lacks: \['maybe'\]"),
        ({"report": "none.csv"}, "none.csv"),
        ({"label": "class"}, r"lacks the columns \['class'\]"),
        ({"positive": "maybe"}, "positive: 'maybe' is no label"),
        ({"train": "one.csv", "report": "one.csv"}, "has one label, 'yes'"),
    ],
)
def test_what_cannot_be_read_is_said(folder, changes, told):
    table(folder / "strange.csv", ["text", "label"], [("x", "maybe")])
    table(folder / "one.csv", ["text", "label"], [("x", "yes"), ("y", "yes")])
    with pytest.raises(DataError, match=told):
        load_task("films", config(folder, **changes), 0)
