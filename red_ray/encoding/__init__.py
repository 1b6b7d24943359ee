"""Texts to vectors: the encoder, and the store that keeps what it computed.

Importing it loads no model library; they are loaded with the first model.
"""

from red_ray.encoding.cached import CachedEncoder, open_encoder
from red_ray.encoding.encoder import Encoder, SentenceEncoder
from red_ray.encoding.resolve import resolve_spec
from red_ray.encoding.spec import EncoderSpec
from red_ray.encoding.store import EmbeddingStore

__all__ = [
    "CachedEncoder",
    "EmbeddingStore",
    "Encoder",
    "EncoderSpec",
    "SentenceEncoder",
    "open_encoder",
    "resolve_spec",
]
