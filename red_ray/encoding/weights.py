"""What fine-tuning changed of a model, as a value with a hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Self

from red_ray.encoding.spec import EncoderSpec


@dataclass(frozen=True, slots=True)
class TunedWeights:
    """What fine-tuning changed of a model.

    Attributes:
        tensors: the changed parameters, as a safetensors file.
    """

    tensors: bytes

    @classmethod
    def read(cls, content: bytes) -> Self:
        """The weights in a safetensors file.

        Raises:
            SafetensorError: it is none, or cut short.
        """
        from safetensors.torch import load

        load(content)
        return cls(content)

    @property
    def share(self) -> float:
        """Of the planned steps that were made; less than 1 where watched rows said so."""
        size = int.from_bytes(self.tensors[:8], "little")
        about = json.loads(self.tensors[8 : 8 + size]).get("__metadata__", {})
        return float(about.get("share", 1.0))

    @property
    def sha256(self) -> str:
        """Hash of the parameters."""
        return hashlib.sha256(self.tensors).hexdigest()

    def spec(self, base: EncoderSpec) -> EncoderSpec:
        """What the encoder is that has these weights over those of `base`."""
        both = hashlib.sha256(f"{base.weights_sha256}+{self.sha256}".encode()).hexdigest()
        return replace(base, weights_sha256=both)
