"""Plain SetFit: the library's own model and trainer, one model for all labels."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.matrix.config import SetFitColumn
from benchmarks.matrix.methods.base import Answers
from benchmarks.matrix.tasks import Task, Text, joined
from red_ray.encoding.files import find_model


class SetFit:
    """See `SetFitColumn`."""

    def __init__(self, column: SetFitColumn) -> None:
        self._column = column

    def fit(self, task: Task, seed: int) -> FittedSetFit:
        """Train by contrast, then the head, on all rows: the library chooses nothing."""
        from datasets import Dataset
        from setfit import SetFitModel, Trainer, TrainingArguments

        column, rows = self._column, task.everything
        model = SetFitModel.from_pretrained(str(find_model(column.model)), labels=task.labels)
        texts = [joined(text, task.columns) for text in rows.texts]
        data = Dataset.from_dict({"text": texts, "label": rows.labels.tolist()})
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                batch_size=column.batch_size,
                num_epochs=column.epochs,
                max_steps=column.max_steps,
                seed=seed,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
            )
            Trainer(model=model, args=arguments, train_dataset=data).train()
        return FittedSetFit(model, task.columns)


class FittedSetFit:
    """The library's model."""

    usd = None

    def __init__(self, model: Any, columns: Sequence[str]) -> None:
        self._model = model
        self._columns = columns
        self.history: Sequence[Mapping[str, float]] = ()
        self.notes: Sequence[str] = ()
        self.device = model.device.type
        head = model.model_head
        n_head = int(head.coef_.size + head.intercept_.size)
        self.n_parameters = n_head + sum(one.numel() for one in model.model_body.parameters())
        self.n_trained = self.n_parameters  # the whole body is tuned

    def predict(self, texts: Sequence[Text], batch_size: int) -> Answers:
        """As the library does."""
        plain = [joined(text, self._columns) for text in texts]
        proba = self._model.predict_proba(
            plain, batch_size=batch_size, as_numpy=True, show_progress_bar=False
        )
        return Answers(np.asarray(proba).argmax(axis=1).astype(np.int64))

    def save(self, folder: Path) -> None:
        """Write the tuned body; the library would pickle the head, so that stands beside it."""
        self._model.model_body.save(str(folder))
        head = self._model.model_head
        np.savez(folder / "head.npz", weights=head.coef_, bias=head.intercept_)

    def close(self) -> None:
        """Nothing to give back."""
