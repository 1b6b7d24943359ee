"""N-grams in one go: scikit-learn's own, bucket by bucket."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

from red_ray.core import ngrams
from red_ray.core.ngrams import count_ngrams

N_FEATURES = 2**12  # few, so that n-grams share buckets

TEXTS = [
    "My card was lost",
    "",
    " \t\n ",
    "a",
    "a b cd",
    "top top top",
    "wait...  what?!",
    "Größe 42 €",
    "İstanbul ΣΑΣ Σ ǅ ß",
    "日本語 の テキスト",
    "emoji 👍🏽 ok\u200d",
    "tab\tand\x0bno\x1cbreak\u2003space\u00a0",
    "nul\x00 in_side a-b c'd",
    "word " * 400,
    "x" * 3000,
    "٣ ४ ½ ²",
]


def by_scikit_learn(texts):
    options = {"n_features": N_FEATURES, "alternate_sign": False, "norm": None, "dtype": np.float32}
    chars = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), **options)
    words = HashingVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", **options)
    joined = sparse.hstack([one.transform(texts) for one in (chars, words)], format="csr")
    joined.sort_indices()
    return joined


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    for part in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))


@pytest.mark.parametrize("text", TEXTS)
def test_each_text_has_the_ngrams_of_scikit_learn(text):
    assert_same(count_ngrams([text], N_FEATURES), by_scikit_learn([text]))


def test_texts_together_do_too():
    assert_same(count_ngrams(TEXTS, N_FEATURES), by_scikit_learn(TEXTS))


def test_drawn_texts_do_too():
    rng = np.random.default_rng(0)
    alphabet = list("aab c.é漢😀 \u0301\u2028ß")
    texts = ["".join(rng.choice(alphabet, rng.integers(0, 40))) for _ in range(300)]
    assert_same(count_ngrams(texts, N_FEATURES), by_scikit_learn(texts))


@pytest.mark.parametrize("n_chars", [1, 40, 500])
def test_blocks_change_nothing(monkeypatch, n_chars):
    whole = count_ngrams(TEXTS, N_FEATURES)
    monkeypatch.setattr(ngrams, "BLOCK_CHARS", n_chars)
    assert_same(count_ngrams(TEXTS, N_FEATURES), whole)


def test_half_a_surrogate_pair_reads_as_a_question_mark():
    assert_same(count_ngrams(["a\ud83dbc"], N_FEATURES), count_ngrams(["a?bc"], N_FEATURES))


def test_no_texts_are_no_rows():
    assert count_ngrams([], N_FEATURES).shape == (0, 2 * N_FEATURES)
