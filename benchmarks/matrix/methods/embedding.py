"""Texts and pairs as vectors of a frozen encoder, computed anew each time: nothing is looked up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.matrix.plan import size_of_model
from benchmarks.matrix.tasks import Text
from red_ray.config import EncoderConfig
from red_ray.encoding import SentenceEncoder

Floats = NDArray[np.float32]


class Features:
    """Vectors of texts; of a pair both, their difference and their product, end to end.

    Args:
        model: name or folder of the encoder.
    """

    def __init__(self, model: str) -> None:
        self._encoder = SentenceEncoder.load(EncoderConfig(model=model))
        self.n_parameters = size_of_model(model) or 0
        self.device = self._encoder.spec.device

    def of(self, texts: Sequence[Text]) -> Floats:
        """Shape (n_texts, dim), or (n_texts, 4 * dim) of pairs."""
        first = self._encoder.encode([text[0] for text in texts])
        if len(texts[0]) == 1:
            return first
        second = self._encoder.encode([text[1] for text in texts])
        return np.hstack([first, second, np.abs(first - second), first * second])

    def close(self) -> None:
        """Give its threads back."""
        self._encoder.close()
