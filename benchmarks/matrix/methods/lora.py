"""LoRA: a language model, asked as `zero_shot` is, with trained low-rank changes of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.matrix.config import LoraColumn
from benchmarks.matrix.methods import pretrained
from benchmarks.matrix.methods.asking import Asker, open_asker
from benchmarks.matrix.methods.base import Answers
from benchmarks.matrix.methods.training import Measured, Training, notes_of, refit, train
from benchmarks.matrix.tasks import Rows, Task, Text
from red_ray.encoding.quiet import quiet_libraries

_BY_PROJECTION = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
# All projections of attention and of the feed-forward part, not the head; elsewhere peft finds
# the linear layers itself.
_TARGETS = {
    "qwen2": _BY_PROJECTION,
    "llama": _BY_PROJECTION,
    "mistral": _BY_PROJECTION,
    "gemma": _BY_PROJECTION,
    "gemma2": _BY_PROJECTION,
    "phi3": _FUSED,
}
ALL_LINEAR = "all-linear"
_BESIDE = "the adapter stands beside the weights, not merged into them, which costs some speed"


class Lora:
    """Trains an adapter of a language model of a folder or a hub."""

    def __init__(self, column: LoraColumn) -> None:
        self._column = column

    def fit(self, task: Task, seed: int) -> Adapted:
        """Train the adapter on the prompts of `task.train`, the label's word the only target.

        The epoch is chosen on `task.select` by the accuracy of what is written there and read:
        the figure that is reported, in which an unreadable answer is wrong. The loss of the right
        word knows nothing of those, and only breaks ties.

        Raises:
            ConfigError: there is no such model, or the limits of tokens cannot hold a prompt.
        """
        pretrained.seed_all(seed)
        column = self._column
        asker = open_asker(column, task)
        asker.model = _adapted(asker.model, column)
        fitted = Adapted(asker, is_refit=column.refit)
        held = asker.labelled(task.select)
        training = Training(
            model=asker.model,
            rows=asker.labelled(task.train),
            collate=asker.collate,
            measure=lambda: _measure(asker, task.select, held, column.batch_size),
            column=column,
            machine=asker.machine,
            seed=seed,
        )
        fitted.history = train(training)
        if column.refit:
            pretrained.seed_all(seed)
            asker.model = _adapted(asker.model.unload(), column)
            refit(training, fitted.history, asker.model, asker.labelled(task.everything))
        return fitted


class Adapted:
    """A language model with its adapter; see `base.Fitted`."""

    usd: float | None = None

    def __init__(self, asker: Asker, *, is_refit: bool) -> None:
        self._asker, self._is_refit = asker, is_refit
        self.n_parameters = pretrained.n_parameters(asker.model)
        self.n_trained = pretrained.n_trained(asker.model)
        self.history: Sequence[Mapping[str, float]] = ()
        self.device = asker.machine.device

    @property
    def notes(self) -> list[str]:
        """What a reader should know; of cut texts those of the training and the predicted ones."""
        learned = notes_of(self.history, is_refit=self._is_refit)
        return [*learned, _BESIDE, *self._asker.notes]

    def predict(self, texts: Sequence[Text], batch_size: int) -> Answers:
        """What the model answers; `UNREADABLE` where that names none or several labels."""
        return self._asker.answer(texts, batch_size)

    def save(self, folder: Path) -> None:
        """Write the adapter, as peft loads it onto the model that it was made for."""
        with quiet_libraries():
            self._asker.model.save_pretrained(folder)

    def close(self) -> None:
        """Give back the model's memory."""
        self._asker.model = None
        pretrained.free_memory()


def _adapted(model: Any, column: LoraColumn) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    settings = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=column.rank,
        lora_alpha=column.alpha,
        lora_dropout=column.dropout,
        target_modules=_TARGETS.get(model.config.model_type, ALL_LINEAR),
    )
    with quiet_libraries():
        return get_peft_model(model, settings)


def _measure(
    asker: Asker, rows: Rows, encoded: Sequence[Mapping[str, Any]], batch_size: int
) -> Measured:
    answers = asker.answer(rows.texts, batch_size)
    accuracy = float(np.mean(answers.labels == rows.labels))
    return Measured(asker.loss(encoded, batch_size), accuracy)
