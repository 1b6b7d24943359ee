"""Which texts a cold start asks about."""

from __future__ import annotations

import numpy as np

from red_ray.core.lexical import LexicalSpace
from red_ray.core.partition import unit_rows
from red_ray.core.prior import NamePrior, candidates, spread

NO_LABELS = np.zeros(0, dtype=np.int64)


def vectors(*rows):
    return unit_rows(np.array(rows, dtype=np.float32))


NAMES = vectors([1, 0, 0], [0, 1, 0])
TEXTS = vectors([1, 0.2, 0], [0.2, 1, 0], [0.1, 0.3, 1])
NOTHING = np.zeros((0, 3), dtype=np.float32)


def test_without_examples_the_name_decides():
    proba = NamePrior(TEXTS, NAMES).proba(NOTHING, NO_LABELS)
    assert proba.argmax(axis=1).tolist() == [0, 1, 1]
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)


def test_examples_outweigh_a_name_that_says_little():
    prior = NamePrior(TEXTS, NAMES)
    before = prior.proba(NOTHING, NO_LABELS)[2, 0]
    one = prior.proba(TEXTS[2:], np.array([0]))[2, 0]
    three = prior.proba(np.repeat(TEXTS[2:], 3, axis=0), np.array([0, 0, 0]))[2, 0]
    assert before < 0.5 < one < three


def test_words_count_beside_meaning():
    texts = ["lost card", "late refund"]
    space = LexicalSpace.fit(texts)
    alike = vectors([1, 1, 0], [1, 1, 0])
    proba = NamePrior(
        alike, NAMES, space.transform(texts), space.transform(["lost card", "late refund"])
    ).proba(NOTHING, NO_LABELS)
    assert proba.argmax(axis=1).tolist() == [0, 1]


def test_every_label_gets_its_turn_and_no_text_is_asked_about_twice():
    proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    left = np.array([True, True, True, True])
    assert spread(proba, left, np.array([2, 2])) == [(0, 0), (3, 1), (1, 0), (2, 1)]


def test_what_was_asked_about_and_labels_that_have_enough_are_left_out():
    proba = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    left = np.array([False, True, True])
    assert spread(proba, left, np.array([1, 0])) == [(1, 0)]


def test_a_pool_that_runs_out_ends_the_round():
    proba = np.array([[0.9, 0.1], [0.8, 0.2]])
    asked = spread(proba, np.array([True, True]), np.array([5, 5]))
    assert sorted(text for text, _ in asked) == [0, 1]


def test_the_label_that_a_text_is_asked_about_for_is_always_offered():
    proba = np.array([0.1, 0.5, 0.2, 0.15, 0.05])
    assert candidates(proba, 2, 3) == (1, 2, 3)
    assert candidates(proba, 4, 3) == (1, 2, 4)
    assert candidates(proba, 4, 1) == (4,)
