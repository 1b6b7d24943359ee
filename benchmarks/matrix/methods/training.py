"""The training that fine-tuning and LoRA share: transformers' Trainer, and the best epoch kept.

After each epoch the rows held back of train are measured, and the weights stay as they were after
the epoch with the highest accuracy there; of equal ones the one with the lower loss. Or a fresh
model learns from all rows for as many epochs (`refit`). The model
before the training is measured, too, but never chosen: what is reported was trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks.matrix.config import FineTuneColumn, LoraColumn
from benchmarks.matrix.history import best_epoch
from benchmarks.matrix.methods.pretrained import Machine

Row = Mapping[str, Any]


class Measured(NamedTuple):
    """Of the rows held back: mean loss, and the share that is right."""

    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained, and how.

    Attributes:
        model: of it all weights that require a gradient are trained, in place.
        rows: in tokens.
        collate: makes a batch of some rows, its `labels` among the tensors.
        measure: measures the model as it stands on the rows held back; None where none are.
        column: says epochs, rate, batch and patience.
        machine: where.
        seed: of the order of rows and of dropout.
    """

    model: Any
    rows: Sequence[Row]
    collate: Callable[[Sequence[Row]], Mapping[str, Any]]
    measure: Callable[[], Measured] | None
    column: FineTuneColumn | LoraColumn
    machine: Machine
    seed: int


@dataclass(slots=True)
class _Epochs:
    """Measures each epoch, keeps the best one's weights in a file, and says when to stop."""

    model: Any
    measure: Callable[[], Measured]
    patience: int | None
    file: Path
    history: list[dict[str, float]] = field(default_factory=list)

    def before(self) -> None:
        """Measure the model as it came."""
        loss, accuracy = self._measured()
        self.history.append({"epoch": 0, "select_loss": loss, "select_accuracy": accuracy})

    def after(self, train_loss: float) -> bool:
        """Measure the model after an epoch; whether it was the last one, by the patience."""
        loss, accuracy = self._measured()
        epoch = len(self.history)
        self.history.append(
            {
                "epoch": epoch,
                "train_loss": train_loss,
                "select_loss": loss,
                "select_accuracy": accuracy,
            }
        )
        best = best_epoch(self.history)
        if best == epoch:
            _keep(self.model, self.file)
        return self.patience is not None and epoch - best >= self.patience

    def _measured(self) -> Measured:
        import torch

        self.model.eval()
        with torch.inference_mode():
            measured = self.measure()
        self.model.train()
        return measured


def train(training: Training) -> list[dict[str, float]]:
    """Train a model in place and leave it at its best epoch; at the last where none are measured.

    Returns:
        One entry an epoch that was measured, with `epoch`, `train_loss`, `select_loss`,
        `select_accuracy`; the first one, epoch 0, is the model before the training and has no
        `train_loss`.
    """
    from transformers import PrinterCallback, Trainer

    with TemporaryDirectory(prefix="red-ray-matrix-") as folder:
        epochs = None
        if training.measure is not None:
            file = Path(folder) / "best.safetensors"
            epochs = _Epochs(training.model, training.measure, training.column.patience, file)
        trainer = Trainer(
            model=training.model,
            args=_arguments(training, folder),
            train_dataset=list(training.rows),
            data_collator=training.collate,
            callbacks=[] if epochs is None else [_callback(epochs)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        if epochs is not None:
            _put_back(training.model, epochs.file)
    training.model.eval()
    return [] if epochs is None else epochs.history


def refit(
    training: Training, history: Sequence[Mapping[str, float]], model: Any, rows: Sequence[Row]
) -> None:
    """Train a fresh model on all rows for as many epochs as were best; nothing is measured."""
    column = training.column.model_copy(update={"epochs": best_epoch(history)})
    train(replace(training, model=model, rows=rows, measure=None, column=column))


def notes_of(history: Sequence[Mapping[str, float]], *, is_refit: bool) -> list[str]:
    """What a reader of a trained column should know."""
    epoch = best_epoch(history)
    best = history[epoch]
    notes = [
        f"epoch {epoch} of {len(history) - 1} was "
        + ("best: " if is_refit else "kept: ")
        + f"{100 * best['select_accuracy']:.1f} % right of the rows held back of train"
        + (f"; then it learned anew, {epoch} epochs of all rows" if is_refit else "")
    ]
    if history[0]["select_accuracy"] >= best["select_accuracy"]:
        notes.append(
            "no gain on the rows held back: before the training "
            f"{100 * history[0]['select_accuracy']:.1f} % of them were right"
        )
    return notes


def _callback(epochs: _Epochs) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Hears of an epoch's end by its log line, which has the epoch's mean loss."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            epochs.before()

        def on_log(self, _args: Any, _state: Any, control: Any, logs: Any, **_: Any) -> None:
            if "loss" in logs and epochs.after(float(logs["loss"])):
                control.should_training_stop = True

    return Watch()


def _arguments(training: Training, folder: str) -> Any:
    from transformers import TrainingArguments

    column, is_cpu = training.column, training.machine.device == "cpu"
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=column.epochs,
        learning_rate=column.learning_rate,
        warmup_steps=_warmup_steps(training),
        per_device_train_batch_size=column.batch_size,
        seed=training.seed,
        data_seed=training.seed,
        bf16=training.machine.is_half,
        use_cpu=is_cpu,
        dataloader_pin_memory=not is_cpu,
        remove_unused_columns=False,
        train_sampling_strategy="group_by_length",  # short texts are not padded to long ones
        label_names=["labels"],
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # a loss that is no number is to be seen
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _warmup_steps(training: Training) -> int:
    column = training.column
    per_epoch = math.ceil(len(training.rows) / column.batch_size)
    return round(column.warmup * per_epoch * column.epochs)


def _keep(model: Any, file: Path) -> None:
    """Write the trained weights; to a file, so that they do not count as the method's memory."""
    from safetensors.torch import save_file

    weights = {
        name: one.detach().cpu().contiguous()
        for name, one in model.named_parameters()
        if one.requires_grad
    }
    save_file(weights, file)


def _put_back(model: Any, file: Path) -> None:
    import torch
    from safetensors.torch import load_file

    weights = load_file(file)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if name in weights:
                one.copy_(weights[name])
