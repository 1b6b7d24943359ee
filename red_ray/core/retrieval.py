"""Labelled examples as evidence: by embedding and by n-gram, for a fixed or a growing set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from red_ray.core.products import dense_product
from red_ray.core.similarity import LabelSimilarity, Turns

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

BLOCK_CELLS = 2**26
"""Similarities of texts to examples that are held at a time: 256 MB. Below it all texts are
compared at once, so that a small set keeps its bits, which depend on the product's shape."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Some texts as vectors.

    Attributes:
        vectors: embeddings, shape (n_texts, dim), unit length.
        ngrams: lexical vectors, shape (n_texts, n_features), unit length; None without them.
    """

    vectors: Floats
    ngrams: sparse.csr_matrix | None

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: Ints | slice) -> Texts:
        """The texts at `rows`."""
        ngrams = None if self.ngrams is None else self.ngrams[rows]
        return Texts(self.vectors[rows], ngrams)


class Examples:
    """Labelled texts that others are compared with."""

    def __init__(self, texts: Texts, labels: Ints, n_labels: int) -> None:
        self.texts = texts
        self.labels = labels
        self.n_labels = n_labels
        self._ngrams_by_feature = None if texts.ngrams is None else texts.ngrams.T.tocsr()

    @cached_property
    def turns(self) -> Turns:
        """In which order they are taken in."""
        return Turns.of(self.labels)

    def similarity(self, texts: Texts) -> Floats:
        """Cosine of `texts` to each example by embedding, shape (n_texts, n_examples)."""
        if len(texts) == 1:
            return np.asarray(texts.vectors @ self._across)
        return np.asarray(texts.vectors @ self.texts.vectors.T)

    @cached_property
    def _across(self) -> Floats:
        """The vectors, a dimension a row: one text is compared in half the time."""
        return np.ascontiguousarray(self.texts.vectors.T)

    def lexical_similarity(self, texts: Texts) -> Floats:
        """Cosine of `texts` to each example by n-gram, shape (n_texts, n_examples)."""
        if texts.ngrams is None or self._ngrams_by_feature is None:
            raise ValueError("these texts have no lexical vectors")
        return dense_product(texts.ngrams, self._ngrams_by_feature)


class CentroidNorms:
    """Lengths of the labels' mean vectors, kept while examples come in."""

    def __init__(self, n_labels: int) -> None:
        self._counts = np.zeros(n_labels, dtype=np.int64)
        self._vector_sums: Floats | None = None
        self._ngram_sums: sparse.csr_matrix | None = None
        self._by_embedding: Floats | None = None  # until examples come in
        self._by_ngram: Floats | None = None

    def add(self, examples: Examples) -> None:
        """Take in new examples."""
        member = _membership(examples)
        self._counts += np.asarray(member.sum(axis=1), dtype=np.int64).ravel()
        vectors = np.asarray(member @ examples.texts.vectors)
        self._vector_sums = vectors if self._vector_sums is None else self._vector_sums + vectors
        self._by_embedding = self._by_ngram = None
        if examples.texts.ngrams is not None:
            ngrams = sparse.csr_matrix(member @ examples.texts.ngrams)
            sums = self._ngram_sums
            self._ngram_sums = ngrams if sums is None else sparse.csr_matrix(sums + ngrams)
            # In a fixed order, so that a row's norm keeps its bits while other rows grow.
            self._ngram_sums.sort_indices()

    def by_embedding(self) -> Floats:
        """Shape (n_labels,); 0 for a label without examples."""
        if self._vector_sums is None:
            return np.zeros(len(self._counts), dtype=np.float32)
        if self._by_embedding is None:
            self._by_embedding = self._per_row(np.linalg.norm(self._vector_sums, axis=1))
        return self._by_embedding

    def by_ngram(self) -> Floats:
        """Shape (n_labels,); 0 for a label without examples."""
        if self._ngram_sums is None:
            return np.zeros(len(self._counts), dtype=np.float32)
        if self._by_ngram is None:
            squares = self._ngram_sums.multiply(self._ngram_sums).sum(axis=1)
            self._by_ngram = self._per_row(np.sqrt(np.asarray(squares)).ravel())
        return self._by_ngram

    def _per_row(self, norms: NDArray[np.floating]) -> Floats:
        return np.asarray(norms / np.maximum(self._counts, 1), dtype=np.float32)


def _membership(examples: Examples) -> sparse.csr_matrix:
    """Shape (n_labels, n_examples), 1 where the example has the label."""
    n = len(examples.labels)
    cells = (np.ones(n, dtype=np.float32), (examples.labels, np.arange(n)))
    return sparse.csr_matrix(cells, shape=(examples.n_labels, n))


class SimilarityEvidence:
    """The similarity columns of some fixed texts, kept while examples come in."""

    def __init__(self, texts: Texts, n_labels: int) -> None:
        self._texts = texts
        self._by_embedding = LabelSimilarity(len(texts), n_labels)
        by_ngram = LabelSimilarity(len(texts), n_labels, n_nearest=1)
        self._by_ngram = None if texts.ngrams is None else by_ngram

    def add(self, examples: Examples) -> None:
        """Compare the texts with new examples."""
        blocks = map(examples.similarity, self._blocks(len(examples.labels)))
        self._by_embedding.add_blocks(blocks, examples.turns)
        if self._by_ngram is not None:
            blocks = map(examples.lexical_similarity, self._blocks(len(examples.labels)))
            self._by_ngram.add_blocks(blocks, examples.turns)

    def _blocks(self, n_examples: int) -> Iterator[Texts]:
        """The texts, so many at a time that their similarities stay within `BLOCK_CELLS`."""
        n_texts = max(1, BLOCK_CELLS // max(1, n_examples))
        if len(self._texts) <= n_texts:
            yield self._texts
            return
        for start in range(0, len(self._texts), n_texts):
            yield self._texts.take(slice(start, start + n_texts))

    def similarity(self, norms: CentroidNorms) -> tuple[Floats, Floats, Floats]:
        """Centroid, nearest, mean of the three nearest; each (n_texts, n_labels)."""
        held = self._by_embedding
        return held.centroid(norms.by_embedding()), held.nearest(), held.nearest_mean()

    def lexical(self, norms: CentroidNorms) -> tuple[Floats, Floats] | None:
        """Centroid and nearest by n-gram; each (n_texts, n_labels)."""
        held = self._by_ngram
        return None if held is None else (held.centroid(norms.by_ngram()), held.nearest())


def nearest_first(similarity: Floats, positions: Ints, n: int) -> Ints:
    """Of the examples at `positions` the `n` most similar ones, the first of equals first.

    Args:
        similarity: to each of them, shape (n_positions,).
        positions: shape (n_positions,).
        n: how many are wanted at most.
    """
    return positions[np.argsort(-similarity, kind="stable")[:n]]
