"""What people said of texts outranks the files, in whatever order it comes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from red_ray.data.inputs import Inputs
from red_ray.data.people import of_this_run, with_people
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.errors import DataError

TRAIN = LabelledRows(("one", "two", "three", "four"), ("a", "a", "b", "b"))
INPUTS = Inputs(TRAIN, ("five", "six"), HiddenLabels({}), {"a": "first"}, ("a note",))


def heard(*said: tuple[str, str | None]) -> tuple[dict[str, str], tuple[str, ...], str]:
    """Training rows, pool and the last note."""
    inputs = with_people(INPUTS, said)
    rows = dict(zip(inputs.train.texts, inputs.train.labels, strict=True))
    return rows, inputs.pool, inputs.notes[-1]


ROWS = dict(zip(TRAIN.texts, TRAIN.labels, strict=True))


def test_where_nobody_said_anything_all_stays():
    assert with_people(INPUTS, []) is INPUTS


def test_a_training_row_takes_the_label_that_a_person_gave():
    rows, pool, note = heard(("two", "b"))
    assert rows == ROWS | {"two": "b"}
    assert pool == INPUTS.pool
    assert note == "people: 1 training rows changed, 0 more labelled"


def test_a_person_who_agrees_changes_nothing():
    rows, _, note = heard(("two", "a"))
    assert rows == ROWS
    assert note == "people: 0 training rows changed, 0 more labelled"


def test_a_training_row_that_no_label_fits_is_left_out():
    rows, pool, note = heard(("two", None))
    assert rows == {text: label for text, label in ROWS.items() if text != "two"}
    assert pool == INPUTS.pool, "nor is the judge asked about it"
    assert "1 training rows changed" in note


def test_a_text_of_the_pool_becomes_a_training_row():
    rows, pool, note = heard(("five", "b"))
    assert rows == ROWS | {"five": "b"}
    assert pool == ("six",)
    assert "0 training rows changed, 1 more labelled" in note


def test_a_text_of_the_pool_that_no_label_fits_leaves_it():
    rows, pool, _ = heard(("five", None))
    assert rows == ROWS
    assert pool == ("six",)


def test_a_text_that_stands_nowhere_becomes_a_training_row():
    rows, pool, _ = heard(("seven", "c"), ("eight", None))
    assert rows == ROWS | {"seven": "c"}
    assert pool == INPUTS.pool


def test_a_text_is_known_however_it_is_written():
    """The training row stays as the file has it."""
    rows, pool, _ = heard(("  TWO ", "b"), ("Five", "a"))
    assert rows == ROWS | {"two": "b", "Five": "a"}
    assert pool == ("six",)


@pytest.mark.parametrize(
    ("word", "is_ours"),
    [
        (("two", "c"), True),
        (("  SIX ", None), True),
        (("seven", "a"), True),
        (("seven", "c"), False),
        (("seven", None), False),
    ],
)
def test_a_shared_ledger_is_heard_on_texts_and_labels_of_the_run(word, is_ours):
    assert list(of_this_run(INPUTS, [word])) == [word] * is_ours


def test_the_order_of_their_words_changes_nothing():
    said = [("two", "b"), ("five", "a"), ("seven", "b"), ("six", None), ("zero", "a")]
    results = {repr(heard(*some)) for some in itertools.permutations(said)}
    assert len(results) == 1


def test_notes_and_descriptions_stay():
    inputs = with_people(INPUTS, [("two", "b")])
    assert inputs.notes[0] == "a note"
    assert inputs.descriptions == {"a": "first"}


def test_fewer_than_two_labels_are_no_rows_to_train_on():
    with pytest.raises(DataError):
        with_people(INPUTS, [("three", "a"), ("four", None)])


def test_a_cold_start_takes_a_persons_word_and_a_judges_row_gives_way():
    judged = LabelledRows(("pay q", "ship q"), ("pay", "ship"))
    cold = replace(INPUTS, train=LabelledRows((), ()), judged=judged, labels=("pay", "ship"))
    found = with_people(cold, [("pay q", "ship")])
    assert found.train == LabelledRows(("pay q",), ("ship",))
    assert found.judged == LabelledRows(("ship q",), ("ship",))
