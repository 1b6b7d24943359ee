"""What decides an encoder's vectors, as a value with a key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from red_ray.errors import EncoderError

# Part of every key. Raise it when our code changes so that vectors change (how batches are cut,
# how they are pooled): the embeddings on disk are then computed anew instead of being mixed.
_NUMERICS = 1

# Where a model was found does not change its vectors, its files do; so the weights of the hub
# and those of the package share their embeddings, and a folder may be moved.
_NOT_IN_KEY = ("model", "revision")


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """All that decides an encoder's vectors, on one kind of machine with one torch.

    Attributes:
        model: the name or folder that was asked for.
        revision: the revision that was asked for, None for the default one.
        weights_sha256: SHA-256 of the weight file; of several, of their paths and hashes.
        dtype: what the transformer computes in, `bfloat16` or `float32`. Pooling and what
            follows it are always float32.
        max_tokens: longer texts are cut; the model's own limit holds where it is lower.
        truncate_dim: leading dimensions kept, None for all.
        prompt: text put before every text.
        normalised: rows have L2 norm 1.
        batch_rows: texts per forward pass; other shapes may give other bits.
        settings_sha256: hash of the tokenizer's and the modules' files.
        device: `cpu` or `cuda`.
    """

    model: str
    revision: str | None
    weights_sha256: str
    dtype: str
    max_tokens: int
    truncate_dim: int | None
    prompt: str
    normalised: bool
    batch_rows: int
    settings_sha256: str = ""
    device: str = "cpu"

    @property
    def key(self) -> str:
        """SHA-256 in hex over all that decides the vectors; equal keys share embeddings."""
        deciding = {k: v for k, v in self.to_dict().items() if k not in _NOT_IN_KEY}
        text = json.dumps({"numerics": _NUMERICS, **deciding}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def agrees_with(self, other: EncoderSpec) -> bool:
        """Whether vectors of both are the same but for what a device rounds."""
        return replace(self, device=other.device).key == other.key

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, as a bundle's manifest holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EncoderSpec:
        """The inverse of `to_dict`.

        Raises:
            EncoderError: a field is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if set(data) != names:
            missing, unknown = sorted(names - set(data)), sorted(set(data) - names)
            raise EncoderError(
                f"not the description of an encoder: missing fields {missing!r}, "
                f"unknown fields {unknown!r}; it was written by another version of red_ray"
            )
        return cls(**data)
