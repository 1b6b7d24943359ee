"""Samples, splits and folds; all randomness comes from the generator that is passed in.

Labels are visited in sorted order, never in the order of the file, so which occurrence of a
label is drawn does not depend on the rows of other labels around it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import numpy.typing as npt

from red_ray.core.text import text_key
from red_ray.errors import ConfigError, DataError

Indices = npt.NDArray[np.int64]


def sample_per_class(labels: Sequence[str], n: int, rng: np.random.Generator) -> Indices:
    """Draw up to `n` rows of each label, without replacement.

    Args:
        labels: label of each row.
        n: rows per label; of a label with fewer, all.
        rng: source of the draw.

    Returns:
        Row indices, ascending, shape (n_drawn,).
    """
    drawn = [rng.permutation(rows)[:n] for rows in _rows_by_label(labels)]
    return _sorted(drawn)


def stratified_split(
    labels: Sequence[str], fraction: float, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """Hold back a share of every label's rows.

    The shares are rounded so that together they meet `fraction` even where each label has few
    rows: a label gets the whole number below or above its share (systematic sampling). A label
    never loses its last row; one with a single row stays whole.

    Args:
        labels: label of each row.
        fraction: share to hold back, between 0 and 1, both excluded.
        rng: source of the draw.

    Returns:
        (rest, held): row indices, each ascending, together every row once.

    Raises:
        ConfigError: `fraction` is out of range.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"the fraction to hold back must lie between 0 and 1, got {fraction!r}")
    groups = list(_rows_by_label(labels))
    sizes = np.array([len(rows) for rows in groups], dtype=np.int64)
    # One offset for all labels: the running total of the held rows follows that of the shares.
    running = np.floor(np.cumsum(sizes * fraction) + rng.random()).astype(np.int64)
    n_held = np.minimum(np.diff(running, prepend=0), sizes - 1)
    shuffled = [rng.permutation(rows) for rows in groups]
    held = [rows[:n] for rows, n in zip(shuffled, n_held, strict=True)]
    rest = [rows[n:] for rows, n in zip(shuffled, n_held, strict=True)]
    return _sorted(rest), _sorted(held)


def stratified_folds(
    labels: npt.NDArray[np.integer[Any]], n_folds: int, rng: np.random.Generator
) -> Indices:
    """Give each row the fold in which it is held out, the rows of a label evenly spread.

    Every row that is held out leaves another row of its label to learn from. The first fold of
    a label is random, so that small labels do not all crowd into the first folds.

    Args:
        labels: label of each row as an integer, shape (n_rows,).
        n_folds: number of folds, at least 2.
        rng: source of the draw.

    Returns:
        Fold of each row, shape (n_rows,), in 0 … n_folds - 1; -1 for the only row of a label,
        which is never held out.

    Raises:
        ConfigError: `n_folds` is below 2.
    """
    if n_folds < 2:
        raise ConfigError(f"cross-fitting takes at least 2 folds, got {n_folds!r}")
    folds = np.full(len(labels), -1, dtype=np.int64)
    for rows in _rows_by_label(labels):
        if len(rows) > 1:
            spread = (rng.integers(n_folds) + np.arange(len(rows))) % n_folds
            folds[rng.permutation(rows)] = spread
    return folds


def without_leaks(test_texts: Sequence[str], seen_keys: AbstractSet[str]) -> tuple[Indices, int]:
    """Drop the test rows whose text was seen in training.

    Args:
        test_texts: texts of the test rows.
        seen_keys: text keys of everything that was learnt from.

    Returns:
        Indices of the rows that are kept, ascending, and how many were dropped.
    """
    kept = [row for row, text in enumerate(test_texts) if text_key(text) not in seen_keys]
    return np.array(kept, dtype=np.int64), len(test_texts) - len(kept)


def assert_disjoint(splits: Mapping[str, Sequence[str]]) -> None:
    """Refuse splits of our own that share a text.

    Args:
        splits: texts by the name of their split, such as "train".

    Raises:
        DataError: two splits share texts after normalising; says which and how many.
    """
    keys = {name: {text_key(text) for text in texts} for name, texts in splits.items()}
    for first, second in itertools.combinations(keys, 2):
        shared = len(keys[first] & keys[second])
        if shared:
            raise DataError(
                f"the splits {first!r} and {second!r} share {shared} "
                f"{'text' if shared == 1 else 'texts'} after normalising; drop repeats before "
                "the rows are split"
            )


def _rows_by_label(labels: Sequence[str] | npt.NDArray[Any]) -> Iterator[Indices]:
    """The rows of each label, ascending, the labels in sorted order."""
    _, codes = np.unique(np.asarray(labels), return_inverse=True)
    order = np.argsort(codes, kind="stable").astype(np.int64)
    starts = np.flatnonzero(np.diff(codes[order])) + 1
    yield from np.split(order, starts) if len(order) else ()


def _sorted(parts: Sequence[Indices]) -> Indices:
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *parts]))
