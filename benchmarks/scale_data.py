"""Rows of any number of labels for `benchmarks.scale`: real ones while there are any, then made.

Real: the 227 labels of Banking77 and CLINC150, their training texts and MiniLM embeddings. Made: a
label's centre is the sum of two real labels' centres, each without the mean of all and over the
square root of two, so that made labels lie to each other as real ones do; its rows are that centre
plus what real rows of the two differ from theirs, at unit length; its texts are half of the words
of a text of each. The pool is made in the same way around the centres of all labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from benchmarks.data import data_folder, encoder_of
from red_ray.config import RunConfig
from red_ray.core.partition import unit_rows
from red_ray.data.tables import read_table

SETS = ("banking77", "clinc150")
BLOCK_ROWS = 50_000
"""Rows made at a time, which bounds the memory beside the pool itself."""


@dataclass(frozen=True)
class Real:
    """The real rows, label by label.

    Attributes:
        texts: shape (n_rows,).
        vectors: their embeddings, shape (n_rows, dim).
        names: of the labels.
        sizes: rows of each label.
        starts: first row of each label.
        means: mean embedding of each label, shape (n_labels, dim).
    """

    texts: tuple[str, ...]
    vectors: np.ndarray
    names: tuple[str, ...]
    sizes: np.ndarray
    starts: np.ndarray
    means: np.ndarray


@cache
def real() -> Real:
    """The training rows of both sets; each text is encoded once ever."""
    by_label: dict[str, list[str]] = {}
    for name in SETS:
        path = data_folder() / name / "train.csv"
        table = read_table(path, text_column="text", label_column="label")
        for text, label in zip(table.texts, table.labels or (), strict=True):
            by_label.setdefault(str(label), []).append(str(text))
    by_label = {label: list(dict.fromkeys(texts)) for label, texts in by_label.items()}
    texts = tuple(text for rows in by_label.values() for text in rows)
    sizes = np.array([len(rows) for rows in by_label.values()])
    starts = np.cumsum(sizes) - sizes
    vectors = encoder_of(RunConfig()).encode(texts)
    means = np.add.reduceat(vectors, starts) / sizes[:, None]
    return Real(texts, vectors, tuple(by_label), sizes, starts, means)


@dataclass(frozen=True)
class Labels:
    """So many labels, the real ones first.

    Attributes:
        names: no two alike.
        parents: the two real labels that each is made of, twice itself for a real one, (n, 2).
        centres: shape (n, dim).
    """

    names: tuple[str, ...]
    parents: np.ndarray
    centres: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


def labels_of(n_labels: int) -> Labels:
    """The first `n_labels`; more of them change none of these."""
    known = real()
    n_real = min(n_labels, len(known.names))
    rng = np.random.default_rng(0)
    pairs: dict[tuple[int, int], None] = {}
    while len(pairs) < n_labels - n_real:
        first, second = sorted(rng.choice(len(known.names), 2, replace=False))
        pairs[int(first), int(second)] = None
    own = np.repeat(np.arange(n_real)[:, None], 2, axis=1)
    parents = np.concatenate([own, np.array(list(pairs), dtype=np.int64).reshape(-1, 2)])
    middle = known.means.mean(axis=0)
    made = middle + (known.means - middle)[parents[n_real:]].sum(axis=1) / np.sqrt(2)
    names = [*known.names[:n_real], *(f"{known.names[a]}__{known.names[b]}" for a, b in pairs)]
    return Labels(tuple(names), parents, np.concatenate([known.means[:n_real], made]))


def train_rows(
    labels: Labels, per_label: int, rng: np.random.Generator
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """So many distinct rows of each label: their texts, label indices, and embeddings."""
    known = real()
    texts: dict[str, int] = {}
    rows = []
    for label, (first, second) in enumerate(labels.parents):
        if first == second:
            start, size = known.starts[first], known.sizes[first]
            chosen = start + rng.permutation(size)[:per_label]
            texts |= dict.fromkeys((known.texts[row] for row in chosen), label)
            rows.append(known.vectors[chosen])
            continue
        own: dict[str, np.ndarray] = {}
        while len(own) < per_label:
            text, vectors = made_rows(labels, np.array([label]), rng)
            if text[0] not in texts:
                own[text[0]] = vectors[0]
        texts |= dict.fromkeys(own, label)
        rows.append(np.stack(list(own.values())))
    return list(texts), np.array(list(texts.values())), np.concatenate(rows)


def made_rows(
    labels: Labels, wanted: np.ndarray, rng: np.random.Generator
) -> tuple[list[str], np.ndarray]:
    """A made row of each label in `wanted`: texts, and embeddings of shape (n, dim)."""
    known = real()
    parents = labels.parents[wanted]
    first, second = (_drawn(parents[:, side], rng) for side in (0, 1))
    source = np.where(rng.random(len(wanted)) < 0.5, first, second)
    parent = np.where(source == first, parents[:, 0], parents[:, 1])
    residuals = known.vectors[source] - known.means[parent]
    vectors = unit_rows(labels.centres[wanted] + residuals)
    halves = [_halves(text) for text in known.texts] if len(wanted) > 1000 else None
    texts = []
    for a, b in zip(first, second, strict=True):
        left = halves[a] if halves else _halves(known.texts[a])
        right = halves[b] if halves else _halves(known.texts[b])
        texts.append(f"{left[0]} {right[1]}")
    return texts, vectors


def _drawn(real_labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random real row of each label."""
    known = real()
    within = rng.random(len(real_labels)) * known.sizes[real_labels]
    return known.starts[real_labels] + within.astype(np.int64)


def _halves(text: str) -> tuple[str, str]:
    words = text.split()
    middle = (len(words) + 1) // 2
    return " ".join(words[:middle]), " ".join(words[middle:] or words)


def pool_rows(
    labels: Labels, n: int, rng: np.random.Generator
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """A pool around the centres of all labels: texts, embeddings (n, dim), and whose centre."""
    vectors = np.empty((n, labels.centres.shape[1]), dtype=np.float32)
    wanted = rng.integers(0, len(labels), n)
    texts: list[str] = []
    for start in range(0, n, BLOCK_ROWS):
        some = slice(start, start + BLOCK_ROWS)
        made, vectors[some] = made_rows(labels, wanted[some], rng)
        texts += made
    return texts, vectors, wanted
