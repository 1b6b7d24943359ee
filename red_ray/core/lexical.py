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


FIT_TEXTS = 2**14
"""Texts whose n-grams are counted at a time: of a million they would fill 2 GB."""


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
        frequency = np.zeros(2 * N_FEATURES, dtype=np.int64)
        for start in range(0, len(texts), FIT_TEXTS):
            counts = count_ngrams(texts[start : start + FIT_TEXTS], N_FEATURES)
            frequency += np.bincount(counts.indices, minlength=counts.shape[1])
        idf = np.log((1 + len(texts)) / (1 + frequency)) + 1
        return cls(idf=np.asarray(idf, dtype=np.float32))

    def transform(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Vectors of `texts`, shape (n_texts, 2 * N_FEATURES), rows of unit length.

        A text of punctuation alone has no words and is shorter; one without n-grams is zero.
        """
        counts = count_ngrams(texts, N_FEATURES)
        weights = (1 + np.log(counts.data)) * self.idf[counts.indices]
        # Of each text its characters and its words; indices ascend, so that each part is a run.
        part = 2 * np.repeat(np.arange(len(texts)), np.diff(counts.indptr))
        part += counts.indices >= N_FEATURES
        sizes = np.bincount(part, minlength=2 * len(texts))
        starts = np.cumsum(sizes) - sizes
        norms = np.zeros(len(sizes), dtype=np.float32)
        norms[sizes > 0] = np.sqrt(np.add.reduceat(weights * weights, starts[sizes > 0]))
        scale = 1 / np.maximum(norms, np.float32(1e-12))
        # Each part's last feature first: products sum in this order, and their bits depend on it.
        turned = (2 * starts + sizes - 1)[part] - np.arange(len(part))
        values = (weights * scale[part] * np.float32(np.sqrt(0.5)))[turned]
        return sparse.csr_matrix((values, counts.indices[turned], counts.indptr), counts.shape)
