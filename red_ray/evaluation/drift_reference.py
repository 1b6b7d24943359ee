"""What recent texts are held against to find drift.

Both sides must be the same quantity: what a model says of texts that it had not seen. In this
order, each where there are enough of it:

- `given`: texts that the user names;
- `pool`: the run's own pool, whose label shares are those of the traffic at training time. With
  `samples_per_class` the user's rows were drawn from the same texts and belong to it again;
- `known`: the run's calibration and test rows;
- `cross_fitted`: the user's training rows, by models that had not seen them.

Only the first two have label shares to compare: the rows of the others may be of somebody's making.

The loop chose what it learned of the pool, so that the rest of it is no fair sample. Of what the
model learned it therefore counts what models said that had not seen it (`drift_held`). Two things
are not known of every text, and then count so that they can hide drift and cannot invent any:

- what a model that had not seen it says: it is as novel and as doubtful as any, and may have any
  label. A judge's *none* makes a text noise for some experts: it may have its label, or none;
- whether it is of the traffic at all, as rows that the user labelled (a pool loses those that are
  training rows), and rows of a warm start or of a refit after drift: it is where that helps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from red_ray.core.text import text_key
from red_ray.data.prepare import LabelledRows
from red_ray.errors import DataError
from red_ray.evaluation.drift_held import held_out, is_whole
from red_ray.evaluation.drift_rows import (
    DriftRows,
    drawn,
    escalated,
    learned_rows,
    score_texts,
)
from red_ray.model import RedModel, TextEncoder
from red_ray.snapshot import Snapshot
from red_ray.training.crossfit import Crossfit

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEAST_REFERENCE = 50
"""Texts that a reference of the run's own must have to be used."""

MOST_UNKNOWN = 0.02
"""Share of the reference whose label may be unknown: beyond it, as any label may have them all, no
change of a label of usual size could be seen."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What recent texts are held against; see the module.

    Attributes:
        rows: what is said of them.
        source: given, pool, known or cross_fitted.
        is_sure: which of them surely are of the traffic, shape (n_rows,); None where all are.
        keys: of all texts that it stands for, those that were not drawn among them; None where
            they are those of the rows.
        no_shares: why label shares are not compared, in one line; empty where they are.
        notes: one line for each other thing that a user should know.
    """

    rows: DriftRows
    source: str
    is_sure: Bools | None = None
    keys: frozenset[str] | None = None
    no_shares: str = ""
    notes: tuple[str, ...] = ()

    @property
    def has_shares(self) -> bool:
        """Whether label shares are compared."""
        return not self.no_shares

    @property
    def sure(self) -> Bools:
        """Which of its rows surely are of the traffic, shape (n_rows,)."""
        return np.ones(len(self.rows), dtype=bool) if self.is_sure is None else self.is_sure

    @property
    def n_blind(self) -> int:
        """Its texts of which nothing is known that compares."""
        return int((self.rows.is_blind & self.sure).sum())

    @property
    def all_keys(self) -> frozenset[str]:
        """Keys of all texts that it stands for."""
        return frozenset(map(text_key, self.rows.texts)) if self.keys is None else self.keys

    def without(self, keys: frozenset[str]) -> Reference:
        """The same without some texts."""
        kept = np.flatnonzero([text_key(text) not in keys for text in self.rows.texts])
        if len(kept) == len(self.rows):
            return self
        return replace(self, rows=self.rows.take(kept), is_sure=self.sure[kept])


def given_reference(
    model: RedModel,
    texts: Sequence[str],
    encoder: TextEncoder | None = None,
    *,
    crossfit: Crossfit | None = None,
) -> Reference:
    """Texts that the user names; arguments as of `own_reference`.

    Raises:
        DataError: there is none that the model did not learn from.
    """
    learned = learned_rows(model)
    if all(text_key(text) in learned for text in texts):
        raise DataError(
            "the model learned every text of the reference, so none shows what it says of new "
            "ones; give texts from about the time of training that no label was given for"
        )
    return _of_traffic(model, texts, (), "given", encoder, crossfit)


def own_reference(
    model: RedModel,
    rows: Snapshot | None,
    encoder: TextEncoder | None = None,
    *,
    crossfit: Crossfit | None = None,
    is_changed: bool = False,
) -> Reference:
    """The best that the run itself has; see the module.

    Args:
        model: the run's.
        rows: the run's; None where they are not at hand.
        encoder: makes the embeddings; by default the model's own.
        crossfit: what the run keeps of its cross-fitting, or None.
        is_changed: whether its labels were changed since the training.
    """
    if rows is not None and len(rows.inputs.pool) >= LEAST_REFERENCE:
        texts, others = _traffic(model, rows, is_changed=is_changed)
        return _of_traffic(model, texts, others, "pool", encoder, crossfit)
    known = tuple(_known_texts(rows)) if rows is not None else ()
    if len(known) >= LEAST_REFERENCE:
        kept, notes = drawn(known, model.config.seed, "reference")
        why = (
            "the run has no pool, and its calibration and test rows may be of somebody's choosing: "
            "label shares are not compared; --reference with texts as they came compares them"
        )
        keys = frozenset(map(text_key, known))
        scored = score_texts(model, kept, encoder)
        return Reference(scored, "known", keys=keys, no_shares=why, notes=notes)
    return _of_training(model)


