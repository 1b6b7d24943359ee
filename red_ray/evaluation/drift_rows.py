"""What a model says of recent texts, and of those that it is held against to find drift.

The other side must be texts that the model had not seen, else all that is new would look stranger
than it is. In this order, each where there are enough of it:

- `given`: texts that the user names;
- `pool`: the run's own pool, whose label shares are those of the traffic at training time. With
  `samples_per_class` the user's rows were drawn from the same texts and belong to it again, with
  what models that had not seen them said. What the loop learned counts with the label that it
  got, and as novel and as doubtful as any text: that can hide drift, and cannot invent any;
- `known`: the run's calibration and test rows; their label shares may be of somebody's making;
- `cross_fitted`: the user's training rows, by models that had not seen them. They have no
  shares to compare with: they show novelty and escalations, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from red_ray.core.router import says_none
from red_ray.core.text import text_key
from red_ray.errors import DataError
from red_ray.model import RedModel, TextEncoder
from red_ray.snapshot import Snapshot

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

MOST_TEXTS = 20_000
"""Texts of either side that are scored at most; of more, so many are drawn. A label of one in a
thousand is still seen to double."""

LEAST_REFERENCE = 50
"""Texts that a reference of the run's own must have to be used."""

CHUNK_TEXTS = 2_048
"""Texts whose distributions are held at a time: 16 MB at 1,000 labels."""

WORDS = {
    "given": "texts of the reference given",
    "pool": "texts of the run's pool",
    "known": "of the run's calibration and test rows",
    "cross_fitted": "training rows, each by models that had not seen it",
}


