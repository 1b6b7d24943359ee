"""What any method has to beat: the most frequent label, and labels drawn as train has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.matrix.config import ConstantColumn
from benchmarks.matrix.methods.base import Answers
from benchmarks.matrix.tasks import Task, Text


class Constant:
    """See `ConstantColumn`."""

    def __init__(self, column: ConstantColumn) -> None:
        self._is_majority = column.method == "majority"

    def fit(self, task: Task, seed: int) -> FittedConstant:
        """Count train's labels."""
        counts = np.bincount(task.everything.labels, minlength=len(task.labels))
        share = counts / counts.sum()
        if self._is_majority:
            share = np.eye(len(counts))[counts.argmax()]
        return FittedConstant(share, seed)


class FittedConstant:
    """Looks at no text."""

    n_parameters = 0
    n_trained = 0
    usd = None
    device = "cpu"

    def __init__(self, share: np.ndarray, seed: int) -> None:
        self._share = share
        self._rng = np.random.default_rng([seed, 11])
        self.history: Sequence[Mapping[str, float]] = ()
        self.notes: Sequence[str] = ()

    def predict(self, texts: Sequence[Text], batch_size: int) -> Answers:  # noqa: ARG002
        """A draw for each text."""
        return Answers(self._rng.choice(len(self._share), size=len(texts), p=self._share))

    def save(self, folder: Path) -> None:
        """Write the shares."""
        np.save(folder / "shares.npy", self._share)

    def close(self) -> None:
        """Nothing to give back."""
