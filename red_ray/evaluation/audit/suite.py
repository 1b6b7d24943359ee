"""Questions like the loop's, from rows whose label is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from red_ray.config import RunConfig
from red_ray.core.blas import use_one_blas_thread
from red_ray.data.prepare import LabelledRows
from red_ray.data.splits import assert_disjoint, stratified_folds, stratified_split
from red_ray.experts import LogisticRegressionExpert
from red_ray.types import Candidate, Question

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PARTS = ("working", "held")
CATEGORIES = ("easy", "hard", "none")
"""The truth is the model's first label; it is another candidate; it is not offered."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a suite, and what is known about it.

    Attributes:
        question: as a judge is asked it, but for the order of the candidates.
        label: the row's label in the user's file.
        guess: the first label of a model that never saw the row.
        planted: whether the label was taken out of the candidates on purpose.
        part: `working`, or `held`, which alone decides the outcome.
    """

    question: Question
    label: str
    guess: str
    planted: bool
    part: str = "working"

    @property
    def right(self) -> str | None:
        """The right answer: the label, or None where it is not offered."""
        offered = any(candidate.label == self.label for candidate in self.question.candidates)
        return self.label if offered else None

    @property
    def category(self) -> str:
        """One of `CATEGORIES`."""
        if self.right is None:
            return "none"
        return "easy" if self.guess == self.label else "hard"


@dataclass(frozen=True, slots=True)
class AuditRows:
    """Labelled rows, and how they are told apart.

    Attributes:
        rows: no text twice.
        names: the labels, sorted.
        codes: index of each row's label in `names`, shape (n_rows,).
        folds: in which each row is held out, shape (n_rows,); -1 for a label's only row, about
            which nobody is asked: no model could know its label.
    """

    rows: LabelledRows
    names: tuple[str, ...]
    codes: Ints
    folds: Ints

    @classmethod
    def of(cls, rows: LabelledRows, config: RunConfig) -> AuditRows:
        """Number the labels and draw the folds."""
        names, codes = np.unique(np.asarray(rows.labels, dtype=object), return_inverse=True)
        rng = np.random.default_rng([config.seed, 5])
        folds = stratified_folds(codes, config.router.folds, rng)
        return cls(rows, tuple(str(name) for name in names), codes, folds)


def build_suite(
    source: AuditRows, vectors: Floats, config: RunConfig, descriptions: Mapping[str, str]
) -> tuple[Item, ...]:
    """Make the questions of an audit: the held part first, each part in random order.

    A row's candidates come from a flat model that was fitted without its fold, their examples
    are the other rows nearest to it.

    Args:
        source: the rows.
        vectors: their embeddings, shape (n_rows, dim), unit length.
        config: how many rows, candidates and examples; shares; seed.
        descriptions: of labels, by name.
    """
    use_one_blas_thread()
    rng = np.random.default_rng([config.seed, 6])
    asked = _sample(source, config.audit.size, rng)
    ranked = np.argsort(-_scores(source, vectors, asked), axis=1, kind="stable")
    planted = _plant(ranked[:, : config.judge.top_k] == source.codes[asked, None], config, rng)
    rows_of = [np.flatnonzero(source.codes == code) for code in range(len(source.names))]
    items = []
    for row, order, plant in zip(asked, ranked, planted, strict=True):
        offered = order[order != source.codes[row]] if plant else order
        candidates = []
        for code in offered[: config.judge.top_k]:
            name = source.names[code]
            nearest = _nearest(vectors, row, rows_of[code], config.judge.examples_per_candidate)
            examples = tuple(source.rows.texts[one] for one in nearest)
            candidates.append(Candidate(name, descriptions.get(name, ""), examples))
        text, label = source.rows.texts[row], source.rows.labels[row]
        question = Question(text, tuple(candidates), config.judge.question)
        items.append(Item(question, label, source.names[order[0]], bool(plant)))
    return _parted(items, config.audit.held_share, rng)


def _sample(source: AuditRows, n: int, rng: np.random.Generator) -> Ints:
    """`n` rows at most, the labels in their own proportions."""
    rows = np.flatnonzero(source.folds >= 0)
    if len(rows) <= n:
        return rows
    labels = [source.rows.labels[row] for row in rows]
    return np.asarray(rows[stratified_split(labels, n / len(rows), rng)[1]])


def _scores(source: AuditRows, vectors: Floats, asked: Ints) -> Floats:
    """Log-probabilities of rows by models that saw nothing of their fold."""
    n_labels = len(source.names)
    scores = np.zeros((len(asked), n_labels), dtype=np.float32)
    for fold in np.unique(source.folds[asked]):
        known, here = source.folds != fold, source.folds[asked] == fold
        flat = LogisticRegressionExpert(n_labels)
        flat.fit(vectors[known], source.codes[known])
        scores[here] = flat.score(vectors[asked[here]])[:, :-1]
    return scores


def _plant(true: Bools, config: RunConfig, rng: np.random.Generator) -> Bools:
    """Draw whose label is taken out of the candidates, among those whose label is in them.

    Args:
        true: whether a candidate is the row's label, shape (n_asked, n_candidates).
        config: the share to draw.
        rng: source of the draw.
    """
    offered = np.flatnonzero(true.any(axis=1))
    n = min(round(config.audit.none_share * len(true)), len(offered))
    planted = np.zeros(len(true), dtype=bool)
    planted[rng.choice(offered, n, replace=False)] = True
    return planted


def _nearest(vectors: Floats, row: int, among: Ints, n: int) -> Ints:
    others = among[among != row]
    order = np.argsort(-(vectors[others] @ vectors[row]), kind="stable")
    return np.asarray(others[order[:n]])


def _parted(items: list[Item], held_share: float, rng: np.random.Generator) -> tuple[Item, ...]:
    working, held = stratified_split([item.category for item in items], held_share, rng)
    texts = {
        name: [items[row].question.text for row in part]
        for name, part in zip(PARTS, (working, held), strict=True)
    }
    assert_disjoint(texts)
    # What decides is asked first: a budget that ends early cuts the working part.
    decisive = [replace(items[row], part="held") for row in rng.permutation(held)]
    return (*decisive, *(items[row] for row in rng.permutation(working)))
