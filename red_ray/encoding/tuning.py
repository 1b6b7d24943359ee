"""Contrastive fine-tuning: an encoder whose vectors of one label lie together.

The loss is the supervised contrastive one; a batch holds a few texts of each of a few labels, half
of the labels near neighbours of the others, so that the hard confusions meet. Batches are drawn,
never listed: time and memory depend on the number of steps and not on the number of pairs, which
grows with the square of the rows.

Sources: Khosla et al., Supervised Contrastive Learning (2020); Tunstall et al., Efficient Few-Shot
Learning Without Prompts (2022), which is SetFit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from red_ray.core.text import encodable
from red_ray.encoding.encoder import load_for_training, private_tokenizer, use_one_intra_op_thread
from red_ray.encoding.files import find_model
from red_ray.encoding.resolve import spec_of_folder
from red_ray.encoding.spec import EncoderSpec
from red_ray.encoding.weights import TunedWeights
from red_ray.errors import EncoderError

if TYPE_CHECKING:
    import torch

    from red_ray.config import EncoderConfig, SetFitConfig

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_NUMERICS = 1  # part of every key; raise it when our code changes so that the result does

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises; it then falls to 0 in a straight line."""

WEIGHT_DECAY = 0.01
MAX_GRADIENT = 1.0
GROUP = 16
"""Texts of a batch that go through the model together, those of a length: padding a batch to its
longest text costs three times the work (measured on Banking77)."""

MAX_TOKENS = 64
"""Texts are cut there while an encoder is fine-tuned, which bounds the time of a step."""

CANDIDATES = 4
"""Nearest labels of a drawn one, each of which joins the batch with probability one half."""


@dataclass(frozen=True, slots=True)
class TuningRows:
    """What an encoder is fine-tuned on.

    Attributes:
        texts: the labelled texts.
        labels: their labels, shape (n_rows,).
        vectors: what the encoder made of them before, shape (n_rows, dim); says which labels
            are near each other.
    """

    texts: tuple[str, ...]
    labels: Ints
    vectors: Floats


def tuning_key(spec: EncoderSpec, rows: TuningRows, settings: SetFitConfig, seed: int) -> str:
    """SHA-256 in hex over all that decides the result of `tune`."""
    deciding = [_NUMERICS, spec.key, settings.model_dump(), seed, rows.texts, rows.labels.tolist()]
    text = json.dumps(deciding, sort_keys=True)  # escapes half a surrogate pair
    return hashlib.sha256(text.encode()).hexdigest()


def tune(
    config: EncoderConfig, rows: TuningRows, settings: SetFitConfig, *, seed: int
) -> TunedWeights:
    """Fine-tune the upper layers of an encoder; on one kind of machine always the same bits.

    Args:
        config: the encoder.
        rows: what it learns from, at least two labels.
        settings: how.
        seed: of the batches and of dropout.

    Raises:
        EncoderError: the model cannot be found or does not load, or has no layers to tune.
    """
    folder = find_model(config.model, config.revision)
    spec = spec_of_folder(config, folder)
    use_one_intra_op_thread()  # sums differ with the number of threads
    tuner = _Tuner(load_for_training(folder, spec), spec, rows.texts, settings, seed)
    for batch, rate in _plan(rows, settings, seed):
        tuner.step(batch, rows.labels[batch], rate)
    return TunedWeights(tuner.tensors())


def n_steps(n_rows: int, settings: SetFitConfig) -> int:
    """Steps of a fine-tuning on so many rows."""
    batch = settings.labels_per_batch * settings.texts_per_label
    wanted = round(settings.epochs * n_rows / batch)
    return int(np.clip(wanted, settings.min_steps, settings.max_steps))


def draw_batch(
    rows_of: Sequence[Ints], near: Ints, settings: SetFitConfig, rng: np.random.Generator
) -> Ints:
    """Rows of a batch: some texts of some labels, half of these near neighbours of the others.

    Args:
        rows_of: the rows of each label.
        near: the nearest labels of each, nearest first, shape (n_labels, at most `CANDIDATES`).
        settings: how many labels, and texts of each.
        rng: source of the draw.
    """
    wanted = min(settings.labels_per_batch, len(rows_of))
    labels: dict[int, None] = {}
    while len(labels) < wanted:
        drawn = int(rng.integers(len(rows_of)))
        joined = near[drawn][rng.random(near.shape[1]) < 0.5]
        labels |= dict.fromkeys([drawn, *map(int, joined)])
    chosen = sorted(list(labels)[:wanted])
    each = (min(settings.texts_per_label, len(rows_of[label])) for label in chosen)
    drawn_rows = [
        rng.choice(rows_of[label], n, replace=False) for label, n in zip(chosen, each, strict=True)
    ]
    return np.concatenate(drawn_rows)


def nearest_labels(vectors: Floats, labels: Ints) -> Ints:
    """The nearest other labels of each by their mean vectors, shape (n_labels, n_near)."""
    means = np.stack([vectors[labels == label].mean(axis=0) for label in np.unique(labels)])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    cosine = means @ means.T
    np.fill_diagonal(cosine, -np.inf)
    return np.argsort(-cosine, axis=1, kind="stable")[:, : min(CANDIDATES, len(means) - 1)]


