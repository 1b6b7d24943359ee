"""Texts to vectors: the encoder, and the store that keeps what it computed.

Importing it loads no model library; they are loaded with the first model.
"""

from red_ray.encoding.cached import CachedEncoder, open_encoder
from red_ray.encoding.encoder import Encoder, SentenceEncoder
from red_ray.encoding.paired import PairedEncoder, plain_part
from red_ray.encoding.resolve import resolve_spec
from red_ray.encoding.spec import EncoderSpec
from red_ray.encoding.store import EmbeddingStore
from red_ray.encoding.tuned_store import tune_once
from red_ray.encoding.tuning import TuningRows
from red_ray.encoding.weights import TunedWeights

__all__ = [
    "CachedEncoder",
    "EmbeddingStore",
    "Encoder",
    "EncoderSpec",
    "PairedEncoder",
    "SentenceEncoder",
    "TunedWeights",
    "TuningRows",
    "open_encoder",
    "plain_part",
    "resolve_spec",
    "tune_once",
]
