"""An encoder beside the same one fine-tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from red_ray.encoding.spec import EncoderSpec

E = TypeVar("E")


class _Encoder(Protocol):
    @property
    def spec(self) -> EncoderSpec: ...
    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


class PairedEncoder:
    """A text's vector is that of the plain encoder and that of the fine-tuned one, end to end."""

    def __init__(self, plain: _Encoder, tuned: _Encoder) -> None:
        self.plain = plain
        self.tuned = tuned

    @property
    def spec(self) -> EncoderSpec:
        """Of the plain one; the other follows from the weights that the model holds."""
        return self.plain.spec

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of `texts`, shape (n_texts, dim); each half has L2 norm 1."""
        return np.hstack([self.plain.encode(texts), self.tuned.encode(texts)])

    def close(self) -> None:
        """End the threads of both."""
        for encoder in (self.plain, self.tuned):
            close = getattr(encoder, "close", None)
            if close is not None:
                close()


def plain_part(encoder: E) -> E:
    """The plain one of a pair; any other encoder is that itself."""
    found: Any = encoder.plain if isinstance(encoder, PairedEncoder) else encoder
    return cast("E", found)
