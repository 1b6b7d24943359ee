"""Similarity evidence: additive per label, and the same however the examples came in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from red_ray.core.partition import unit_rows
from red_ray.core.similarity import MISSING, LabelSimilarity, Turns

N_LABELS = 4
LABELS = np.array([0, 1, 0, 2, 1, 0, 0, 1, 2, 0, 0])  # label 3 has no example


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    return unit_rows(rng.standard_normal((20 + len(LABELS), 8)).astype(np.float32))


def held(vectors, parts):
    """Similarity of the first 20 vectors to the others, added part by part."""
    texts, examples = vectors[:20], vectors[20:]
    similarity = LabelSimilarity(20, N_LABELS)
    for part in parts:
        similarity.add(texts @ examples[part].T, Turns.of(LABELS[part]))
    return similarity


def columns(similarity, norms):
    return similarity.centroid(norms), similarity.nearest(), similarity.nearest_mean()


def mean_norms(vectors, labels=LABELS):
    means = [vectors[20:][: len(labels)][labels == label] for label in range(N_LABELS)]
    norms = [np.linalg.norm(rows.mean(axis=0)) if len(rows) else 0 for rows in means]
    return np.array(norms, dtype=np.float32)


def test_centroid_equals_the_cosine_to_an_explicit_centroid(vectors):
    got = held(vectors, [slice(None)]).centroid(mean_norms(vectors))
    for label in (0, 1, 2):
        centroid = vectors[20:][label == LABELS].mean(axis=0)
        expected = vectors[:20] @ (centroid / np.linalg.norm(centroid))
        np.testing.assert_allclose(got[:, label], expected, atol=1e-5)


def test_nearest_and_their_mean_equal_a_plain_search(vectors):
    similarity = held(vectors, [slice(None)])
    every = vectors[:20] @ vectors[20:].T
    for label in (0, 1, 2):
        ranked = -np.sort(-every[:, label == LABELS], axis=1)
        np.testing.assert_array_equal(similarity.nearest()[:, label], ranked[:, 0])
        mean = ranked[:, :3].mean(axis=1)
        np.testing.assert_allclose(similarity.nearest_mean()[:, label], mean, atol=1e-6)


def test_fewer_than_three_examples_are_averaged_as_they_are(vectors):
    """Label 2 has two examples: their mean, not two thirds of it."""
    every = (vectors[:20] @ vectors[20:].T)[:, LABELS == 2]
    got = held(vectors, [slice(None)]).nearest_mean()[:, 2]
    np.testing.assert_allclose(got, every.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_labels_of_any_size_equal_a_plain_search(seed):
    """Bit by bit where it is the same sum: an example after the other."""
    rng = np.random.default_rng(seed)
    n_labels, n_examples = rng.integers(2, 30), rng.integers(1, 300)
    labels = rng.choice(n_labels, n_examples, p=rng.dirichlet(np.full(n_labels, 0.3)))
    every = rng.uniform(-1, 1, (600, n_examples)).astype(np.float32)  # more than one block
    found = LabelSimilarity(600, n_labels)
    found.add(every, Turns.of(labels))
    norms = np.ones(n_labels, dtype=np.float32)
    for label in range(n_labels):
        mine = every[:, labels == label]
        if not mine.shape[1]:
            assert (found.nearest()[:, label] == MISSING).all()
            continue
        in_turn = np.add.accumulate(mine, axis=1)[:, -1] / mine.shape[1]
        np.testing.assert_array_equal(found.centroid(norms)[:, label], in_turn.astype(np.float32))
        ranked = -np.sort(-mine, axis=1)
        np.testing.assert_array_equal(found.nearest()[:, label], ranked[:, 0])
        mean = ranked[:, :3].mean(axis=1)
        np.testing.assert_allclose(found.nearest_mean()[:, label], mean, atol=1e-6)


@pytest.mark.parametrize("n_labels", [1, 2, 30])
@pytest.mark.parametrize("n_nearest", [1, 3])
@pytest.mark.parametrize("is_even", [True, False])
def test_few_texts_have_the_bits_that_they_have_among_others(n_labels, n_nearest, is_even):
    """Also where examples came before, and where most labels have few of them."""
    rng = np.random.default_rng(0)
    shares = np.full(n_labels, 1 / n_labels) if is_even else rng.dirichlet(np.full(n_labels, 0.2))
    norms = np.ones(n_labels, dtype=np.float32)
    every = rng.uniform(-1, 1, (20, 140)).astype(np.float32)
    labels = rng.choice(n_labels, 140, p=shares)
    whole = LabelSimilarity(20, n_labels, n_nearest)
    for part in (slice(0, 90), slice(90, 140)):
        whole.add(every[:, part], Turns.of(labels[part]))
    for rows in (slice(4, 5), slice(7, 10), slice(0, 8)):
        few = LabelSimilarity(len(every[rows]), n_labels, n_nearest)
        for part in (slice(0, 90), slice(90, 140)):
            few.add(every[rows, part], Turns.of(labels[part]))
        for all_texts, mine in zip(columns(whole, norms), columns(few, norms), strict=True):
            assert all_texts[rows].tobytes() == mine.tobytes()


@pytest.mark.parametrize("n_texts", [1, 20])
def test_no_examples_change_nothing(n_texts):
    found = LabelSimilarity(n_texts, N_LABELS)
    found.add(np.zeros((n_texts, 0), dtype=np.float32), Turns.of(np.zeros(0, dtype=np.int64)))
    assert (found.nearest() == MISSING).all()


def test_only_the_nearest_is_kept_where_no_more_is_asked_for(vectors):
    texts, examples = vectors[:20], vectors[20:]
    one = LabelSimilarity(20, N_LABELS, n_nearest=1)
    one.add(texts @ examples.T, Turns.of(LABELS))
    np.testing.assert_array_equal(one.nearest(), held(vectors, [slice(None)]).nearest())
    np.testing.assert_array_equal(one.nearest_mean(), one.nearest())


@pytest.mark.parametrize("cuts", [(1, 2, 3), (5,), tuple(range(1, 11))])
def test_adding_in_parts_equals_adding_at_once(vectors, cuts):
    bounds = (0, *cuts, len(LABELS))
    parts = [slice(a, b) for a, b in pairwise(bounds)]
    norms = mean_norms(vectors)
    at_once = columns(held(vectors, [slice(None)]), norms)
    in_parts = columns(held(vectors, parts), norms)
    for whole, grown in zip(at_once, in_parts, strict=True):
        np.testing.assert_allclose(grown, whole, atol=1e-5)


def test_a_new_example_leaves_the_other_labels_bits_alone(vectors):
    norms = mean_norms(vectors)
    before = columns(held(vectors, [slice(0, 10)]), norms)
    after = columns(held(vectors, [slice(0, 10), slice(10, 11)]), norms)  # one more of label 0
    for old, new in zip(before, after, strict=True):
        assert old[:, 1:].tobytes() == new[:, 1:].tobytes()
    assert not np.array_equal(before[0][:, 0], after[0][:, 0])


def test_a_label_without_examples_is_as_far_as_a_cosine_goes(vectors):
    for column in columns(held(vectors, [slice(None)]), mean_norms(vectors)):
        assert column.dtype == np.float32
        assert (column[:, 3] == MISSING).all()
        assert (column[:, :3] > MISSING).all()
