"""Logistic regression, its L1 kind and a random forest over embeddings of a frozen encoder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import skops.io
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks.matrix.config import ClassicalColumn
from benchmarks.matrix.methods.base import Answers
from benchmarks.matrix.methods.embedding import Features
from benchmarks.matrix.tasks import Rows, Task, Text

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

INVERSE_PENALTY = 10.0
"""Of `flat`, as in the scorecard of red_ray."""


class Classical:
    """See `ClassicalColumn`."""

    def __init__(self, column: ClassicalColumn) -> None:
        self._column = column

    def fit(self, task: Task, seed: int) -> FittedClassical:
        """Learn from all rows; for `lasso` the strength is chosen on the rows held back."""
        features = Features(self._column.model)
        column = self._column
        if column.method == "lasso":
            return self._lasso(features, task, seed)
        if column.method == "random_forest":
            model = RandomForestClassifier(column.n_trees, random_state=seed, n_jobs=1)
        else:
            model = LogisticRegression(C=INVERSE_PENALTY, max_iter=2000)
        return FittedClassical(features, _fitted(model, features, task.everything), ())

    def _lasso(self, features: Features, task: Task, seed: int) -> FittedClassical:
        def model(strength: float) -> LogisticRegression:
            # `saga` is the only one that takes this penalty over all labels at once.
            return LogisticRegression(
                C=strength, l1_ratio=1.0, solver="saga", max_iter=300, tol=1e-3, random_state=seed
            )

        best = chosen(self._column.strengths, model, features, task)
        note = f"C = {best:g} of {len(self._column.strengths)}, chosen on {len(task.select)} rows"
        fitted = _fitted(model(best), features, task.everything)
        return FittedClassical(features, fitted, (note,))


def chosen(
    strengths: Sequence[float],
    model: Callable[[float], LogisticRegression],
    features: Features,
    task: Task,
) -> float:
    """The inverse penalty that is best on the rows held back, the smallest among equals."""
    train, select = features.of(task.train.texts), features.of(task.select.texts)
    right = []
    for strength in sorted(strengths):
        found = _learned(model(strength), train, task.train.labels).predict(select)
        right.append((int((found == task.select.labels).sum()), -strength))
    return -max(right)[1]


def _fitted(model: LogisticRegression, features: Features, rows: Rows) -> LogisticRegression:
    return _learned(model, features.of(rows.texts), rows.labels)


def _learned(model: LogisticRegression, vectors: Floats, labels: Ints) -> LogisticRegression:
    with warnings.catch_warnings():
        # Many labels with few rows each look like a regression target; they are labels.
        warnings.filterwarnings("ignore", message="The number of unique classes")
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        return model.fit(vectors, labels)


class FittedClassical:
    """An encoder and a model of scikit-learn."""

    usd = None

    def __init__(self, features: Features, model: LogisticRegression, notes: Sequence[str]) -> None:
        self._features = features
        self._model = model
        self.notes = notes
        self.history: Sequence[Mapping[str, float]] = ()
        self.device = features.device
        self.n_trained = _n_fitted(model)
        self.n_parameters = features.n_parameters + self.n_trained

    def predict(self, texts: Sequence[Text], batch_size: int) -> Answers:
        """Encode, then classify, so many at a time."""
        parts = [texts[at : at + batch_size] for at in range(0, len(texts), batch_size)]
        found = [self._model.predict(self._features.of(part)) for part in parts]
        return Answers(np.concatenate(found).astype(np.int64))

    def save(self, folder: Path) -> None:
        """Write the model without pickle."""
        skops.io.dump(self._model, folder / "model.skops")

    def close(self) -> None:
        """Give the encoder's threads back."""
        self._features.close()


def _n_fitted(model: LogisticRegression) -> int:
    """Weights of a regression; of a forest the nodes of its trees."""
    if isinstance(model, RandomForestClassifier):
        return sum(int(tree.tree_.node_count) for tree in model.estimators_)
    return int(model.coef_.size + model.intercept_.size)