@dataclass(frozen=True, slots=True)
class DriftRows:
    """What a model says of some texts.

    Attributes:
        texts: as written, shape (n_texts,).
        vectors: their embeddings, shape (n_texts, dim).
        best: position of the most probable label, shape (n_texts,).
        none: whether the answer is *none*, shape (n_texts,).
        novelty: probability that no label fits, shape (n_texts,); infinite where the model
            learned the text.
        confidence: in the answer, shape (n_texts,); not a number where that cannot be said.
        risk: probability that the answer is wrong, shape (n_texts,); infinite as novelty is.
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


@dataclass(frozen=True, slots=True)
class Reference:
    """What recent texts are held against; see the module.

    Attributes:
        rows: what the model says of them.
        source: given, pool, known or cross_fitted.
        n_learned: texts among them that the model learned from.
        notes: one line for each thing that a user should know.
    """

    rows: DriftRows
    source: str
    n_learned: int = 0
    notes: tuple[str, ...] = ()

    @property
    def has_shares(self) -> bool:
        """Whether its label shares are those of some traffic."""
        return self.source != "cross_fitted"


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


def given_reference(
    model: RedModel, texts: Sequence[str], encoder: TextEncoder | None = None
) -> Reference:
    """Texts that the user names.

    Raises:
        DataError: there is none that the model did not learn from.
    """
    learned = learned_rows(model)
    fresh = [text for text in texts if text_key(text) not in learned]
    if not fresh:
        raise DataError(
            "the model learned every text of the reference, so none shows what it says of new "
            "ones; give texts from about the time of training that no label was given for"
        )
    kept, notes = drawn(fresh, model.config.seed, "reference")
    return Reference(score_texts(model, kept, encoder), "given", notes=notes)


def own_reference(
    model: RedModel, rows: Snapshot | None, encoder: TextEncoder | None = None
) -> Reference:
    """The best that the run itself has; see the module.

    Args:
        model: the run's.
        rows: the run's; None where they are not at hand.
        encoder: makes the embeddings; by default the model's own.
    """
    pool = rows.inputs.pool if rows is not None else ()
    if len(pool) >= LEAST_REFERENCE:
        return _of_pool(model, pool, rows, encoder)
    known = tuple(_known_texts(rows)) if rows is not None else ()
    if len(known) >= LEAST_REFERENCE:
        kept, notes = drawn(known, model.config.seed, "reference")
        notes += ("the run has no pool: label shares are held against its own labelled rows",)
        return Reference(score_texts(model, kept, encoder), "known", notes=notes)
    return _of_training(model)


def learned_rows(model: RedModel) -> Mapping[str, int]:
    """The positions of the texts that the model learned from, by `text_key`."""
    return {text_key(text): row for row, text in enumerate(model.example_texts)}


def _of_pool(
    model: RedModel, pool: Sequence[str], rows: Snapshot | None, encoder: TextEncoder | None
) -> Reference:
    texts = tuple(pool)
    if model.config.samples_per_class is not None and rows is not None:
        # The rows drawn were taken from among the same texts, so many of each label: without
        # them the shares of what is left are nobody's.
        texts = (*rows.inputs.train.texts, *texts)
    texts, notes = drawn(texts, model.config.seed, "pool")
    rows_of = learned_rows(model)
    at = {row: rows_of[key] for row, key in enumerate(map(text_key, texts)) if key in rows_of}
    scored = _as_learned(model, score_texts(model, texts, encoder), at)
    n_blind = int(np.isinf(scored.novelty).sum())
    if n_blind:
        notes += (
            f"the model learned from {n_blind:,} of the reference's texts "
            f"({n_blind / len(texts):.1%}): they count as novel and as doubtful as any; "
            "--reference with fresh texts sees more",
        )
    return Reference(scored, "pool", n_blind, notes)


def _as_learned(model: RedModel, rows: DriftRows, learned: Mapping[int, int]) -> DriftRows:
    """The same with what the model says of texts that it learned replaced; see the module.

    Args:
        model: whose answers they are.
        rows: as it scores them.
        learned: from positions of texts to those of the model's examples.
    """
    at = np.fromiter(learned, dtype=np.int64, count=len(learned))
    example = np.fromiter(learned.values(), dtype=np.int64, count=len(learned))
    novelty, risk = np.full(len(at), np.inf), np.full(len(at), np.inf)
    confidence, none = np.full(len(at), np.nan), np.zeros(len(at), dtype=bool)
    if _is_whole(model):
        mine = example < model.n_seed
        seen, own = _crossfitted(model), example[mine]
        novelty[mine], risk[mine] = seen.novelty[own], seen.risk[own]
        confidence[mine], none[mine] = seen.confidence[own], seen.none[own]
    threshold = model.thresholds.escalate
    return replace(
        rows,
        best=_put(rows.best, at, model.example_labels[example]),
        none=_put(rows.none, at, none),
        novelty=_put(rows.novelty, at, novelty),
        confidence=_put(rows.confidence, at, confidence),
        risk=_put(rows.risk, at, risk),
        escalated=_put(rows.escalated, at, risk >= threshold if threshold is not None else False),
    )


def _put(values: NDArray[Any], at: Ints, new: Any) -> NDArray[Any]:
    changed = values.copy()
    changed[at] = new
    return changed


def _known_texts(rows: Snapshot) -> Iterator[str]:
    calibration = rows.inputs.calibration
    yield from calibration.rows.texts if calibration is not None else ()
    yield from rows.test.rows.texts if rows.test is not None else ()


def _of_training(model: RedModel) -> Reference:
    note = (
        "the run has neither a pool nor rows held back: label shares cannot be compared, and "
        "novelty is held against its own training rows; give --reference F"
    )
    return Reference(_crossfitted(model), "cross_fitted", notes=(note,))


def _is_whole(model: RedModel) -> bool:
    """Whether every one of the user's rows was cross-fitted, so that which is which is known.

    A row of a label that has no other is not, nor are those beyond a sample of very many.
    """
    return len(model.calibration.none) == model.n_seed


def _crossfitted(model: RedModel) -> DriftRows:
    """The user's training rows; without texts and embeddings where which is which is unknown."""
    seen, n_seed = model.calibration, model.n_seed
    n, dim = len(seen.none), model.example_vectors.shape[1]
    is_whole = _is_whole(model)
    risk = seen.risk(model.thresholds.none)
    return DriftRows(
        texts=model.example_texts[:n_seed] if is_whole else ("",) * n,
        vectors=model.example_vectors[:n_seed] if is_whole else np.zeros((n, dim), np.float32),
        best=model.example_labels[:n_seed] if is_whole else np.zeros(n, np.int64),
        none=seen.none >= model.thresholds.none,
        novelty=seen.none,
        confidence=1 - risk,
        risk=risk,
        escalated=_escalated(model, risk),
    )


def _scored(model: RedModel, texts: tuple[str, ...], vectors: Floats) -> DriftRows:
    seen = model.assess(texts, vectors)
    none = says_none(seen.distribution, model.thresholds.none)
    best, risk = seen.label_proba.argmax(axis=1), model.answer_risk(seen)
    own = seen.label_proba.max(axis=1, initial=0.0) * (1 - seen.none)
    return DriftRows(
        texts=texts,
        vectors=np.asarray(model.plain_vectors(vectors), dtype=np.float32),
        best=best.astype(np.int64),
        none=none,
        novelty=seen.none,
        confidence=np.where(none, seen.none, own),
        risk=risk,
        escalated=_escalated(model, risk),
    )


def _escalated(model: RedModel, risk: Doubles) -> Bools:
    threshold = model.thresholds.escalate
    return np.asarray(risk >= threshold) if threshold is not None else np.zeros(len(risk), bool)


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