def contrastive_loss(
    vectors: torch.Tensor, labels: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Supervised contrastive loss of a batch: how unlikely each text's own kind is beside it.

    Args:
        vectors: of unit length, shape (n_texts, dim).
        labels: shape (n_texts,).
        temperature: cosines are divided by it.

    Source: Khosla et al. (2020), the sum outside of the logarithm; texts alone of their label in
    the batch have no term.
    """
    import torch

    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    cosine = (vectors @ vectors.T / temperature).masked_fill(itself, -torch.inf)
    log_share = cosine - torch.logsumexp(cosine, dim=1, keepdim=True)
    alike = (labels[:, None] == labels[None, :]) & ~itself
    n_alike = alike.sum(dim=1)
    mean = log_share.masked_fill(~alike, 0.0).sum(dim=1) / n_alike.clamp(min=1)
    return -mean.sum() / (n_alike > 0).sum().clamp(min=1)


def upper_layers(model: torch.nn.Module, n: int) -> dict[str, torch.nn.Parameter]:
    """The parameters of the last `n` layers of a transformer, by name.

    Raises:
        EncoderError: it has no list of layers.
    """
    import torch

    lists = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, torch.nn.ModuleList)
    ]
    if not lists:
        raise EncoderError(
            "the encoder has no list of layers, so its upper ones cannot be fine-tuned; choose "
            "another encoder.model, or another expert.kind"
        )
    name, layers = max(lists, key=lambda one: len(one[1]))
    first = max(0, len(layers) - n)
    prefixes = tuple(f"{name}.{position}." for position in range(first, len(layers)))
    return {key: value for key, value in model.named_parameters() if key.startswith(prefixes)}


class _Tuner:
    """A model in training."""

    def __init__(
        self,
        model: Any,
        spec: EncoderSpec,
        texts: Sequence[str],
        settings: SetFitConfig,
        seed: int,
    ) -> None:
        import torch

        self._spec, self._temperature = spec, settings.temperature
        self._transformer, *self._head = list(model)
        self._trained = upper_layers(self._transformer.auto_model, settings.layers)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in self._trained.values():
            parameter.requires_grad_(True)
        # In bfloat16 a small step would be lost. Not torch's autocast: what it keeps of weights is
        # shared by all threads, so that no two runs would be the same.
        self._exact = [parameter.detach().float() for parameter in self._trained.values()]
        _sow_dropout(model, settings.dropout, torch.Generator(spec.device).manual_seed(seed))
        self._optimizer = torch.optim.AdamW(self._exact, weight_decay=WEIGHT_DECAY)
        tokenizer = private_tokenizer(model, min(spec.max_tokens, MAX_TOKENS))
        encoded = tokenizer.encode_batch_fast([encodable(spec.prompt + text) for text in texts])
        self._ids = [torch.tensor(one.ids) for one in encoded]
        self._pad_id = int(model.tokenizer.pad_token_id or 0)

    def step(self, rows: Ints, labels: Ints, rate: float) -> None:
        """One step of the optimiser on a batch."""
        import torch

        for group in self._optimizer.param_groups:
            group["lr"] = rate
        order = np.argsort([len(self._ids[row]) for row in rows], kind="stable")
        groups = [rows[order[start : start + GROUP]] for start in range(0, len(rows), GROUP)]
        vectors = torch.cat([self._vectors(group) for group in groups])
        own = torch.from_numpy(labels[order]).to(vectors.device)
        loss = contrastive_loss(vectors, own, self._temperature)
        loss.backward()  # type: ignore[no-untyped-call]
        self._take_step()

    def _take_step(self) -> None:
        """Change the exact parameters by the gradients of those in use, and then these."""
        import torch

        for exact, used in zip(self._exact, self._trained.values(), strict=True):
            exact.grad = None if used.grad is None else used.grad.float()
            used.grad = None
        torch.nn.utils.clip_grad_norm_(self._exact, MAX_GRADIENT)
        self._optimizer.step()
        with torch.no_grad():
            for exact, used in zip(self._exact, self._trained.values(), strict=True):
                used.copy_(exact)

    def tensors(self) -> bytes:
        """The trained parameters, as a safetensors file, in the encoder's precision."""
        from safetensors.torch import save

        kept = {
            name: parameter.detach().cpu().contiguous() for name, parameter in self._trained.items()
        }
        return save(kept)

    def _vectors(self, rows: Ints) -> torch.Tensor:
        """Vectors of some texts, of unit length, shape (n_texts, dim)."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        ids = [self._ids[row] for row in rows]
        padded = pad_sequence(ids, batch_first=True, padding_value=self._pad_id)
        mask = pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
        device = self._spec.device
        features: dict[str, Any] = self._transformer(
            {"input_ids": padded.to(device), "attention_mask": mask.to(device)}
        )
        features["token_embeddings"] = features["token_embeddings"].float()
        for module in self._head:
            features = module(features)
        vectors = features["sentence_embedding"][:, : self._spec.truncate_dim]
        return torch.nn.functional.normalize(vectors, dim=1)


def _sow_dropout(model: torch.nn.Module, share: float, source: torch.Generator) -> None:
    """Let the dropouts of a model draw from one source, in evaluation mode too.

    torch's own share one source with all threads of a process, so that nothing would be the same
    twice. Dropout of attention shares has no module of its own and stays off.
    """
    import torch

    class Dropout(torch.nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            kept = torch.empty_like(values).bernoulli_(1 - share, generator=source)
            return values * kept / (1 - share)

    for part in [*model.modules()]:
        for name, inner in part.named_children():
            if type(inner) is torch.nn.Dropout:
                setattr(part, name, Dropout())


def _plan(rows: TuningRows, settings: SetFitConfig, seed: int) -> Iterator[tuple[Ints, float]]:
    """The batches and their learning rates."""
    _, labels = np.unique(rows.labels, return_inverse=True)
    rows_of = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    near = nearest_labels(rows.vectors, labels)
    rng = np.random.default_rng([seed, 3])
    total = n_steps(len(labels), settings)
    for step in range(total):
        rising = (step + 1) / max(1, round(WARM_UP * total))
        falling = (total - step) / total
        rate = settings.learning_rate * min(1.0, rising) * falling
        yield draw_batch(rows_of, near, settings, rng), rate
