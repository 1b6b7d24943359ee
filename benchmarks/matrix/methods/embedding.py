"""Texts and pairs as vectors of a frozen encoder, computed anew each time: nothing is looked up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from benchmarks.matrix.tasks import Text
from red_ray.config import EncoderConfig
from red_ray.encoding import SentenceEncoder
from red_ray.encoding.files import find_model

Floats = NDArray[np.float32]


class Features:
    """Vectors of texts; of a pair both, their difference and their product, end to end.

    Args:
        model: name or folder of the encoder.
    """

    def __init__(self, model: str) -> None:
        self._encoder = SentenceEncoder.load(EncoderConfig(model=model))
        self.n_parameters = n_parameters(model)
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


def n_parameters(model: str) -> int:
    """Of the weights of an encoder, by the headers of its files; 0 where it has no such files."""
    total = 0
    for path in sorted(find_model(model).glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - the file is no mapping
                total += int(np.prod(file.get_slice(name).get_shape()))
    return total
