"""SetFit experts with an encoder each, as the accuracy benchmark compares them; not in the product.

Measured on Banking77 at 10 per label against one fine-tuning that all experts share.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from red_ray.config import RunConfig
from red_ray.core.noise import draw_noise
from red_ray.core.router import Router
from red_ray.data.inputs import Inputs
from red_ray.data.splits import stratified_folds
from red_ray.encoding import TunedWeights, TuningRows, open_encoder, tune_once
from red_ray.experts import Expert, ExpertHost, ExpertSpec, FitRows
from red_ray.experts.host import training_rows
from red_ray.experts.logistic import SetFitExpert
from red_ray.model import RedModel
from red_ray.training.job import readable
from red_ray.training.router_host import RouterHost, Scores

NONE = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class OwnEncoder:
    """An expert and the encoder that is its alone."""

    config: RunConfig
    expert: Expert
    weights: TunedWeights

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """As `Expert.score`."""
        return self.expert.score(encoded(self.config, texts, self.weights))


class SubsetRun:
    """The subsets, gate and rows of a model, with other experts."""

    def __init__(self, config: RunConfig, model: RedModel, inputs: Inputs) -> None:
        self.config, self.model = config, model
        index = {name: position for position, name in enumerate(model.labels)}
        self.texts = inputs.train.texts
        self.labels = np.array([index[label] for label in inputs.train.labels])
        self.vectors = model.example_vectors
        rng = np.random.default_rng([config.seed, 2])
        self.folds = stratified_folds(self.labels, config.router.folds, rng)
        self.near = _near_labels(self.vectors, self.labels)

    def fitted(self) -> tuple[list[OwnEncoder], Router]:
        """The experts, and a router that was fitted on what they say of rows they had not seen."""
        with ThreadPoolExecutor(2) as threads:
            made = list(threads.map(self._expert, range(len(self.model.subsets))))
        rows, gate_labels = np.arange(len(self.labels)), tuple(range(len(self.model.labels)))
        host = ExpertHost([ExpertSpec("gate", gate_labels, "logistic_regression", 0)])
        host.load(self.vectors)
        gate = host.crossfit(0, FitRows(rows, self.labels, NONE, NONE, self.folds))
        router = RouterHost(self.config, len(self.model.labels))
        router.load(self.vectors, self.texts, self.model.subsets)
        scores = Scores(gate[:, :-1], tuple(held for _, held in made))
        router.calibrate(rows, self.labels, self.folds, len(rows), scores)
        return [expert for expert, _ in made], router.export().router

    def _expert(self, position: int) -> tuple[OwnEncoder, np.ndarray]:
        """The expert, and what those that had not seen a row say of it."""
        subset = self.model.subsets[position]
        own = np.isin(self.labels, subset)
        rng = np.random.default_rng([self.config.seed, 1, position, len(self.labels)])
        noise = draw_noise(self.vectors, own, cap=self.config.noise.cap, factor=None, rng=rng)
        data = FitRows(np.arange(len(self.labels)), self.labels, noise, NONE, self.folds)
        held = np.zeros((len(self.labels), len(subset) + 1), dtype=np.float32)
        for fold in range(self.config.router.folds):
            one, of_fold = self._fit(subset, data, fold), self.folds == fold
            held[of_fold] = one.scores([self.texts[row] for row in np.flatnonzero(of_fold)])
        return self._fit(subset, data, None), held

    def _fit(self, subset: tuple[int, ...], data: FitRows, fold: int | None) -> OwnEncoder:
        seen = np.isin(self.labels, [*subset, *self._noise_labels(subset)])
        if fold is not None:
            seen &= self.folds != fold
        rows = np.flatnonzero(seen)
        named = np.unique(self.labels[rows])
        means = [self.vectors[rows[self.labels[rows] == label]].mean(axis=0) for label in named]
        tuning = TuningRows(
            texts=(
                *(self.texts[row] for row in rows),
                *(readable(self.model.labels[label]) for label in named),
            ),
            labels=np.concatenate([self.labels[rows], named]),
            vectors=np.concatenate([self.vectors[rows], np.stack(means)]),
        )
        weights = tune_once(self.config.encoder, tuning, self.config.setfit, seed=self.config.seed)
        learned, classes = training_rows(subset, data, fold=fold)
        expert = SetFitExpert(len(subset))
        expert.fit(encoded(self.config, [self.texts[row] for row in learned], weights), classes)
        return OwnEncoder(self.config, expert, weights)

    def _noise_labels(self, subset: tuple[int, ...]) -> list[int]:
        """As many labels of other subsets, those nearest to it."""
        nearness = self.near[list(subset)].max(axis=0)
        nearness[list(subset)] = -np.inf
        return np.argsort(-nearness)[: len(subset)].tolist()


def encoded(config: RunConfig, texts: Sequence[str], weights: TunedWeights) -> np.ndarray:
    """Vectors by a fine-tuned encoder."""
    with closing(open_encoder(config.encoder, n_threads=1, tuned=weights)) as encoder:
        return encoder.encode(texts)


def _near_labels(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cosine of the labels' mean vectors, shape (n_labels, n_labels)."""
    means = np.stack([vectors[labels == label].mean(axis=0) for label in np.unique(labels)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means @ means.T)
