"""Hashed n-grams of many texts in one go: characters within words, and words.

The n-grams and buckets of scikit-learn's `HashingVectorizer` (`char_wb` of 3 to 5, words of 1 to
2), whose Python loop over every n-gram costs three times as much and holds up other threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from red_ray.core.text import encodable

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint32]

BLOCK_CHARS = 2**16
"""Characters at a time, which bounds the memory: each begins three n-grams."""

_SIZES = (3, 4, 5)
_WORD = re.compile(r"\w+")
_SPACE = ord(" ")


def count_ngrams(texts: Sequence[str], n_features: int) -> sparse.csr_matrix:
    """How often each n-gram is in each text.

    Args:
        texts: any strings.
        n_features: hash buckets for characters and for words each.

    Returns:
        Shape (n_texts, 2 * n_features), characters first, float32, indices ascending.
    """
    parts = [_count(block, n_features) for block in _blocks(texts)]
    if len(parts) == 1:
        return parts[0]
    nothing = sparse.csr_matrix((0, 2 * n_features), dtype=np.float32)
    return sparse.csr_matrix(sparse.vstack([nothing, *parts], format="csr"))


def _blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    block: list[str] = []
    n_chars = 0
    for text in texts:
        block.append(encodable(text).lower())
        n_chars += len(text)
        if n_chars >= BLOCK_CHARS:
            yield block
            block, n_chars = [], 0
    if block:
        yield block


def _count(texts: list[str], n_features: int) -> sparse.csr_matrix:
    width = 2 * n_features
    keys = [
        spans.rows * width + offset + spans.hashed(n_features)
        for offset, spans in ((0, _of_characters(texts)), (n_features, _of_words(texts)))
    ]
    found, counts = np.unique(np.concatenate(keys), return_counts=True)
    starts = np.searchsorted(found, np.arange(len(texts) + 1) * width)
    cells = (counts.astype(np.float32), (found % width).astype(np.int32), starts.astype(np.int32))
    matrix = sparse.csr_matrix(cells, shape=(len(texts), width))
    matrix.has_sorted_indices = True
    return matrix


@dataclass(frozen=True, slots=True)
class _Spans:
    """N-grams as pieces of one buffer of UTF-8.

    Attributes:
        data: the buffer, shape (n_bytes,).
        starts: first byte of each n-gram, shape (n_ngrams,).
        lengths: its bytes, shape (n_ngrams,), at least 1.
        rows: the text that it is of, shape (n_ngrams,).
    """

    data: NDArray[np.uint8]
    starts: Ints
    lengths: Ints
    rows: Ints

    def hashed(self, n_features: int) -> Ints:
        """The bucket of each n-gram, shape (n_ngrams,)."""
        signed = _murmur3(self.data, self.starts, self.lengths).view(np.int32)
        return np.abs(signed.astype(np.int64)) % n_features


def _of_characters(texts: Sequence[str]) -> _Spans:
    """Three to five characters of a word with a space at both of its ends."""
    padded = [f" {' '.join(text.split())} " for text in texts]
    data = _bytes("".join(padded))
    begins = np.flatnonzero((data & 0xC0) != 0x80)  # of characters, which may be several bytes
    ends = np.append(begins[1:], len(data))
    rows = np.repeat(np.arange(len(texts)), [len(text) for text in padded])
    is_letter = data[begins] != _SPACE
    parts = []
    for size in _SIZES:
        n_windows = max(0, len(begins) - size + 1)
        is_whole = np.ones(n_windows, dtype=np.bool_)
        for inside in range(1, size - 1):
            is_whole &= is_letter[inside : inside + n_windows]
        first = np.flatnonzero(is_whole)
        starts = begins[first]
        parts.append((starts, ends[first + size - 1] - starts, rows[first]))
    return _Spans(data, *(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _of_words(texts: Sequence[str]) -> _Spans:
    """Words, and two of a text in a row with a space between them."""
    words = [_WORD.findall(text) for text in texts]
    data = _bytes(" ".join(chain.from_iterable(words)))
    rows = np.repeat(np.arange(len(texts)), [len(found) for found in words])
    if not len(rows):
        return _Spans(data, rows, rows, rows)
    spaces = np.flatnonzero(data == _SPACE)
    starts = np.concatenate([[0], spaces + 1])
    ends = np.append(spaces, len(data))
    first = np.flatnonzero(rows[1:] == rows[:-1])
    return _Spans(
        data,
        np.concatenate([starts, starts[first]]),
        np.concatenate([ends - starts, ends[first + 1] - starts[first]]),
        np.concatenate([rows, rows[first]]),
    )


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _murmur3(data: NDArray[np.uint8], starts: Ints, lengths: Ints) -> Hashes:
    """MurmurHash3 (x86, 32 bits, seed 0) of each piece of `data`, shape (n_pieces,).

    Source: Appleby, SMHasher, MurmurHash3.cpp (public domain).
    """
    padded = np.concatenate([data, np.zeros(4, dtype=np.uint8)])
    fours = np.zeros(len(data) + 1, dtype=np.uint32)  # the four bytes from each place on
    for place in range(4):
        fours |= padded[place : place + len(fours)].astype(np.uint32) << np.uint32(8 * place)
    mixed = _mixed(fours)  # once for all pieces that hold these bytes
    n_blocks = lengths >> 2
    hashes = np.zeros(len(starts), dtype=np.uint32)
    for block in range(int(n_blocks.max(initial=0))):
        at = np.flatnonzero(n_blocks > block)
        rotated = _rotated(hashes[at] ^ mixed[starts[at] + 4 * block], 13)
        hashes[at] = rotated * np.uint32(5) + np.uint32(0xE6546B64)
    rest = np.array([0, 0xFF, 0xFFFF, 0xFFFFFF], dtype=np.uint32)[lengths & 3]
    hashes ^= _mixed(fours[starts + 4 * n_blocks] & rest)
    hashes ^= lengths.astype(np.uint32)
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))


def _mixed(fours: Hashes) -> Hashes:
    return _rotated(fours * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)


def _rotated(values: Hashes, n_bits: int) -> Hashes:
    return (values << np.uint32(n_bits)) | (values >> np.uint32(32 - n_bits))
