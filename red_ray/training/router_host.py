"""Holds the evidence and the router of a run; the plain class behind the router actor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from red_ray.config import RunConfig
from red_ray.core.acquisition import (
    WeighedPool,
    confused_pairs,
    most_uncertain,
    poor_labels,
    select_diverse,
)
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.evidence import Column, Parts, assemble
from red_ray.core.lexical import LexicalSpace
from red_ray.core.metrics import expected_calibration_error
from red_ray.core.partition import Subsets
from red_ray.core.retrieval import (
    CentroidNorms,
    Examples,
    SimilarityEvidence,
    Texts,
    nearest_first,
)
from red_ray.core.risk import (
    RiskModel,
    crossfitted_risk,
    fit_risk,
    is_better,
    plain_risk,
    risk_features,
)
from red_ray.core.router import (
    Router,
    fit_router,
    router_columns,
    top_labels,
)
from red_ray.core.thresholds import CalibrationRows
from red_ray.errors import DataError, ForgottenError
from red_ray.training.job import Estimate

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# A cell is what is known of one text and one label: some 100 bytes while it is worked on.

FIT_CELLS = 3_000_000
"""Cells on which the router's few weights are fitted: of more, a sample of the rows says the same
(3,000 rows at 1,000 labels)."""

KEPT_CELLS = 2**24
"""Cells of a pool whose similarities are kept from one iteration to the next (400 MB); those of a
larger pool are worked out anew each time, some texts at a time."""

WEIGHED_CELLS = 2**21
"""Cells of such a pool whose similarities are held at a time."""

BLOCK_CELLS = 2**18
"""Cells whose whole evidence is held at a time."""

MIN_FIT_ROWS = 1_000
"""Rows that the router is fitted on however many labels there are."""

KEPT_TEXTS = 200_000
"""Texts whose n-grams are kept (250 MB); of more they are counted when they are needed."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of some rows by the gate (None without one) and by each expert."""

    gate: Floats | None
    experts: tuple[Floats, ...]

    def take(self, rows: Ints | slice) -> Scores:
        """Those of some of the rows."""
        gate = None if self.gate is None else self.gate[rows]
        return Scores(gate, tuple(scores[rows] for scores in self.experts))


