"""What a method is to the matrix: it learns from a task's rows and answers for other texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.matrix.tasks import Task, Text

Ints = NDArray[np.int64]

UNREADABLE = -1
"""Stands for the label of an answer that names none, or several: wrong, and counted as itself."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a method says of some texts.

    Attributes:
        labels: index of each text's label, `UNREADABLE` where there is none, shape (n_texts,).
        raw: what was written, where a language model wrote; else empty.
    """

    labels: Ints
    raw: tuple[str, ...] = ()


class Fitted(Protocol):
    """A method that has learned.

    Attributes:
        n_parameters: of all models that a prediction needs; 0 where that is not known.
        n_trained: of them those that were trained on the task.
        history: one entry an epoch, with `epoch`, `train_loss`, `select_loss` and
            `select_accuracy` where there are such; empty for what has no epochs.
        usd: what it cost so far, of what is paid by the call; None where nothing is.
        device: `cpu` or `cuda`.
        notes: one line for each thing that a reader of the table should know.
    """

    n_parameters: int
    n_trained: int
    history: Sequence[Mapping[str, float]]
    usd: float | None
    device: str
    notes: Sequence[str]

    def predict(self, texts: Sequence[Text], batch_size: int) -> Answers:
        """Answers for texts, so many at a time; prompts and tokens are made here, too."""

    def save(self, folder: Path) -> None:
        """Write what was trained, for `best_model/`."""

    def close(self) -> None:
        """Give back what it holds."""


class Method(Protocol):
    """Learns; never sees the rows that are reported on."""

    def fit(self, task: Task, seed: int) -> Fitted:
        """Learn from `task.train`; whatever is chosen is chosen on `task.select`."""
