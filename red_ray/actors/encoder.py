"""The encoder actor: there may be several, and their bits are the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from red_ray.actors import logs
from red_ray.config import EncoderConfig, SetFitConfig
from red_ray.encoding import (
    CachedEncoder,
    EncoderSpec,
    TunedWeights,
    TuningRows,
    open_encoder,
    tune_once,
)

Floats = NDArray[np.float32]


class EncoderActor:
    """Encodes texts through the store of its machine."""

    def __init__(self, config: EncoderConfig, n_threads: int, run: str = "") -> None:
        logs.begin(run)
        self._config = config
        self._n_threads = n_threads
        self._tuned: tuple[str, CachedEncoder] | None = None

    @cached_property
    def _encoder(self) -> CachedEncoder:
        # Not in the constructor: what it raises there, Ray keeps as text alone.
        return open_encoder(self._config, n_threads=self._n_threads)

    def encode(self, texts: Sequence[str]) -> Floats:
        """See `CachedEncoder.encode`."""
        return self._encoder.encode(texts)

    def tune(self, rows: TuningRows, settings: SetFitConfig, seed: int) -> TunedWeights:
        """See `tune_once`: where the encoder has a card, so has its fine-tuning."""
        return tune_once(self._config, rows, settings, seed=seed)

    def encode_tuned(self, texts: Sequence[str], weights: TunedWeights) -> Floats:
        """As `encode`, by the encoder with these weights; the last one stays loaded."""
        held = self._tuned
        if held is None or held[0] != weights.sha256:
            if held is not None:
                held[1].close()
            opened = open_encoder(self._config, n_threads=self._n_threads, tuned=weights)
            held = self._tuned = weights.sha256, opened
        return held[1].encode(texts)

    def spec(self) -> EncoderSpec:
        """What decides the vectors."""
        return self._encoder.spec