@dataclass(frozen=True, slots=True)
class CandidateView:
    """One text to ask about: its row, its best labels and their nearest examples' rows."""

    row: int
    labels: tuple[int, ...]
    examples: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A labelled row for which the model, not having seen it, names another label."""

    row: int
    label: int
    confidence: float


@dataclass(frozen=True, slots=True)
class _Crossfitted:
    """What is known of labelled rows by models that had not seen them.

    Attributes:
        rows: the rows, shape (n_rows,).
        labels: their labels, shape (n_rows,).
        best: their most probable labels, shape (n_rows, top_k).
        confidence: in the best one, shape (n_rows,).
        none: probability of *none*, shape (n_rows,).
        features: see `risk_features`, shape (n_rows, n_features).
        folds: in which each was held back, shape (n_rows,).
        trusted: whether it says how sure to be, shape (n_rows,).
        log_likelihood: log-probability of their own labels, shape (n_rows,).
        brier: their terms of the Brier score, shape (n_rows,).
    """

    rows: Ints
    labels: Ints
    best: Ints
    confidence: Doubles
    none: Doubles
    features: Doubles
    folds: Ints
    trusted: Bools
    log_likelihood: Doubles
    brier: Doubles


@dataclass(frozen=True, slots=True)
class PoolView:
    """What the router sees in the pool before an iteration.

    Attributes:
        n_informative: texts above the uncertainty threshold.
        n_predicted: texts whose best answer is a label.
        mean_uncertainty: over the pool texts left, in [0, 1].
        chosen: the texts worth a question, most worthwhile first.
    """

    n_informative: int
    n_predicted: int
    mean_uncertainty: float
    chosen: tuple[CandidateView, ...]


@dataclass(frozen=True, slots=True)
class RouterParts:
    """What a model needs of the router host; `calibration` are the trusted rows, cross-fitted."""

    router: Router
    space: LexicalSpace | None
    risk: RiskModel | None
    calibration: CalibrationRows


class RouterHost:
    """Similarity evidence, router weights and acquisition over the shared texts.

    Raises:
        ForgottenError: what a method needs was not given to this process.
    """

    def __init__(self, config: RunConfig, n_labels: int) -> None:
        use_one_blas_thread()
        self._config = config
        self._n_labels = n_labels
        self._columns = router_columns(
            gate=config.router.gate, experts=True, lexical=config.router.lexical
        )
        self._subsets: Subsets = ()
        self._router: Router | None = None
        self._is_cold = False
        self._crossfitted: _Crossfitted | None = None
        self._loaded: Texts | None = None
        self._strings: Sequence[str] = ()
        self._space: LexicalSpace | None = None

    def load(
        self,
        vectors: Floats,
        texts: Sequence[str],
        subsets: Subsets,
        space: LexicalSpace | None = None,
    ) -> None:
        """Take the shared texts, labelled and pool; row indices refer to them.

        Args:
            vectors: their embeddings, shape (n_texts, dim); what stands behind them is of no
                concern here.
            texts: the texts.
            subsets: the labels of each expert.
            space: the lexical space of a model that is trained; fitted on the texts by default.
        """
        self._subsets, self._strings = subsets, texts
        self._space = self._space or space
        if self._config.router.lexical and self._space is None:
            self._space = LexicalSpace.fit(texts)
        kept = self._space is not None and len(texts) <= KEPT_TEXTS
        ngrams = self._space.transform(texts) if self._space and kept else None
        self._loaded = Texts(vectors, ngrams)

    def calibrate(
        self,
        rows: Ints,
        labels: Ints,
        folds: Ints,
        n_trusted: int,
        scores: Scores,
        by_judge: bool = False,
    ) -> Estimate:
        """Fit the router on cross-fitted evidence.

        Args:
            rows: all labelled rows, the seed rows first, shape (n_rows,).
            labels: their labels, shape (n_rows,).
            folds: held-out fold of each, -1 for never, shape (n_rows,).
            n_trusted: how many of them, the first ones, say how sure to be; the estimate is over
                these: the user's, so that it compares from one iteration to the next.
            scores: of each row, by models that had not seen it.
            by_judge: whether a judge labelled trusted rows.

        Raises:
            DataError: no label has two rows.
        """
        held = folds >= 0
        if not held.any():
            raise DataError("no label has two rows, so nothing can be held back to fit the router")
        trusted = held & (np.arange(len(rows)) < n_trusted)
        learned = self._rows_to_fit(held)
        if len(learned) == held.sum():
            evidence = self.crossfitted_evidence(rows, labels, folds, scores)[held]
            parts = iter([(learned, evidence)])
        else:
            evidence = self._evidence_at(learned, rows, labels, folds, scores)
            parts = self._crossfitted_parts(rows, labels, folds, scores, held)
        self._router = fit_router(
            evidence,
            labels[learned],
            trusted=trusted[learned],
            columns=self._columns,
            none_prior=self._config.router.none_prior,
            by_judge=by_judge,
        )
        self._is_cold = by_judge
        seen = [
            (at, self._seen(at, block, rows, labels, folds, trusted))
            for whole, held_evidence in parts
            for at, block in _blocks(whole, held_evidence)
        ]
        self._crossfitted = _joined(seen)
        return _estimate(self._crossfitted)

    def _rows_to_fit(self, held: Bools) -> Ints:
        """Positions of the rows on which the router is fitted, ascending."""
        at = np.flatnonzero(held)
        n_rows = max(MIN_FIT_ROWS, FIT_CELLS // self._n_labels)
        if len(at) <= n_rows:
            return at
        rng = np.random.default_rng([self._config.seed, 8])
        return np.sort(rng.choice(at, n_rows, replace=False))

    def _seen(
        self,
        at: Ints,
        evidence: Floats,
        rows: Ints,
        labels: Ints,
        folds: Ints,
        trusted: Bools,
    ) -> _Crossfitted:
        """What the router makes of the labelled rows at `at`, whose evidence this is."""
        scores = self._the_router.scores(evidence)
        energy = np.asarray(logsumexp(scores, axis=1))
        log_proba = scores - energy[:, None]
        proba, own = np.exp(log_proba), (np.arange(len(at)), labels[at])
        return _Crossfitted(
            rows=rows[at],
            labels=labels[at],
            best=top_labels(proba, self._config.judge.top_k),
            confidence=proba.max(axis=1),
            none=self._the_router.none_proba(evidence, scores, energy),
            features=risk_features(evidence, scores, self._columns, energy),
            folds=folds[at],
            trusted=trusted[at],
            log_likelihood=log_proba[own],
            brier=(proba**2).sum(axis=1) - 2 * proba[own] + 1,
        )

    def gold(self, rows: Ints) -> tuple[CandidateView, ...]:
        """Questions about labelled rows, as their text would be asked about in the pool.

        Args:
            rows: labelled rows that the last calibration held back once, shape (n_rows,).
        """
        position = {int(row): at for at, row in enumerate(self._the_crossfitted.rows)}
        best = self._the_crossfitted.best[[position[int(row)] for row in rows]]
        return self._candidates(rows, best)

    def contradicted(self) -> tuple[Contradiction, ...]:
        """The labelled rows of the last calibration that the model contradicts."""
        seen = self._the_crossfitted
        at = np.flatnonzero(seen.best[:, 0] != seen.labels)
        named = zip(seen.rows[at], seen.best[at, 0], seen.confidence[at], strict=True)
        return tuple(Contradiction(int(row), int(best), float(sure)) for row, best, sure in named)

    def follow_pool(self, pool: Ints, rows: Ints, labels: Ints) -> int:
        """Start to weigh the pool, given the rows labelled so far.

        Returns:
            How many of its texts `weigh` takes at a time: all of a pool whose similarities are
            kept.
        """
        self._pool = pool
        self._weighed = WeighedPool.empty(len(pool), min(self._config.judge.top_k, self._n_labels))
        self._pool_evidence: SimilarityEvidence | None = None
        if len(pool) * self._n_labels <= KEPT_CELLS:
            self._pool_evidence = SimilarityEvidence(self._take(pool), self._n_labels)
        self._pool_norms = CentroidNorms(self._n_labels)
        self._rows, self._labels = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.learn(rows, labels)
        kept = self._pool_evidence is not None
        return len(pool) if kept else max(1, WEIGHED_CELLS // self._n_labels)

    def learn(self, rows: Ints, labels: Ints) -> None:
        """Take in newly labelled rows."""
        examples = self._examples(rows, labels)
        self._pool_norms.add(examples)
        self._rows = np.concatenate([self._rows, rows])
        self._labels = np.concatenate([self._labels, labels])
        if self._pool_evidence is not None:
            self._pool_evidence.add(examples)
        else:
            self._learned = self._examples(self._rows, self._labels)

    def weigh(self, first: int, scores: Scores) -> None:
        """Weigh the pool texts from `first` on.

        Args:
            first: position in the pool.
            scores: of so many texts as `follow_pool` said, or of those that are left.
        """
        router = self._the_router  # first: without it nothing below is there either
        held, norms = self._pool_evidence, self._pool_norms
        if held is None:
            rows = self._pool[first : first + len(scores.experts[0])]
            held = SimilarityEvidence(self._take(rows), self._n_labels)
            held.add(self._learned)
        whole = Parts(scores.gate, scores.experts, held.similarity(norms), held.lexical(norms))
        for some in _slices(len(scores.experts[0]), self._n_labels):
            evidence = assemble(_part(whole, some), self._subsets)
            self.take_in(first + some.start, router.distribution(evidence))

    def take_in(self, first: int, distribution: Doubles) -> None:
        """Keep what the choice needs of the pool texts from `first` on.

        Args:
            first: position in the pool.
            distribution: over labels and *none*, shape (n_texts, n_labels + 1).
        """
        kind = self._config.loop.acquisition
        self._weighed.take_in(
            first,
            distribution,
            kind="margin" if kind == "random" else kind,
            none_threshold=self._config.router.none_threshold,
            between_labels=self._is_cold,
        )

    def view_pool(self, left: Bools, phase: str, draw: int) -> PoolView:
        """Choose the texts worth a question from the whole pool, as it was weighed last.

        Args:
            left: which pool texts may still be asked about, shape (n_pool,).
            phase: `informative` chooses the uncertain, `all_predicted` all with a label.
            draw: number of the iteration; seeds the `random` acquisition.
        """
        if self._router is None or np.isnan(self._weighed.unsure).any():
            raise ForgottenError("weigh the whole pool before it is viewed")
        unsure = self._weighed.unsure
        predicted = left & ~self._weighed.is_none
        informative = left & (unsure > self._config.loop.uncertainty_threshold)
        eligible = np.flatnonzero(informative if phase == "informative" else predicted)
        chosen = eligible[self._choose(eligible, self._worth(), draw)]
        return PoolView(
            n_informative=int(informative.sum()),
            n_predicted=int(predicted.sum()),
            mean_uncertainty=float(unsure[left].mean()) if left.any() else 0.0,
            chosen=self._candidates(
                self._pool[chosen], self._weighed.best[chosen].astype(np.int64)
            ),
        )

    def export(self) -> RouterParts:
        """What the model needs of the last calibration."""
        risk, label_risk = self._risk()
        seen, mine = self._the_crossfitted, self._the_crossfitted.trusted
        rows = CalibrationRows(
            label_risk=label_risk,
            right=(seen.best[:, 0] == seen.labels)[mine],
            offered=(seen.best == seen.labels[:, None]).any(axis=1)[mine],
            none=seen.none[mine],
            none_out_of_scope=np.zeros(0),
        )
        return RouterParts(self._the_router, self._space, risk, rows)

    def _risk(self) -> tuple[RiskModel | None, Doubles]:
        """The learned score where it is wanted and better, and the risk of the user's rows."""
        seen, mine = self._the_crossfitted, self._the_crossfitted.trusted
        features, wrong = seen.features[mine], (seen.best[:, 0] != seen.labels)[mine]
        plain, config = plain_risk(features), self._config.router
        if config.risk == "confidence":
            return None, plain
        learned = crossfitted_risk(features, wrong, seen.folds[mine], config.recall_factor)
        if learned is None:
            return None, plain
        rng = np.random.default_rng([self._config.seed, 7])
        if config.risk == "auto" and not is_better(learned, plain, wrong, rng):
            return None, plain
        return fit_risk(features, wrong, config.recall_factor), learned

    @property
    def _texts(self) -> Texts:
        if self._loaded is None:
            raise ForgottenError("load the shared texts before the router is used")
        return self._loaded

    @property
    def _the_router(self) -> Router:
        if self._router is None:
            raise ForgottenError("calibrate the router before it is used")
        return self._router

    @property
    def _the_crossfitted(self) -> _Crossfitted:
        if self._crossfitted is None:
            raise ForgottenError("calibrate the router before its rows are asked about")
        return self._crossfitted

    def _take(self, rows: Ints) -> Texts:
        """The texts at `rows`, without a copy of the embeddings where they stand together."""
        together = len(rows) > 0 and bool((np.diff(rows) == 1).all())
        place = slice(int(rows[0]), int(rows[-1]) + 1) if together else rows
        if self._texts.ngrams is not None or self._space is None:
            return self._texts.take(place)
        return Texts(
            self._texts.vectors[place],
            self._space.transform([self._strings[row] for row in rows]),
        )

    def _examples(self, rows: Ints, labels: Ints) -> Examples:
        return Examples(self._take(rows), labels, self._n_labels)

    def crossfitted_evidence(self, rows: Ints, labels: Ints, folds: Ints, scores: Scores) -> Floats:
        """Evidence of each labelled row, without its own fold; arguments as for `calibrate`."""
        return self._evidence_at(np.arange(len(rows)), rows, labels, folds, scores)

    def _evidence_at(
        self, at: Ints, rows: Ints, labels: Ints, folds: Ints, scores: Scores
    ) -> Floats:
        """The same of the labelled rows at `at`, ascending; zero of a row that has no fold."""
        evidence = np.zeros((len(at), self._n_labels, len(Column)), dtype=np.float32)
        wanted = np.zeros(len(rows), dtype=bool)
        wanted[at] = True
        for some, part in self._crossfitted_parts(rows, labels, folds, scores, wanted):
            evidence[np.searchsorted(at, some)] = part
        return evidence

    def _crossfitted_parts(
        self, rows: Ints, labels: Ints, folds: Ints, scores: Scores, wanted: Bools
    ) -> Iterator[tuple[Ints, Floats]]:
        """Positions of some of the wanted rows, and their evidence, fold by fold."""
        texts = self._take(rows)
        n_rows = max(1, FIT_CELLS // self._n_labels)
        for fold in range(int(folds.max(initial=-1)) + 1):
            held = folds == fold
            at = np.flatnonzero(held & wanted)
            examples = Examples(texts.take(np.flatnonzero(~held)), labels[~held], self._n_labels)
            norms = CentroidNorms(self._n_labels)
            norms.add(examples)
            for start in range(0, len(at), n_rows):
                some = at[start : start + n_rows]
                compared = SimilarityEvidence(texts.take(some), self._n_labels)
                compared.add(examples)
                scored = scores.take(some)
                similar, lexical = compared.similarity(norms), compared.lexical(norms)
                parts = Parts(scored.gate, scored.experts, similar, lexical)
                yield some, assemble(parts, self._subsets)

    def _worth(self) -> Doubles:
        """What a question about each pool text is worth, shape (n_pool,)."""
        worth, best = self._weighed.unsure, self._weighed.best
        if self._is_cold:
            worth = worth * poor_labels(self._labels, self._n_labels)[best[:, 0]]
        if self._config.loop.pairs_first and best.shape[1] > 1:
            seen = self._the_crossfitted
            pair, predicted = best[:, :2].astype(np.int64), seen.best[:, 0]
            worth = worth * confused_pairs(pair, predicted, seen.labels, self._n_labels)
        return worth

    def _choose(self, eligible: Ints, worth: Doubles, draw: int) -> Ints:
        loop = self._config.loop
        if loop.acquisition == "random":
            rng = np.random.default_rng([self._config.seed, draw])
            return rng.permutation(len(eligible))[: loop.samples_per_iteration]
        # The vectors of the few that can be chosen: those of all would be the pool once more.
        few = most_uncertain(worth[eligible], loop.samples_per_iteration)
        vectors = self._texts.vectors[self._pool[eligible[few]]]
        chosen = select_diverse(
            worth[eligible[few]], vectors, loop.samples_per_iteration, diversity=loop.diversity
        )
        return few[chosen]

    def _candidates(self, rows: Ints, best: Ints) -> tuple[CandidateView, ...]:
        similarity = self._texts.vectors[rows] @ self._texts.vectors[self._rows].T
        return tuple(
            CandidateView(
                row=int(row),
                labels=tuple(int(label) for label in labels),
                examples=tuple(self._nearest_of(label, int(row), near) for label in labels),
            )
            for row, labels, near in zip(rows, best, similarity, strict=True)
        )

    def _nearest_of(self, label: int, row: int, similarity: Floats) -> tuple[int, ...]:
        positions = np.flatnonzero((self._labels == label) & (self._rows != row))
        wanted = self._config.judge.examples_per_candidate
        nearest = nearest_first(similarity[positions], positions, wanted)
        return tuple(int(row) for row in self._rows[nearest])


def _slices(n_rows: int, n_labels: int) -> Iterator[slice]:
    """All rows, so many at a time that their evidence stays within `BLOCK_CELLS`."""
    step = max(1, BLOCK_CELLS // n_labels)
    return (slice(start, start + step) for start in range(0, n_rows, step))


def _blocks(at: Ints, evidence: Floats) -> Iterator[tuple[Ints, Floats]]:
    return ((at[some], evidence[some]) for some in _slices(len(at), evidence.shape[1]))


def _part(parts: Parts, some: slice) -> Parts:
    """The parts of the evidence about some of the texts."""
    centroid, nearest, nearest_3 = parts.similarity
    return Parts(
        gate=None if parts.gate is None else parts.gate[some],
        experts=tuple(scores[some] for scores in parts.experts),
        similarity=(centroid[some], nearest[some], nearest_3[some]),
        lexical=None if parts.lexical is None else (parts.lexical[0][some], parts.lexical[1][some]),
    )


def _joined(parts: Sequence[tuple[Ints, _Crossfitted]]) -> _Crossfitted:
    """Of the rows of all parts, in the order of their positions, which stand beside them."""
    order = np.argsort(np.concatenate([at for at, _ in parts]))
    names = [field.name for field in fields(_Crossfitted)]
    return _Crossfitted(
        **{
            name: np.concatenate([getattr(seen, name) for _, seen in parts])[order]
            for name in names
        }
    )


def _estimate(seen: _Crossfitted) -> Estimate:
    """Over the trusted rows."""
    mine = seen.trusted
    correct = (seen.best[:, 0] == seen.labels)[mine]
    return Estimate(
        log_likelihood=float(seen.log_likelihood[mine].mean()),
        accuracy=float(correct.mean()),
        ece=expected_calibration_error(seen.confidence[mine], correct),
        brier=float(seen.brier[mine].mean()),
    )
