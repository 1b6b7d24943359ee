"""The encoder actor: there may be several, and their bits are the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from red_ray.actors import logs
from red_ray.config import EncoderConfig
from red_ray.encoding import CachedEncoder, EncoderSpec, open_encoder

Floats = NDArray[np.float32]


class EncoderActor:
    """Encodes texts through the store of its machine."""

    def __init__(self, config: EncoderConfig, n_threads: int, run: str = "") -> None:
        logs.begin(run)
        self._config = config
        self._n_threads = n_threads

    @cached_property
    def _encoder(self) -> CachedEncoder:
        # Not in the constructor: what it raises there, Ray keeps as text alone.
        return open_encoder(self._config, n_threads=self._n_threads)

    def encode(self, texts: Sequence[str]) -> Floats:
        """See `CachedEncoder.encode`."""
        return self._encoder.encode(texts)

    def spec(self) -> EncoderSpec:
        """What decides the vectors."""
        return self._encoder.spec
