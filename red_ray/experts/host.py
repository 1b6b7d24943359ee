"""Holds one or several experts over shared arrays; the plain class behind an expert actor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from red_ray.core.blas import use_one_blas_thread
from red_ray.errors import ForgottenError
from red_ray.experts.base import Expert, ExpertSpec, make_expert

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """Texts that a judge wrote, each to say a labelled row in other words; never scored.

    Attributes:
        rows: as indices into the shared vectors, shape (n_written,).
        labels: their labels, shape (n_written,).
        folds: of the rows that they say again: where that row is held out, its paraphrase is not
            learned either, shape (n_written,).
        weight: what each counts for, beside 1 for a labelled row.
    """

    rows: Ints
    labels: Ints
    folds: Ints
    weight: float


@dataclass(frozen=True, slots=True)
class FitRows:
    """What an expert is fitted on, as indices into the shared vectors.

    Attributes:
        rows: all labelled rows, shape (n_rows,).
        labels: their labels, shape (n_rows,).
        noise: positions in `rows` that are this expert's noise, shape (n_noise,).
        refused: rows without a label that a judge denied one of the expert's labels; learned
            as noise and never held out, shape (n_refused,).
        folds: held-out fold of each labelled row, -1 for never, shape (n_rows,).
        known: all rows that any expert learns from, ascending; see `ExpertHost.crossfit`.
        written: what is learned beside them for the expert's own labels, or None.
    """

    rows: Ints
    labels: Ints
    noise: Ints
    refused: Ints
    folds: Ints
    known: Ints | None = None
    written: WrittenRows | None = None


class ExpertHost:
    """Fits and scores experts by position; knows nothing of other hosts.

    Raises:
        ForgottenError: what a method needs was not given to this process.
    """

    def __init__(self, specs: Sequence[ExpertSpec]) -> None:
        use_one_blas_thread()
        self._specs = tuple(specs)
        self._experts: list[Expert] = [make_expert(spec) for spec in specs]
        self._fitted: set[int] = set()
        self._vectors: Floats | None = None
        self._tuned: dict[int, Floats] = {}

    def load(self, vectors: Floats) -> None:
        """Take the shared vectors, shape (n_texts, dim), which every row index refers to."""
        self._vectors = vectors

    def load_tuned(self, position: int, vectors: Floats) -> None:
        """Take what a SetFit expert looks at in place of these: a fine-tuned encoder's vectors."""
        self._tuned[position] = vectors

    def fit(self, position: int, data: FitRows) -> None:
        """Fit an expert on all rows of its labels and its noise."""
        labels = self._specs[position].labels
        _teach(self._experts[position], self._shared(position), labels, data)
        self._fitted.add(position)

    def crossfit(self, position: int, data: FitRows, *held: Floats) -> Floats:
        """Scores of every labelled row by an expert that had not seen its fold.

        Args:
            position: of the expert.
            data: its rows.
            held: for a SetFit expert one array for each fold: vectors of the `known` rows by an
                encoder that was fine-tuned without the fold, shape (n_known, dim).

        Returns:
            Shape (n_rows, n_labels + 1); rows of fold -1, which are never held out, are zero.
        """
        n_columns = len(self._specs[position].labels) + 1
        scores = np.zeros((len(data.rows), n_columns), dtype=np.float32)
        for fold in range(int(data.folds.max(initial=-1)) + 1):
            of_fold = data.folds == fold
            vectors = _Known(data.known, held[fold]) if held else self._shared(position)
            expert = make_expert(self._specs[position])
            _teach(expert, vectors, self._specs[position].labels, data, fold=fold)
            scores[of_fold] = expert.score(vectors[data.rows[of_fold]])
        return scores

    def score(self, position: int, rows: Ints) -> Floats:
        """Log-probabilities of shared rows; see `Expert.score`."""
        return self._fitted_one(position).score(self._shared(position)[rows])

    def export(self, position: int) -> Expert:
        """The fitted expert itself, for the model."""
        return self._fitted_one(position)

    def _fitted_one(self, position: int) -> Expert:
        if position not in self._fitted:
            raise ForgottenError(f"fit {self._specs[position].name!r} before it is used")
        return self._experts[position]

    def _shared(self, position: int) -> Floats:
        is_tuned = self._specs[position].kind == "setfit"
        vectors = self._tuned.get(position) if is_tuned else self._vectors
        if vectors is None:
            raise ForgottenError("load the shared vectors before an expert is used")
        return vectors


class _Known:
    """Vectors of some rows only, found by their indices into the shared ones."""

    def __init__(self, known: Ints | None, vectors: Floats) -> None:
        if known is None:
            raise ValueError("vectors of an encoder without a fold come with their rows")
        self._known, self._vectors = known, vectors

    def __getitem__(self, rows: Ints) -> Floats:
        found: Floats = self._vectors[np.searchsorted(self._known, rows)]
        return found


def _teach(
    expert: Expert,
    vectors: Floats | _Known,
    labels: Sequence[int],
    data: FitRows,
    *,
    fold: int | None = None,
) -> None:
    """Fit an expert of `labels` on labelled rows and on what was written, without `fold`."""
    rows, classes = training_rows(labels, data, fold=fold)
    written, columns = written_rows(labels, data, fold=fold)
    if data.written is None or not len(written):
        expert.fit(vectors[rows], classes)
        return
    weights = np.repeat([1.0, data.written.weight], [len(rows), len(written)])
    rows, classes = np.concatenate([rows, written]), np.concatenate([classes, columns])
    expert.fit(vectors[rows], classes, weights)


def training_rows(
    labels: Sequence[int], data: FitRows, *, fold: int | None = None
) -> tuple[Ints, Ints]:
    """Labelled and refused rows that an expert of `labels` learns from, without those of `fold`.

    Returns:
        Indices into the shared vectors and the expert's column of each, both (n_rows,).
    """
    columns = _columns(labels, data.labels)
    is_noise = np.zeros(len(data.rows), dtype=bool)
    is_noise[data.noise] = True
    used = (columns >= 0) | is_noise
    if fold is not None:
        used &= data.folds != fold
    classes = np.where(columns >= 0, columns, len(labels))[used]
    rows = np.concatenate([data.rows[used], data.refused])
    refused = np.full(len(data.refused), len(labels))
    return rows, np.concatenate([classes, refused]).astype(np.int64)


def written_rows(
    labels: Sequence[int], data: FitRows, *, fold: int | None = None
) -> tuple[Ints, Ints]:
    """What was written for `labels`, without what says a row of `fold` again.

    Returns:
        Indices into the shared vectors and the expert's column of each, both (n_written,).
    """
    written = data.written
    if written is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    columns = _columns(labels, written.labels)
    used = columns >= 0
    if fold is not None:
        used &= written.folds != fold
    return written.rows[used], columns[used]


def _columns(labels: Sequence[int], of: Ints) -> Ints:
    """The column of each label in `of` for an expert of `labels`, -1 for one of others."""
    column_of = np.full(max(int(of.max(initial=0)), *labels) + 1, -1, dtype=np.int64)
    column_of[list(labels)] = np.arange(len(labels))
    columns: Ints = column_of[of]
    return columns