def _traffic(
    model: RedModel, rows: Snapshot, *, is_changed: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Texts that are of the traffic at training time, and others that may be."""
    inputs = rows.inputs
    pool = frozenset(map(text_key, inputs.pool))
    train, judged = (
        tuple(text for text in part.texts if text_key(text) not in pool)
        for part in (inputs.train, inputs.judged)
    )
    if _is_drawn(model.config.samples_per_class, inputs.train, is_changed=is_changed):
        return (*train, *inputs.pool), judged
    return inputs.pool, (*train, *judged)


def _is_drawn(per_label: int | None, train: LabelledRows, *, is_changed: bool) -> bool:
    """Whether all training rows were drawn from the texts that became the pool.

    Of a label with more rows than are drawn some came from elsewhere, as by a warm start.
    """
    if per_label is None or is_changed:
        return False
    return all(n <= per_label for n in Counter(train.labels).values())


def _of_traffic(
    model: RedModel,
    texts: Sequence[str],
    others: Sequence[str],
    source: str,
    encoder: TextEncoder | None,
    crossfit: Crossfit | None,
) -> Reference:
    keys = frozenset(map(text_key, (*texts, *others)))
    mine = frozenset(map(text_key, texts))
    name = "pool" if source == "pool" else "reference"
    kept, notes = drawn((*texts, *others), model.config.seed, name)
    rows = _as_unseen(model, score_texts(model, kept, encoder), crossfit)
    sure = np.array([text_key(text) in mine for text in kept], dtype=bool)
    # Of a user's row that nothing is known of, neither a label nor whether it counts at all.
    users = frozenset(map(text_key, model.example_texts[: model.n_seed]))
    by_user = np.array([text_key(text) in users for text in kept], dtype=bool)
    told = np.flatnonzero(sure | ~by_user | ~rows.is_blind)
    found = Reference(rows.take(told), source, sure[told], keys, notes=notes)
    return replace(
        found,
        no_shares=_why_no_shares(model, found, crossfit),
        notes=(*notes, *_told(found)),
    )


def _as_unseen(model: RedModel, rows: DriftRows, crossfit: Crossfit | None) -> DriftRows:
    """The same with what models say that had not seen it, of each text that the model learned."""
    learned = learned_rows(model)
    keys = [text_key(text) for text in rows.texts]
    at = np.array([row for row, key in enumerate(keys) if key in learned], dtype=np.int64)
    half = _half_learned(crossfit) - learned.keys()
    noise = np.array([key in half for key in keys], dtype=bool)
    novelty, risk = rows.novelty.copy(), rows.risk.copy()
    best, none, confidence = rows.best.copy(), rows.none.copy(), rows.confidence.copy()
    novelty[noise] = risk[noise] = np.inf
    none[noise], confidence[noise] = True, np.nan
    if len(at):
        example = np.array([learned[keys[row]] for row in at], dtype=np.int64)
        held = held_out(model, crossfit)
        novelty[at], risk[at] = held.novelty[example], held.risk[example]
        best[at], none[at] = held.best[example], held.none[example]
        confidence[at] = held.confidence[example]
    return replace(
        rows,
        best=best,
        none=none,
        novelty=novelty,
        confidence=confidence,
        risk=risk,
        escalated=escalated(model, risk),
    )


def _half_learned(crossfit: Crossfit | None) -> frozenset[str]:
    """Keys of the texts that some experts learned as noise, and nobody as a label's.

    A judge refused them, or they left with a change of labels.
    """
    if crossfit is None:
        return frozenset()
    return frozenset(map(text_key, crossfit.refused.texts)) | crossfit.gone.keys()


def _why_no_shares(model: RedModel, found: Reference, crossfit: Crossfit | None) -> str:
    rows = found.rows
    unknown = (rows.best < 0) & (rows.is_blind | ~rows.none)
    n_sure, by_judge = int(found.sure.sum()), model.example_texts[model.n_seed :]
    judged = frozenset(map(text_key, by_judge)) if crossfit is None else frozenset()
    # Without what is kept of the cross-fitting, neither are the texts known that a judge refused.
    is_looped = any(text_key(text) in judged for text in rows.texts)
    if not is_looped and unknown.sum() <= MOST_UNKNOWN * max(1, n_sure):
        return ""
    return (
        f"of {int(unknown.sum()):,} texts of the reference the run does not keep what a model said "
        "that had not learned them: label shares are not compared; --reference with texts that "
        "no label was given for compares them"
    )


def _told(found: Reference) -> tuple[str, ...]:
    n = found.n_blind
    if not n:
        return ()
    return (
        f"of {n:,} of the reference's texts ({n / max(1, int(found.sure.sum())):.1%}) it is not "
        "known what a model says that had not learned them: they count as novel and as doubtful "
        "as any, which can hide drift and cannot invent any; --reference with fresh texts sees "
        "more",
    )


def _known_texts(rows: Snapshot) -> Iterator[str]:
    calibration = rows.inputs.calibration
    yield from calibration.rows.texts if calibration is not None else ()
    yield from rows.test.rows.texts if rows.test is not None else ()


def _of_training(model: RedModel) -> Reference:
    why = (
        "the run has neither a pool nor rows held back: label shares cannot be compared, and "
        "novelty is held against its own training rows; give --reference F"
    )
    return Reference(_crossfitted(model), "cross_fitted", no_shares=why)


def _crossfitted(model: RedModel) -> DriftRows:
    """The user's training rows; without texts and embeddings where which is which is unknown."""
    seen, n_seed = model.calibration, model.n_seed
    n, dim = len(seen.none), model.example_vectors.shape[1]
    whole = is_whole(model)
    risk = seen.risk(model.thresholds.none)
    return DriftRows(
        texts=model.example_texts[:n_seed] if whole else ("",) * n,
        vectors=model.example_vectors[:n_seed] if whole else np.zeros((n, dim), np.float32),
        best=model.example_labels[:n_seed] if whole else np.full(n, -1),
        none=seen.none >= model.thresholds.none,
        novelty=seen.none,
        confidence=1 - risk,
        risk=risk,
        escalated=escalated(model, risk),
    )
