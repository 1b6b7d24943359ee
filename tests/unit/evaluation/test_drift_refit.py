"""Experts that drift has hit learn their own labels' texts, and none that is measured."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from red_ray.core.text import text_key
from red_ray.evaluation.drift_refit import lessons, most_doubtful
from red_ray.evaluation.drift_rows import score_texts
from tests.unit.training.fakes import FakeEncoder, make_corpus, train

LARGE = make_corpus(pool_per_label=2, test_per_label=10)


@pytest.fixture(scope="module")
def model():
    return asyncio.run(train(LARGE.job())).model


@pytest.fixture(scope="module")
def recent(model):
    return score_texts(model, LARGE.test, FakeEncoder())


def keyed(pairs):
    return {text_key(text): label for text, label in pairs}


def test_an_expert_learns_texts_of_its_own_labels_alone(model):
    mine = [model.labels[label] for label in model.subsets[1]]
    other = model.labels[model.subsets[0][0]]
    texts = ["one", "two", "three", "four", "five", "nobody's"]
    labels = [mine[0], other, "brand_new", None, mine[1], "None"]
    known = keyed(zip(texts, labels, strict=True))
    found = lessons(model, [1], [*texts, "six"], known)
    assert found.texts == ("one", "five")
    assert found.labels == (mine[0], mine[1])
    assert found.n_elsewhere == 1
    assert (found.n_unknown, found.n_none) == (1, 2)


def test_the_most_doubtful_texts_near_an_expert_come_first(model, recent):
    rows = most_doubtful(model, [0, 2], recent, frozenset(), 12)
    assert len(rows) == 12
    held = {*model.subsets[0], *model.subsets[2]}
    assert {int(label) for label in recent.best[rows]} <= held
    assert np.all(np.diff(recent.risk[rows]) <= 0)
    others = np.setdiff1d(np.flatnonzero(np.isin(recent.best, [*held])), rows)
    assert recent.risk[others].max() <= recent.risk[rows].min()


def test_a_text_that_the_run_is_measured_by_is_not_asked_about(model, recent):
    first = most_doubtful(model, [0], recent, frozenset(), 5)
    apart = frozenset(text_key(recent.texts[row]) for row in first[:2])
    assert most_doubtful(model, [0], recent, apart, 3).tolist() == first[2:].tolist()


def test_where_no_text_is_near_an_expert_none_is_asked_about(model, recent):
    far = recent.take(np.flatnonzero(~np.isin(recent.best, model.subsets[0])))
    assert len(most_doubtful(model, [0], far, frozenset(), 5)) == 0
