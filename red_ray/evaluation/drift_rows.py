"""What a model says of texts, as drift is found from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from red_ray.core.router import says_none
from red_ray.core.text import text_key
from red_ray.model import RedModel, TextEncoder

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MOST_TEXTS = 20_000
"""Texts of either side that are scored at most; of more, so many are drawn. A label of one in a
thousand is still seen to double."""

CHUNK_TEXTS = 2_048
"""Texts whose distributions are held at a time: 16 MB at 1,000 labels."""


@dataclass(frozen=True, slots=True)
class DriftRows:
    """What a model says of some texts.

    Attributes:
        texts: as written, shape (n_texts,).
        vectors: their embeddings, shape (n_texts, dim).
        best: position of the most probable label, shape (n_texts,); -1 where it is unknown.
        none: whether the answer is *none*, shape (n_texts,); true where novelty is unknown.
        novelty: probability that no label fits, shape (n_texts,); infinite where it is unknown.
        confidence: in the answer, shape (n_texts,); not a number where it is unknown.
        risk: probability that the answer is wrong, shape (n_texts,); infinite where it is unknown.
        escalated: whether it reaches the threshold of escalation, shape (n_texts,).
    """

    texts: tuple[str, ...]
    vectors: Floats
    best: Ints
    none: Bools
    novelty: Doubles
    confidence: Doubles
    risk: Doubles
    escalated: Bools

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def is_blind(self) -> Bools:
        """Where a model that learned the text says nothing of new ones, shape (n_texts,)."""
        return np.isinf(self.novelty)

    def take(self, rows: Ints) -> DriftRows:
        """Those of some of the texts, in this order."""
        return DriftRows(
            tuple(self.texts[row] for row in rows),
            self.vectors[rows],
            self.best[rows],
            self.none[rows],
            self.novelty[rows],
            self.confidence[rows],
            self.risk[rows],
            self.escalated[rows],
        )


def score_texts(
    model: RedModel, texts: Sequence[str], encoder: TextEncoder | None = None
) -> DriftRows:
    """What the model says of some texts.

    Args:
        model: whose answers they are.
        texts: any number of them.
        encoder: makes the embeddings; by default the model's own.
    """
    encoder = model.loaded_encoder if encoder is None else encoder
    starts = range(0, max(1, len(texts)), CHUNK_TEXTS)
    chunks = [tuple(texts[start : start + CHUNK_TEXTS]) for start in starts]
    return _joined([_scored(model, chunk, encoder.encode(chunk)) for chunk in chunks])


def drawn(texts: Sequence[str], seed: int, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """At most `MOST_TEXTS` of them, in their order, and a line where some were left out."""
    if len(texts) <= MOST_TEXTS:
        return tuple(texts), ()
    rng = np.random.default_rng([seed, 11])
    rows = np.sort(rng.choice(len(texts), MOST_TEXTS, replace=False))
    return tuple(texts[row] for row in rows), (
        f"{name}: {MOST_TEXTS:,} of {len(texts):,} texts were drawn, which is enough",
    )


def learned_rows(model: RedModel) -> Mapping[str, int]:
    """The positions of the texts that the model learned from, by `text_key`."""
    return {text_key(text): row for row, text in enumerate(model.example_texts)}


def confidence_of(label_proba: Doubles, none: Doubles, says: Bools) -> Doubles:
    """Probability of the answer, a label or *none*, shape (n_texts,)."""
    own = label_proba.max(axis=1, initial=0.0) * (1 - none)
    return np.asarray(np.where(says, none, own), dtype=np.float64)


def escalated(model: RedModel, risk: Doubles) -> Bools:
    """Whether each risk reaches the threshold of escalation, shape (n_texts,)."""
    threshold = model.thresholds.escalate
    return np.asarray(risk >= threshold) if threshold is not None else np.zeros(len(risk), bool)


def _scored(model: RedModel, texts: tuple[str, ...], vectors: Floats) -> DriftRows:
    seen = model.assess(texts, vectors)
    none = says_none(seen.distribution, model.thresholds.none)
    best, risk = seen.label_proba.argmax(axis=1), model.answer_risk(seen)
    return DriftRows(
        texts=texts,
        vectors=np.asarray(model.plain_vectors(vectors), dtype=np.float32),
        best=best.astype(np.int64),
        none=none,
        novelty=seen.none,
        confidence=confidence_of(seen.label_proba, seen.none, none),
        risk=risk,
        escalated=escalated(model, risk),
    )


def _joined(parts: Sequence[DriftRows]) -> DriftRows:
    return DriftRows(
        tuple(text for part in parts for text in part.texts),
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.best for part in parts]),
        np.concatenate([part.none for part in parts]),
        np.concatenate([part.novelty for part in parts]),
        np.concatenate([part.confidence for part in parts]),
        np.concatenate([part.risk for part in parts]),
        np.concatenate([part.escalated for part in parts]),
    )
