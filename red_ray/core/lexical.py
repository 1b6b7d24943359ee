"""Texts as n-gram vectors, for the evidence that embeddings miss: numbers, names, rare words.

Hashed, so that there is no vocabulary to fit and a new label adds rows and changes none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from red_ray.core.ngrams import count_ngrams

N_FEATURES = 2**18
"""Hash buckets for characters and words each: collisions are rare at some 10^5 n-grams, and
the document frequencies cost 2 MB in a bundle."""


@dataclass(frozen=True, slots=True)
class LexicalSpace:
    """TF-IDF over character and word n-grams, half of the weight each.

    Attributes:
        idf: inverse document frequencies, shape (2 * N_FEATURES,), from the seed rows and the
            pool; fixed at training, so that adding a label changes no other.
    """

    idf: NDArray[np.float32]

    @classmethod
    def fit(cls, texts: Sequence[str]) -> LexicalSpace:
        """Count document frequencies over `texts` (smoothed as scikit-learn's TF-IDF does)."""
        counts = count_ngrams(texts, N_FEATURES)
        frequency = np.bincount(counts.indices, minlength=counts.shape[1])
        idf = np.log((1 + len(texts)) / (1 + frequency)) + 1
        return cls(idf=np.asarray(idf, dtype=np.float32))

    def transform(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Vectors of `texts`, shape (n_texts, 2 * N_FEATURES), rows of unit length.

        A text of punctuation alone has no words and is shorter; one without n-grams is zero.
        """
        counts = count_ngrams(texts, N_FEATURES)
        counts.data = (1 + np.log(counts.data)) * self.idf[counts.indices]
        chars, words = counts[:, :N_FEATURES], counts[:, N_FEATURES:]
        half = np.float32(np.sqrt(0.5))
        return sparse.hstack([_unit(chars) * half, _unit(words) * half], format="csr")


def _unit(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    squares = matrix.multiply(matrix).sum(axis=1)
    norms = np.sqrt(np.asarray(squares, dtype=np.float32)).ravel()
    scale = sparse.diags_array(1 / np.maximum(norms, np.float32(1e-12)), dtype=np.float32)
    return sparse.csr_matrix(scale @ matrix)
