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
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

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

logger = logging.getLogger(__name__)

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

LOOKS, PATIENCE = 5, 2
"""Looks at the watched rows while an encoder is fine-tuned, evenly spread over its steps; it stops
after so many in a row that are no better than the best one before."""

WATCHED, LOOKED_AT = 1000, 8
"""Watched rows, and learned ones of each label, that a look encodes at most."""

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
        share: of the steps that are made, in (0, 1]: the others are left out at the end.
        watched: rows that are not learned and say when to stop, their texts and labels; the
            labels are among `labels`. With none, all steps are made.
    """

    texts: tuple[str, ...]
    labels: Ints
    vectors: Floats
    share: float = 1.0
    watched: tuple[tuple[str, ...], Ints] | None = None


def tuning_key(spec: EncoderSpec, rows: TuningRows, settings: SetFitConfig, seed: int) -> str:
    """SHA-256 in hex over all that decides the result of `tune`."""
    deciding = [_NUMERICS, spec.key, settings.model_dump(), seed, rows.texts, rows.labels.tolist()]
    if rows.watched is not None:
        deciding.append(["watched", rows.watched[0], rows.watched[1].tolist()])
    if rows.share != 1.0:
        deciding.append(["share", rows.share])
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
    tuner = _Tuner(load_for_training(folder, spec), spec, rows, settings, seed)
    total = n_steps(len(rows.texts), settings)
    watch = None if rows.watched is None else _Watch(tuner, rows, total)
    plan = islice(_plan(rows, settings, seed), max(1, round(rows.share * total)))
    for step, (batch, rate) in enumerate(plan, start=1):
        tuner.step(batch, rows.labels[batch], rate)
        if watch is not None and watch.says_stop(step):
            break
    return TunedWeights(tuner.tensors() if watch is None else watch.best)


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


def label_means(vectors: Floats, labels: Ints) -> Floats:
    """Mean vector of each label that occurs, of unit length, shape (n_labels, dim)."""
    means = np.stack([vectors[labels == label].mean(axis=0) for label in np.unique(labels)])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return means


def nearest_labels(vectors: Floats, labels: Ints) -> Ints:
    """The nearest other labels of each by their mean vectors, shape (n_labels, n_near)."""
    means = label_means(vectors, labels)
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
        rows: TuningRows,
        settings: SetFitConfig,
        seed: int,
    ) -> None:
        import torch

        self._spec, self.temperature = spec, settings.temperature
        self._transformer, *self._head = list(model)
        self._trained = upper_layers(self._transformer.auto_model, settings.layers)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in self._trained.values():
            parameter.requires_grad_(True)
        # In bfloat16 a small step would be lost. Not torch's autocast: what it keeps of weights is
        # shared by all threads, so that no two runs would be the same.
        self._exact = [parameter.detach().float() for parameter in self._trained.values()]
        source = torch.Generator(spec.device).manual_seed(seed)
        self._dropout = _Dropout(settings.dropout, source)
        self._dropout.sow(model)
        self._optimizer = torch.optim.AdamW(self._exact, weight_decay=WEIGHT_DECAY)
        tokenizer = private_tokenizer(model, min(spec.max_tokens, MAX_TOKENS))
        texts = (*rows.texts, *(() if rows.watched is None else rows.watched[0]))
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
        loss = contrastive_loss(vectors, own, self.temperature)
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

    def encoded(self, texts: Ints) -> Floats:
        """Vectors of some texts as the encoder is now, shape (n_texts, dim)."""
        import torch

        order = np.argsort([len(self._ids[text]) for text in texts], kind="stable")
        groups = (order[start : start + GROUP] for start in range(0, len(order), GROUP))
        with torch.no_grad(), self._dropout.off():
            vectors = torch.cat([self._vectors(texts[group]) for group in groups]).cpu().numpy()
        found: Floats = vectors[np.argsort(order)]
        return found

    def tensors(self, about: dict[str, str] | None = None) -> bytes:
        """The trained parameters, as a safetensors file, in the encoder's precision."""
        from safetensors.torch import save

        kept = {
            name: parameter.detach().cpu().contiguous() for name, parameter in self._trained.items()
        }
        return save(kept, metadata=about)

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


class _Watch:
    """Looks now and then what an encoder in training makes of rows that it does not learn.

    Attributes:
        best: the parameters at the best look, as a safetensors file.
    """

    def __init__(self, tuner: _Tuner, rows: TuningRows, total: int) -> None:
        if rows.watched is None:
            raise ValueError("there are no rows to watch")
        self._tuner = tuner
        _, labels = np.unique(rows.labels, return_inverse=True)
        learned = np.concatenate(
            [np.flatnonzero(labels == x)[:LOOKED_AT] for x in np.unique(labels)]
        )
        self._learned = labels[learned]
        self._watched = np.searchsorted(np.unique(rows.labels), rows.watched[1][:WATCHED])
        n_learned = len(rows.texts)
        self._texts = np.concatenate([learned, n_learned + np.arange(len(self._watched))])
        self._at = {round(n * total / LOOKS): n / LOOKS for n in range(1, LOOKS + 1)}
        self._likelihood, self._n_worse = -np.inf, 0
        self.best = b""

    def says_stop(self, step: int) -> bool:
        """Look, where it is time to, and tell whether the steps have ceased to help."""
        share = self._at.get(step)
        if share is None:
            return False
        likelihood = self._look()
        logger.info(
            "fine_tuning_watched", extra={"share": share, "log_likelihood": round(likelihood, 4)}
        )
        if likelihood > self._likelihood:
            self._likelihood, self._n_worse = likelihood, 0
            self.best = self._tuner.tensors(None if share == 1.0 else {"share": repr(share)})
        else:
            self._n_worse += 1
        return self._n_worse == PATIENCE

    def _look(self) -> float:
        """Mean log-probability of the watched labels, by cosine with the labels' mean vectors."""
        vectors = self._tuner.encoded(self._texts)
        learned, watched = np.split(vectors, [len(self._learned)])
        means = label_means(learned, self._learned)
        log_proba = log_softmax(watched @ means.T / self._tuner.temperature, axis=1)
        return float(log_proba[np.arange(len(watched)), self._watched].mean())


@dataclass
class _Dropout:
    """Dropout of a model that draws from one source.

    torch's own share one source with all threads of a process, so that nothing would be the same
    twice.
    """

    share: float
    source: torch.Generator
    is_on: bool = True

    def sow(self, model: torch.nn.Module) -> None:
        """Take the place of all dropouts of a model, in evaluation mode too.

        Dropout of attention shares has no module of its own and stays off.
        """
        import torch

        drop = self.drop

        class Dropout(torch.nn.Module):
            def forward(self, values: torch.Tensor) -> torch.Tensor:
                return drop(values)

        for part in [*model.modules()]:
            for name, inner in part.named_children():
                if type(inner) is torch.nn.Dropout:
                    setattr(part, name, Dropout())

    def drop(self, values: torch.Tensor) -> torch.Tensor:
        """The values, some of them zero and the others larger."""
        import torch

        if not self.is_on:
            return values
        kept = torch.empty_like(values).bernoulli_(1 - self.share, generator=self.source)
        return values * kept / (1 - self.share)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Drop nothing inside `with`, and draw nothing."""
        self.is_on = False
        try:
            yield
        finally:
            self.is_on = True


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
