"""Full fine-tuning: all weights of an encoder and a new head over the labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.matrix.config import FineTuneColumn
from benchmarks.matrix.methods import pretrained
from benchmarks.matrix.methods.base import Answers, Ints
from benchmarks.matrix.methods.pretrained import Machine, batches
from benchmarks.matrix.methods.training import Measured, Training, notes_of, refit, train
from benchmarks.matrix.tasks import Rows, Task, Text
from red_ray.encoding.quiet import quiet_libraries


class FineTune:
    """Fine-tunes an encoder of a folder or a hub."""

    def __init__(self, column: FineTuneColumn) -> None:
        self._column = column

    def fit(self, task: Task, seed: int) -> FineTuned:
        """Train on `task.train`; the epoch is chosen on `task.select`. Or on all, after that.

        Raises:
            ConfigError: there is no such model.
        """
        pretrained.seed_all(seed)
        column = self._column
        machine = pretrained.machine_of(column.num_gpus, column.dtype)
        tokenizer = pretrained.load_tokenizer(column.model)
        model = pretrained.load_classifier(column.model, task.labels).to(machine.device)
        coder = Coder(tokenizer, _longest(column.max_tokens, tokenizer, model))
        fitted = FineTuned(model, coder, machine)
        training = Training(
            model=model,
            rows=coder.labelled(task.train),
            collate=coder.collate,
            measure=lambda: fitted.measure(task.select, column.batch_size),
            column=column,
            machine=machine,
            seed=seed,
        )
        fitted.history = history = train(training)
        if column.refit:
            pretrained.seed_all(seed)
            model = pretrained.load_classifier(column.model, task.labels).to(machine.device)
            refit(training, history, model, coder.labelled(task.everything))
            fitted.model = model
        fitted.notes = [*notes_of(history, is_refit=column.refit), *_precision(machine)]
        return fitted


class Coder:
    """Texts to tokens: a pair by the tokenizer's own form for pairs."""

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        self.tokenizer = tokenizer
        self._max_tokens = max_tokens

    def encode(self, texts: Sequence[Text]) -> dict[str, list[Any]]:
        """Tokens of texts, not yet padded; too long ones are cut, of a pair the longer one."""
        parts = [list(part) for part in zip(*texts, strict=True)]
        return dict(self.tokenizer(*parts, truncation=True, max_length=self._max_tokens))

    def labelled(self, rows: Rows) -> list[Mapping[str, Any]]:
        """Rows for a training."""
        encoded = self.encode(rows.texts)
        return [
            {"labels": int(label), **{name: values[at] for name, values in encoded.items()}}
            for at, label in enumerate(rows.labels)
        ]

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A padded batch of tensors."""
        import torch

        texts = [{name: row[name] for name in row if name != "labels"} for row in rows]
        batch = dict(self.tokenizer.pad(texts, return_tensors="pt"))
        return batch | {"labels": torch.tensor([row["labels"] for row in rows])}

    def batch(self, texts: Sequence[Text], device: str) -> dict[str, Any]:
        """Texts as tensors where the model is."""
        padded = self.tokenizer.pad(self.encode(texts), return_tensors="pt")
        return {name: tensor.to(device) for name, tensor in padded.items()}


class FineTuned:
    """A fine-tuned encoder; see `base.Fitted`."""

    usd: float | None = None

    def __init__(self, model: Any, coder: Coder, machine: Machine) -> None:
        self.model, self._coder, self._machine = model, coder, machine
        self.n_parameters = pretrained.n_parameters(model)
        self.n_trained = pretrained.n_trained(model)
        self.history: Sequence[Mapping[str, float]] = ()
        self.notes: Sequence[str] = ()
        self.device = machine.device

    def predict(self, texts: Sequence[Text], batch_size: int) -> Answers:
        """The most probable label of each text."""
        labels = np.empty(len(texts), np.int64)
        for at, logits in self._logits(texts, batch_size):
            labels[at] = logits.argmax(-1).cpu().numpy()
        return Answers(labels)

    def measure(self, rows: Rows, batch_size: int) -> Measured:
        """Mean cross-entropy and accuracy on rows."""
        import torch

        found = list(self._logits(rows.texts, batch_size))
        logits = torch.cat([one for _, one in found]).float().cpu()
        labels = torch.as_tensor(rows.labels[np.concatenate([at for at, _ in found])])
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return Measured(loss.item(), (logits.argmax(-1) == labels).float().mean().item())

    def save(self, folder: Path) -> None:
        """Write weights in safetensors, configuration and tokenizer, as transformers loads them."""
        with quiet_libraries():
            self.model.save_pretrained(folder)
            self._coder.tokenizer.save_pretrained(folder)

    def close(self) -> None:
        """Give back the model's memory."""
        self.model = None
        pretrained.free_memory()

    def _logits(self, texts: Sequence[Text], batch_size: int) -> Iterator[tuple[Ints, Any]]:
        """Positions of some texts and their logits, batch by batch."""
        import torch

        machine = self._machine
        for at in batches(texts, batch_size):
            batch = self._coder.batch([texts[one] for one in at], machine.device)
            with (
                torch.inference_mode(),
                torch.autocast(machine.device, torch.bfloat16, enabled=machine.is_half),
            ):
                yield at, self.model(**batch).logits


def _longest(max_tokens: int, tokenizer: Any, model: Any) -> int:
    """The column's limit, or the model's where that is lower."""
    # Models of the RoBERTa kind number their positions from 2 on; their tokenizers know.
    positions = getattr(model.config, "max_position_embeddings", max_tokens)
    return int(min(max_tokens, tokenizer.model_max_length, positions))


def _precision(machine: Machine) -> list[str]:
    # In bfloat16 alone a step at a rate of 2e-5 is lost in the rounding of the weight.
    return ["computed in bfloat16, weights kept in float32"] if machine.is_half else []
