"""Retrieval: embeddings and n-grams together, for a growing set of examples."""

from __future__ import annotations

import numpy as np
import pytest

from red_ray.core.lexical import LexicalSpace
from red_ray.core.partition import unit_rows
from red_ray.core.retrieval import (
    CentroidNorms,
    Examples,
    SimilarityEvidence,
    Texts,
    nearest_first,
)

N_LABELS = 3
WORDS = ("card lost", "card late", "top up", "refund please", "card stolen", "top it up")
LABELS = np.array([0, 0, 1, 1, 0, 1])  # label 2 has no example
ASKED = ("my card", "top", "where is my refund")


def texts(words, *, lexical=True):
    rng = np.random.default_rng(len(words))
    vectors = unit_rows(rng.standard_normal((len(words), 8)).astype(np.float32))
    return Texts(vectors, LexicalSpace.fit(WORDS).transform(words) if lexical else None)


@pytest.fixture(scope="module")
def known():
    return texts(WORDS)


def evidence(known, parts, *, asked=None):
    asked = texts(ASKED) if asked is None else asked
    similar, norms = SimilarityEvidence(asked, N_LABELS), CentroidNorms(N_LABELS)
    for part in parts:
        examples = Examples(known.take(part), LABELS[part], N_LABELS)
        similar.add(examples)
        norms.add(examples)
    return similar, norms


def columns(similar, norms):
    return [*similar.similarity(norms), *(similar.lexical(norms) or ())]


def test_centroids_equal_explicit_ones(known):
    similar, norms = evidence(known, [slice(None)])
    asked = texts(ASKED)
    by_vector, *_ = similar.similarity(norms)
    by_ngram, _ = similar.lexical(norms)
    for label in (0, 1):
        rows = np.flatnonzero(label == LABELS)
        for got, every, one in (
            (by_vector, known.vectors, asked.vectors),
            (by_ngram, known.ngrams.toarray(), asked.ngrams.toarray()),
        ):
            mean = every[rows].mean(axis=0)
            expected = one @ (mean / np.linalg.norm(mean))
            np.testing.assert_allclose(got[:, label], expected, atol=1e-5)


def test_the_nearest_ngram_example_is_found(known):
    similar, norms = evidence(known, [slice(None)])
    _, nearest = similar.lexical(norms)
    expected = (texts(ASKED).ngrams @ known.ngrams.T).toarray()[:, LABELS == 1].max(axis=1)
    np.testing.assert_allclose(nearest[:, 1], expected, atol=1e-6)


def test_growing_equals_one_shot(known):
    at_once = columns(*evidence(known, [slice(None)]))
    grown = columns(*evidence(known, [slice(0, 1), slice(1, 4), slice(4, 6)]))
    for whole, parts in zip(at_once, grown, strict=True):
        np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_a_new_example_leaves_the_other_labels_bits_alone(known):
    """A label can grow without a change of any other: row 4 belongs to label 0."""
    before = columns(*evidence(known, [slice(0, 4)]))
    after = columns(*evidence(known, [slice(0, 4), slice(4, 5)]))
    for old, new in zip(before, after, strict=True):
        assert old[:, 1:].tobytes() == new[:, 1:].tobytes()
    assert any(not np.array_equal(old, new) for old, new in zip(before, after, strict=True))


def test_a_label_without_examples_is_missing_everywhere(known):
    for column in columns(*evidence(known, [slice(None)])):
        assert (column[:, 2] == -1).all()
        assert (column[:, :2] > -1).all()


def test_norms_are_zero_before_any_example():
    norms = CentroidNorms(N_LABELS)
    assert norms.by_embedding().tolist() == [0, 0, 0]
    assert norms.by_ngram().tolist() == [0, 0, 0]


def test_without_ngrams_there_is_no_lexical_evidence():
    known, asked = texts(WORDS, lexical=False), texts(ASKED, lexical=False)
    similar, norms = evidence(known, [slice(None)], asked=asked)
    assert similar.lexical(norms) is None
    assert similar.similarity(norms)[0].shape == (3, N_LABELS)


def test_comparing_ngrams_that_are_not_there_is_refused(known):
    examples = Examples(known, LABELS, N_LABELS)
    with pytest.raises(ValueError, match="no lexical vectors"):
        examples.lexical_similarity(texts(ASKED, lexical=False))


def test_the_nearest_come_first_and_equals_in_their_order():
    positions = np.array([4, 7, 9, 12, 20])
    similarity = np.array([0.1, 0.9, 0.5, 0.9, 0.5], dtype=np.float32)
    assert list(nearest_first(similarity, positions, 4)) == [7, 12, 9, 20]
    assert list(nearest_first(similarity, positions, 9)) == [7, 12, 9, 20, 4]
    assert list(nearest_first(similarity, positions, 0)) == []


@pytest.mark.parametrize("cells", [1, 6, 12])
def test_texts_compared_some_at_a_time_are_compared_alike(known, monkeypatch, cells):
    """Six examples: one text at a time, one, two; three are asked about."""
    whole = columns(*evidence(known, [slice(0, 6)]))
    monkeypatch.setattr("red_ray.core.retrieval.BLOCK_CELLS", cells)
    for part, expected in zip(columns(*evidence(known, [slice(0, 6)])), whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-6)
