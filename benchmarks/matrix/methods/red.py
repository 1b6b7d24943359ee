"""R.E.D. without a judge, in one of its modes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.data import train_alone
from benchmarks.matrix.config import RedColumn
from benchmarks.matrix.methods.base import Answers
from benchmarks.matrix.plan import size_of_model
from benchmarks.matrix.tasks import Task, Text, joined
from red_ray.config import RunConfig, load_config
from red_ray.encoding import open_encoder
from red_ray.model import RedModel
from red_ray.training import TrainingJob


class Red:
    """See `RedColumn`."""

    def __init__(self, column: RedColumn) -> None:
        self._column = column

    def fit(self, task: Task, seed: int) -> FittedRed:
        """Train in this process, on all rows: what is chosen is chosen by cross-fitting."""
        stated = {"mode": self._column.mode, "seed": seed, **self._column.settings}
        config, rows = load_config(None, stated), task.everything
        texts = tuple(joined(text, task.columns) for text in rows.texts)
        names = tuple(task.labels[at] for at in rows.labels)
        # A store of its own: what another cell encoded or tuned would cost nothing here.
        with tempfile.TemporaryDirectory() as store:
            encoder = config.encoder.model_copy(update={"store": store})
            own = config.model_copy(update={"encoder": encoder})
            job = TrainingJob(texts, names, (), {}, own)
            model = train_alone(job, open_encoder(own.encoder)).model
        return FittedRed(model, config, task)


class FittedRed:
    """A trained model with its encoder, without a store."""

    usd = None

    def __init__(self, model: RedModel, config: RunConfig, task: Task) -> None:
        self._model = replace(model, encoder=model.load_encoder())
        self._columns = task.columns
        # The model may not know a label that has no row, nor have them in the task's order.
        self._index = np.array([task.labels.index(name) for name in model.labels])
        self.history: Sequence[Mapping[str, float]] = ()
        self.notes: Sequence[str] = (f"{len(model.subsets)} experts",)
        self.device = model.encoder_spec.device if model.encoder_spec is not None else "cpu"
        n_encoder = size_of_model(config.encoder.model) or 0
        n_tuned = 0 if model.tuned is None else n_encoder
        self.n_trained = _n_fitted(model) + n_tuned
        self.n_parameters = n_encoder + self.n_trained

    def predict(self, texts: Sequence[Text], batch_size: int) -> Answers:
        """The most probable label; nothing is escalated, and *none* is no label of a task."""
        plain = [joined(text, self._columns) for text in texts]
        batches = (plain[at : at + batch_size] for at in range(0, len(plain), batch_size))
        best = [seen.label_proba.argmax(axis=1) for seen in self._model.assessments(batches)]
        return Answers(self._index[np.concatenate(best)].astype(np.int64))

    def save(self, folder: Path) -> None:
        """Write the bundle."""
        from red_ray.bundle import save_bundle

        save_bundle(self._model, folder / "bundle", {})

    def close(self) -> None:
        """Give the encoder's threads back."""
        close = getattr(self._model.encoder, "close", None)
        if close is not None:
            close()


def _n_fitted(model: RedModel) -> int:
    """Weights of experts, gate and router."""
    experts = [*model.experts, *([model.gate] if model.gate is not None else [])]
    arrays = [value for one in experts for value in vars(one).values()]
    n_experts = sum(value.size for value in arrays if isinstance(value, np.ndarray))
    return n_experts + model.router.weights.size
