"""The lexical space: n-gram vectors that no other text can change."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from red_ray.core.lexical import N_FEATURES, LexicalSpace
from red_ray.core.ngrams import count_ngrams

TEXTS = ["where is my card", "my card was lost", "top up failed", "a", "Größe 42 €", "top top top"]


@pytest.fixture(scope="module")
def space():
    return LexicalSpace.fit(TEXTS)


def dense_rows(matrix):
    """Each row as its indices and bits."""
    matrix.sort_indices()
    starts = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
    return [
        (matrix.indices[a:b].tobytes(), matrix.data[a:b].tobytes(), matrix.data.dtype)
        for a, b in starts
    ]


def test_rows_have_unit_length(space):
    vectors = space.transform(TEXTS)
    assert vectors.shape == (len(TEXTS), 2 * N_FEATURES)
    norms = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1))).ravel()
    np.testing.assert_allclose(norms, 1, rtol=1e-5)


def test_characters_and_words_weigh_the_same(space):
    words = space.transform(TEXTS)[:, N_FEATURES:]
    np.testing.assert_allclose(words.multiply(words).sum(axis=1).ravel(), 0.5, rtol=1e-5)


def test_a_texts_bits_do_not_depend_on_its_company(space):
    alone = [dense_rows(space.transform([text]))[0] for text in TEXTS]
    assert dense_rows(space.transform(TEXTS)) == alone
    assert dense_rows(space.transform(TEXTS[::-1])) == alone[::-1]


def test_bits_and_their_order_are_those_of_the_plain_way(space):
    """Products sum in this order: another one would change every bundle's id."""
    texts = [*TEXTS, "", "!!!", "where is my card " * 9]
    counts = count_ngrams(texts, N_FEATURES)
    counts.data = (1 + np.log(counts.data)) * space.idf[counts.indices]
    halves = []
    for half in (counts[:, :N_FEATURES], counts[:, N_FEATURES:]):
        norms = np.sqrt(np.asarray(half.multiply(half).sum(axis=1), dtype=np.float32)).ravel()
        scale = sparse.diags_array(1 / np.maximum(norms, np.float32(1e-12)), dtype=np.float32)
        halves.append(sparse.csr_matrix(scale @ half) * np.float32(np.sqrt(0.5)))
    expected, found = sparse.hstack(halves, format="csr"), space.transform(texts)
    for name in ("indptr", "indices", "data"):
        assert getattr(found, name).tobytes() == getattr(expected, name).tobytes(), name


def test_a_new_text_changes_no_other_row(space):
    grown = space.transform([*TEXTS, "an unseen word: xylophone"])
    assert dense_rows(grown)[: len(TEXTS)] == dense_rows(space.transform(TEXTS))


def test_a_word_inside_another_form_still_counts(space):
    near, far = space.transform(["lost cards"]), space.transform(["exchange rate"])
    card = space.transform(["my card was lost"])
    assert (near @ card.T).toarray()[0, 0] > 0.2 > (far @ card.T).toarray()[0, 0]


def test_rare_words_weigh_more_than_common_ones():
    space = LexicalSpace.fit(["the card"] * 9 + ["the refund"])
    asked = space.transform(["card refund"])
    by_card, by_refund = (space.transform([word]) for word in ("card", "refund"))
    assert (asked @ by_refund.T).toarray()[0, 0] > (asked @ by_card.T).toarray()[0, 0]


def test_document_frequencies_count_texts_not_repeats():
    """ "top top top" is one text: scikit-learn's smoothed idf of 1 in 2 texts."""
    space = LexicalSpace.fit(["top top top", "other"])
    top = LexicalSpace.fit(["top"]).transform(["top"])[:, N_FEATURES:].indices
    np.testing.assert_allclose(space.idf[N_FEATURES + top], np.log(3 / 2) + 1, rtol=1e-6)


def test_half_of_a_surrogate_pair_reads_as_a_question_mark(space):
    """It comes from broken JSON and has no UTF-8; the encoder reads it the same way."""
    broken, sound = space.transform(["card \ud800 lost", "card ? lost"])
    assert (broken != sound).nnz == 0


def test_frequencies_counted_in_parts_are_those_of_all(space, monkeypatch):
    monkeypatch.setattr("red_ray.core.lexical.FIT_TEXTS", 2)
    assert LexicalSpace.fit(TEXTS).idf.tobytes() == space.idf.tobytes()
