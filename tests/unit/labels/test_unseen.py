"""A label that a model knows by its name alone, when labels change."""

from __future__ import annotations

import asyncio

import pytest

from red_ray import labels
from red_ray.core.text import text_key
from red_ray.errors import DataError
from red_ray.labels import Examples
from tests.unit.labels.test_changes import check_sound
from tests.unit.training.fakes import FakeValidator, make_corpus, train, truth
from tests.unit.training.test_cold_start import cold_job

NOWHERE, NEITHER = "nowhere_to_find", "nor_this_one"
AS_TEXT = "nowhere to find"


@pytest.fixture(scope="module")
def cold():
    corpus = make_corpus(8, per_label=1, pool_per_label=12)
    job = cold_job(corpus, names=(*corpus.names, NOWHERE, NEITHER))
    return asyncio.run(train(job, FakeValidator(truth(corpus))))


def texts_of(model, name):
    pairs = zip(model.example_texts, model.example_labels, strict=True)
    return [text for text, label in pairs if model.labels[label] == name]


def test_it_has_no_row_but_its_name(cold):
    assert cold.model.unseen == (NEITHER, NOWHERE)
    assert texts_of(cold.model, NOWHERE) == [AS_TEXT]


def test_renamed_it_is_unseen_under_its_new_name(cold):
    renamed = labels.rename(cold.model, cold.crossfit, NOWHERE, "elsewhere").model
    assert renamed.unseen == (NEITHER, "elsewhere")
    assert texts_of(renamed, "elsewhere") == [AS_TEXT]


def test_with_a_text_it_is_seen_and_its_name_is_no_example(cold, encoder):
    n_rows = len(cold.model.example_texts)
    more = Examples(("please x1 y1", "x1 y2 today"), (NOWHERE, NOWHERE))
    change = labels.refit(cold.model, cold.crossfit, [], examples=more, encoder=encoder)
    check_sound(change, n_rows + 1)
    assert change.model.unseen == (NEITHER,)
    assert texts_of(change.model, NOWHERE) == list(more.texts)
    assert set(change.crossfit.gone) == {text_key(AS_TEXT)}


def test_merged_into_a_label_with_texts_it_leaves_its_name_behind(cold, encoder):
    n_rows, other = len(cold.model.example_texts), cold.model.labels[0]
    texts = texts_of(cold.model, other)
    change = labels.merge(cold.model, cold.crossfit, [NOWHERE, other], "both", encoder=encoder)
    check_sound(change, n_rows - 1)
    assert change.model.unseen == (NEITHER,)
    assert texts_of(change.model, "both") == texts


def test_two_of_them_merged_have_two_names_and_no_text(cold, encoder):
    change = labels.merge(
        cold.model, cold.crossfit, [NOWHERE, NEITHER], "neither_nor", encoder=encoder
    )
    check_sound(change, len(cold.model.example_texts))
    assert change.model.unseen == ("neither_nor",)


def test_retired_it_leaves_no_text_that_fits_none(cold, encoder):
    change = labels.retire(cold.model, cold.crossfit, NOWHERE, keep_as_none=True, encoder=encoder)
    assert change.model.unseen == (NEITHER,)
    assert AS_TEXT not in change.crossfit.refused.texts


def test_it_cannot_be_split(cold, encoder):
    with pytest.raises(DataError, match="one row of 'nowhere_to_find'"):
        labels.split(cold.model, cold.crossfit, NOWHERE, ("a", "b"), {}, encoder=encoder)
