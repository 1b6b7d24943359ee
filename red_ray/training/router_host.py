"""Holds the evidence and the router of a run; the plain class behind the router actor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from red_ray.config import RunConfig
from red_ray.core.acquisition import select_diverse, uncertainty
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.evidence import Parts, assemble
from red_ray.core.lexical import LexicalSpace
from red_ray.core.metrics import brier_score, expected_calibration_error
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
    mean_log_likelihood,
    router_columns,
    says_none,
    top_labels,
)
from red_ray.core.thresholds import CalibrationRows
from red_ray.errors import DataError, ForgottenError
from red_ray.training.job import Estimate

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities of some rows by the gate (None without one) and by each expert."""

    gate: Floats | None
    experts: tuple[Floats, ...]


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
        trusted: whether the user labelled it, shape (n_rows,).
    """

    rows: Ints
    labels: Ints
    best: Ints
    confidence: Doubles
    none: Doubles
    features: Doubles
    folds: Ints
    trusted: NDArray[np.bool_]


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
    """What a model needs of the router host; `calibration` are the user's rows, cross-fitted."""

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
        self._crossfitted: _Crossfitted | None = None
        self._loaded: Texts | None = None
        self._space: LexicalSpace | None = None

    def load(self, vectors: Floats, texts: Sequence[str], subsets: Subsets) -> None:
        """Take the shared texts, labelled and pool; row indices refer to them."""
        self._subsets = subsets
        if self._config.router.lexical and self._space is None:
            self._space = LexicalSpace.fit(texts)
        ngrams = self._space.transform(texts) if self._space else None
        self._loaded = Texts(vectors, ngrams)

    def calibrate(
        self, rows: Ints, labels: Ints, folds: Ints, n_seed: int, scores: Scores
    ) -> Estimate:
        """Fit the router on cross-fitted evidence.

        Args:
            rows: all labelled rows, the seed rows first, shape (n_rows,).
            labels: their labels, shape (n_rows,).
            folds: held-out fold of each, -1 for never, shape (n_rows,).
            n_seed: rows whose labels come from the user; the estimate is over these, so that
                it compares from one iteration to the next.
            scores: of each row, by models that had not seen it.

        Raises:
            DataError: no label has two rows.
        """
        evidence = self.crossfitted_evidence(rows, labels, folds, scores)
        held = folds >= 0
        if not held.any():
            raise DataError("no label has two rows, so nothing can be held back to fit the router")
        trusted = held & (np.arange(len(rows)) < n_seed)
        self._router = fit_router(
            evidence[held],
            labels[held],
            trusted=trusted[held],
            columns=self._columns,
            none_prior=self._config.router.none_prior,
        )
        seen = evidence[held]
        proba = np.exp(self._router.label_log_proba(seen))
        self._crossfitted = _Crossfitted(
            rows=rows[held],
            labels=labels[held],
            best=top_labels(proba, self._config.judge.top_k),
            confidence=proba.max(axis=1),
            none=self._router.none_proba(seen),
            features=risk_features(seen, self._router.scores(seen), self._columns),
            folds=folds[held],
            trusted=trusted[held],
        )
        return _estimate(self._router, evidence[trusted], labels[trusted])

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

    def follow_pool(self, pool: Ints, rows: Ints, labels: Ints) -> None:
        """Start to keep the pool's evidence, given the rows labelled so far."""
        self._pool = pool
        self._pool_evidence = SimilarityEvidence(self._texts.take(pool), self._n_labels)
        self._pool_norms = CentroidNorms(self._n_labels)
        self._rows, self._labels = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.learn(rows, labels)

    def learn(self, rows: Ints, labels: Ints) -> None:
        """Take in newly labelled rows."""
        examples = self._examples(rows, labels)
        self._pool_evidence.add(examples)
        self._pool_norms.add(examples)
        self._rows = np.concatenate([self._rows, rows])
        self._labels = np.concatenate([self._labels, labels])

    def view_pool(self, left: NDArray[np.bool_], scores: Scores, phase: str, draw: int) -> PoolView:
        """Weigh the whole pool and choose the texts worth a question.

        Args:
            left: which pool texts may still be asked about, shape (n_pool,).
            scores: of every pool text.
            phase: `informative` chooses the uncertain, `all_predicted` all with a label.
            draw: number of the iteration; seeds the `random` acquisition.
        """
        distribution = self._the_router.distribution(self._pool_parts(scores))
        unsure = self._uncertainty(distribution)
        predicted = left & ~says_none(distribution, self._config.router.none_threshold)
        informative = left & (unsure > self._config.loop.uncertainty_threshold)
        eligible = np.flatnonzero(informative if phase == "informative" else predicted)
        chosen = eligible[self._choose(eligible, unsure, draw)]
        return PoolView(
            n_informative=int(informative.sum()),
            n_predicted=int(predicted.sum()),
            mean_uncertainty=float(unsure[left].mean()) if left.any() else 0.0,
            chosen=self._candidates(
                self._pool[chosen], top_labels(distribution[chosen, :-1], self._config.judge.top_k)
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

    def _examples(self, rows: Ints, labels: Ints) -> Examples:
        return Examples(self._texts.take(rows), labels, self._n_labels)

    def crossfitted_evidence(self, rows: Ints, labels: Ints, folds: Ints, scores: Scores) -> Floats:
        """Evidence of each labelled row, without its own fold; arguments as for `calibrate`."""
        shape = (len(rows), self._n_labels)
        similarity = tuple(np.zeros(shape, np.float32) for _ in range(3))
        lexical = tuple(np.zeros(shape, np.float32) for _ in range(2)) if self._space else None
        for fold in range(int(folds.max(initial=-1)) + 1):
            held = folds == fold
            examples = self._examples(rows[~held], labels[~held])
            norms = CentroidNorms(self._n_labels)
            norms.add(examples)
            compared = SimilarityEvidence(self._texts.take(rows[held]), self._n_labels)
            compared.add(examples)
            for target, values in zip(similarity, compared.similarity(norms), strict=True):
                target[held] = values
            for target, values in zip(lexical or (), compared.lexical(norms) or (), strict=True):
                target[held] = values
        parts = Parts(scores.gate, scores.experts, similarity, lexical)  # type: ignore[arg-type]
        return assemble(parts, self._subsets)

    def _pool_parts(self, scores: Scores) -> Floats:
        held, norms = self._pool_evidence, self._pool_norms
        parts = Parts(scores.gate, scores.experts, held.similarity(norms), held.lexical(norms))
        return assemble(parts, self._subsets)

    def _uncertainty(self, distribution: Doubles) -> Doubles:
        kind = self._config.loop.acquisition
        return uncertainty(distribution, "margin" if kind == "random" else kind)

    def _choose(self, eligible: Ints, unsure: Doubles, draw: int) -> Ints:
        loop = self._config.loop
        if loop.acquisition == "random":
            rng = np.random.default_rng([self._config.seed, draw])
            return rng.permutation(len(eligible))[: loop.samples_per_iteration]
        vectors = self._texts.vectors[self._pool[eligible]]
        return select_diverse(
            unsure[eligible], vectors, loop.samples_per_iteration, diversity=loop.diversity
        )

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


def _estimate(router: Router, evidence: Floats, labels: Ints) -> Estimate:
    proba = np.exp(router.label_log_proba(evidence))
    correct = proba.argmax(axis=1) == labels
    return Estimate(
        log_likelihood=mean_log_likelihood(router, evidence, labels),
        accuracy=float(correct.mean()),
        ece=expected_calibration_error(proba.max(axis=1), correct),
        brier=brier_score(proba, labels),
    )
