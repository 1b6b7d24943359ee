"""An encoder that computes only what no run before it has."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from red_ray.core.text import checked_texts
from red_ray.encoding.encoder import Encoder, SentenceEncoder
from red_ray.encoding.resolve import resolve_spec
from red_ray.encoding.spec import EncoderSpec
from red_ray.encoding.store import EmbeddingStore
from red_ray.errors import EncoderError

if TYPE_CHECKING:
    from red_ray.config import EncoderConfig
    from red_ray.encoding.weights import TunedWeights

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]

# A run that is stopped loses at most what it was computing: about 10 s on two cores.
_TEXTS_PER_SHARD = 16_384


class CachedEncoder:
    """Looks texts up in a store, and encodes and stores the missing ones.

    The encoder is made only when something is missing, so that a second run over the same texts
    never loads a model. It can be used from several threads at once.

    Attributes:
        n_encoded: distinct texts that were encoded.
        n_found: texts that were answered from the store, each occurrence counted.
    """

    def __init__(self, encoder: Encoder | Callable[[], Encoder], store: EmbeddingStore) -> None:
        """Join an encoder, or a function that makes it when it is needed, and its store."""
        self.store = store
        self.n_encoded = 0
        self.n_found = 0
        self._make = encoder if callable(encoder) else (lambda: encoder)
        self._encoder: Encoder | None = None
        self._lock = threading.Lock()

    @property
    def spec(self) -> EncoderSpec:
        """What decides the vectors."""
        return self.store.spec

    @property
    def dim(self) -> int:
        """Length of a vector; makes the encoder if nothing is stored yet."""
        return self.store.dim or self._loaded().dim

    @property
    def is_loaded(self) -> bool:
        """Whether the encoder was made."""
        return self._encoder is not None

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of `texts`, the same bits whether they were stored or not.

        Returns:
            Shape (n_texts, dim), rows with L2 norm 1.

        Raises:
            TypeError: see `checked_texts`.
            EncoderError: the encoder does not load, or is not the store's.
            OutputError: the store cannot be read or written.
            StorageError: the disk is full or failed.
        """
        texts = checked_texts(texts)
        found, vectors = self.store.get(texts)
        absent = [i for i, here in enumerate(found.tolist()) if not here]
        missing = list(dict.fromkeys(texts[i] for i in absent))
        if not missing:
            self._count(n_found=len(texts))
            return vectors if len(texts) else np.empty((0, self.dim), dtype=np.float32)
        new = self._encode_and_store(missing)
        row_of = {text: i for i, text in enumerate(missing)}
        if not found.any():
            vectors = np.empty((len(texts), new.shape[1]), dtype=np.float32)
        vectors[absent] = new[[row_of[texts[i]] for i in absent]]
        self._count(n_found=int(found.sum()), n_encoded=len(missing))
        return vectors

    def close(self) -> None:
        """Close the encoder if it was made."""
        close = getattr(self._encoder, "close", None)
        if close is not None:
            close()

    def _encode_and_store(self, texts: list[str]) -> FloatArray:
        encoder = self._loaded()
        parts = []
        for start in range(0, len(texts), _TEXTS_PER_SHARD):
            part = texts[start : start + _TEXTS_PER_SHARD]
            parts.append(encoder.encode(part))
            self.store.put(part, parts[-1])
        return np.concatenate(parts)

    def _loaded(self) -> Encoder:
        with self._lock:
            if self._encoder is None:
                encoder = self._make()
                if encoder.spec.key != self.spec.key:
                    raise EncoderError(
                        f"the encoder {encoder.spec.model!r} (key {encoder.spec.key[:16]!r}) is "
                        f"not the one of the store (key {self.spec.key[:16]!r}); were the "
                        "model's files changed meanwhile? start again"
                    )
                self._encoder = encoder
            return self._encoder

    def _count(self, *, n_found: int, n_encoded: int = 0) -> None:
        with self._lock:
            self.n_found += n_found
            self.n_encoded += n_encoded


def open_encoder(
    config: EncoderConfig, *, n_threads: int | None = None, tuned: TunedWeights | None = None
) -> CachedEncoder:
    """The encoder of `config` with its store; loads nothing yet.

    Args:
        config: which model, how it is used, and where the store is.
        n_threads: see `SentenceEncoder.load`.
        tuned: what fine-tuning changed of the model.

    Raises:
        EncoderError: the model's files cannot be found.
        OutputError: the store's folder cannot be made.
    """
    spec = resolve_spec(config)
    store = EmbeddingStore(config.store, spec if tuned is None else tuned.spec(spec))
    return CachedEncoder(
        lambda: SentenceEncoder.load(config, n_threads=n_threads, tuned=tuned), store
    )
