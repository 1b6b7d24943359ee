"""The trained model: what training makes and inference loads; needs no Ray to predict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from red_ray import encoding
from red_ray.config import EncoderConfig, RunConfig
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.evidence import Parts, assemble
from red_ray.core.lexical import LexicalSpace
from red_ray.core.partition import Subsets
from red_ray.core.retrieval import CentroidNorms, Examples, SimilarityEvidence, Texts
from red_ray.core.risk import RiskModel, plain_risk, risk_features
from red_ray.core.router import Router, says_none, top_labels
from red_ray.core.thresholds import CalibrationRows, Promise, Thresholds, answer_risk
from red_ray.encoding import (
    CachedEncoder,
    EncoderSpec,
    PairedEncoder,
    SentenceEncoder,
    TunedWeights,
)
from red_ray.errors import EncoderError
from red_ray.experts import Expert, ExpertStack
from red_ray.types import Alternative, Decision, LabelledBy

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK_TEXTS = 512
"""Texts whose evidence is held at a time, which bounds the memory. A probability may differ in
the seventh digit with the company a text is in, as matrix products round by their shape."""


class TextEncoder(Protocol):
    """Anything that turns texts into vectors of unit length."""

    def encode(self, texts: Sequence[str]) -> Floats:
        """Shape (n_texts, dim)."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the router makes of some texts, before it decides.

    Attributes:
        label_proba: over labels, given that one fits, shape (n_texts, n_labels).
        label_risk: probability that the best label is wrong, given that one fits, (n_texts,).
        none: probability that no label fits, shape (n_texts,).
    """

    label_proba: Doubles
    label_risk: Doubles
    none: Doubles

    @property
    def distribution(self) -> Doubles:
        """One distribution over labels and *none*, shape (n_texts, n_labels + 1)."""
        none = self.none[:, None]
        return np.hstack([self.label_proba * (1 - none), none])


@dataclass(frozen=True)
class RedModel:
    """A many-label classifier: experts over label subsets, one router over all of them.

    Attributes:
        config: the resolved configuration that trained it.
        labels: label names; everything else refers to them by position.
        descriptions: of each label, empty where none was given.
        subsets: the labels of each expert.
        experts: one per subset.
        noise_counts: noise rows that each expert learned from.
        gate: the flat model over all labels, or None where the configuration has none.
        router: turns evidence into a distribution.
        risk: how doubtful an answer is, or None where the confidence in it says that best.
        calibration: training rows, by models that had not seen them: the user's, or where there
            are too few of those the first that a judge labelled.
        promise: where the thresholds come from; None without a goal.
        example_texts: the labelled texts it ended with.
        example_vectors: their embeddings, shape (n_examples, dim).
        example_labels: their labels, shape (n_examples,).
        n_seed: how many of them, the first ones, were labelled by the user and not by a judge.
        labelled_by: who labelled the rows of `calibration`.
        unseen: labels that have no example but their name.
        written_counts: how many texts that a judge wrote each expert learned beside its labelled
            rows; empty where none learned any. The gate learned them all, unless a change of
            labels has refitted it since.
        space: the lexical space, or None without lexical evidence.
        encoder_spec: what made the embeddings; None where that cannot be said.
        tuned: what fine-tuning changed of that encoder for SetFit experts, None for others. A
            text's vector is then that of the plain encoder and that of the tuned one, end to end.
        bundle_id: of the bundle it was read from, else empty.
        encoder: made on first use where none is given.
    """

    config: RunConfig
    labels: tuple[str, ...]
    descriptions: tuple[str, ...]
    subsets: Subsets
    experts: tuple[Expert, ...]
    noise_counts: tuple[int, ...]
    gate: Expert | None
    router: Router
    risk: RiskModel | None
    calibration: CalibrationRows
    example_texts: tuple[str, ...]
    example_vectors: Floats
    example_labels: Ints
    n_seed: int
    space: LexicalSpace | None
    encoder_spec: EncoderSpec | None = None
    tuned: TunedWeights | None = None
    bundle_id: str = ""
    promise: Promise | None = None
    labelled_by: LabelledBy = "user"
    unseen: tuple[str, ...] = ()
    written_counts: tuple[int, ...] = ()
    encoder: TextEncoder | None = field(default=None, compare=False, repr=False)

    def predict(self, texts: Sequence[str], *, top_k: int = 3) -> list[Decision]:
        """Decide on each text, in order.

        Args:
            texts: any number of them.
            top_k: a decision carries the `top_k - 1` next labels.
        """
        vectors = self.loaded_encoder.encode(texts)
        return self.decide(self.assess(texts, vectors), top_k=top_k)

    def assessments(self, batches: Iterable[Sequence[str]]) -> Iterator[Assessment]:
        """What the router makes of each batch.

        The evidence of a batch is worked out while the next one is encoded, and both cores of a
        small machine stay busy.
        """
        encoder = self.loaded_encoder
        with ThreadPoolExecutor(1, thread_name_prefix="evidence") as evidence_thread:
            pending = None
            for texts in batches:
                vectors = encoder.encode(texts)
                if pending is not None:
                    yield pending.result()
                pending = evidence_thread.submit(self.assess, texts, vectors)
            if pending is not None:
                yield pending.result()

    def assess(self, texts: Sequence[str], vectors: Floats) -> Assessment:
        """As `assessments`, for texts that are encoded already."""
        parts = [self.assess_evidence(chunk) for chunk in self.evidence(texts, vectors)]
        nothing = np.zeros(0)
        return joined(parts or [Assessment(np.zeros((0, len(self.labels))), nothing, nothing)])

    def assess_evidence(self, evidence: Floats) -> Assessment:
        """What the router makes of texts with this evidence."""
        scores = self.router.scores(evidence)
        energy = np.asarray(logsumexp(scores, axis=1))  # once: dear where there is one text
        features = risk_features(evidence, scores, self.router.columns, energy)
        return Assessment(
            label_proba=np.exp(scores - energy[:, None]),
            label_risk=plain_risk(features) if self.risk is None else self.risk.risk(features),
            none=self.router.none_proba(evidence, scores, energy),
        )

    def evidence(
        self, texts: Sequence[str], vectors: Floats, scores: Sequence[Floats] | None = None
    ) -> Iterator[Floats]:
        """Evidence in chunks of shape (n_chunk, n_labels, len(Column)).

        Args:
            texts: what it is about.
            vectors: their embeddings, shape (n_texts, dim).
            scores: what each expert makes of them, as `Expert.score` gives it, where the experts
                are elsewhere; by default the model's own are asked.
        """
        use_one_blas_thread()
        for start in range(0, len(texts), CHUNK_TEXTS):
            chunk = slice(start, start + CHUNK_TEXTS)
            given = None if scores is None else tuple(one[chunk] for one in scores)
            yield self._evidence(texts[chunk], vectors[chunk], given)

    def plain_vectors(self, vectors: Floats) -> Floats:
        """Of the encoder's vectors what compares with `example_vectors`, shape (n_texts, dim)."""
        return vectors[:, : self.example_vectors.shape[1]]

    def expert_vectors(self, vectors: Floats) -> Floats:
        """Of the encoder's vectors what gate and experts look at, shape (n_texts, dim)."""
        return vectors if self.tuned is None else vectors[:, self.example_vectors.shape[1] :]

    @property
    def thresholds(self) -> Thresholds:
        """Where decisions change; without a goal nothing is escalated."""
        if self.promise is not None:
            return self.promise.thresholds
        return Thresholds(escalate=None, none=self.config.router.none_threshold)

    def answer_risk(self, assessment: Assessment) -> Doubles:
        """Probability that the model's own answer is wrong, a label or *none*, shape (n_texts,)."""
        return answer_risk(assessment.label_risk, assessment.none, self.thresholds.none)

    def decide(self, assessment: Assessment, *, top_k: int = 3) -> list[Decision]:
        """Turn an assessment into decisions; no judge is asked here."""
        thresholds, distribution = self.thresholds, assessment.distribution
        ranked = top_labels(distribution[:, :-1], top_k)
        none = says_none(distribution, thresholds.none)
        decided = np.where(none, "none", "accept").astype(object)
        if thresholds.escalate is not None:
            decided[self.answer_risk(assessment) >= thresholds.escalate] = "escalate"
        rows = zip(distribution, ranked, none, decided, strict=True)
        return [
            self._decision(proba, order, top_k, is_none=bool(is_none), decided=str(kind))
            for proba, order, is_none, kind in rows
        ]

    def _decision(
        self, proba: Doubles, order: Ints, top_k: int, *, is_none: bool, decided: str
    ) -> Decision:
        best = int(order[0])
        others = order[: top_k - 1] if is_none else order[1:]
        return Decision(
            label=None if is_none else self.labels[best],
            confidence=float(proba[-1] if is_none else proba[best]),
            decision=decided,
            source="model",
            alternatives=tuple(Alternative(self.labels[i], float(proba[i])) for i in others),
            expert=self.expert_of[best],
        )

    def _evidence(
        self, texts: Sequence[str], vectors: Floats, scores: tuple[Floats, ...] | None
    ) -> Floats:
        ngrams = None if self.space is None else self.space.transform(texts)
        seen = self.expert_vectors(vectors)
        similar = SimilarityEvidence(Texts(self.plain_vectors(vectors), ngrams), len(self.labels))
        similar.add(self._examples)
        parts = Parts(
            gate=None if self.gate is None else self.gate.score(seen)[:, :-1],
            experts=self._stack.score(seen) if scores is None else scores,
            similarity=similar.similarity(self._norms),
            lexical=similar.lexical(self._norms),
        )
        return assemble(parts, self.subsets)

    @property
    def encoder_config(self) -> EncoderConfig:
        """The encoder's configuration with the precision that training found, not `auto`."""
        if self.encoder_spec is None:
            return self.config.encoder
        return self.config.encoder.model_copy(update={"dtype": self.encoder_spec.dtype})

    @cached_property
    def loaded_encoder(self) -> TextEncoder:
        """Its encoder, loaded on first use where none was given."""
        if self.encoder is not None:
            return self.encoder
        return self.load_encoder()

    def load_encoder(self, *, n_threads: int | None = None) -> TextEncoder:
        """The model's encoder, loaded anew; see `SentenceEncoder.load`.

        Raises:
            EncoderError: it cannot be found, or is not the one that training used.
        """
        load = partial(SentenceEncoder.load, self.encoder_config, n_threads=n_threads)
        plain = load()
        self.check_encoder(plain)
        return plain if self.tuned is None else PairedEncoder(plain, load(tuned=self.tuned))

    def open_encoder(self) -> TextEncoder:
        """The model's encoder with its store; loads nothing yet.

        Raises:
            EncoderError: it cannot be found, or is not the one that training used.
        """
        plain = encoding.open_encoder(self.encoder_config)
        self.check_encoder(plain)
        if self.tuned is None:
            return plain
        return PairedEncoder(plain, encoding.open_encoder(self.encoder_config, tuned=self.tuned))

    def check_encoder(self, encoder: SentenceEncoder | CachedEncoder) -> None:
        """Refuse an encoder that is not the one that training used.

        Raises:
            EncoderError: other weights or settings made the model's embeddings.
        """
        if self.encoder_spec is not None and not self.encoder_spec.agrees_with(encoder.spec):
            raise EncoderError(
                f"the encoder {self.config.encoder.model!r} on this machine is not the one that "
                "the model was trained with (other weights or settings); train again or restore it"
            )

    @cached_property
    def _examples(self) -> Examples:
        ngrams = None if self.space is None else self.space.transform(self.example_texts)
        texts = Texts(self.example_vectors, ngrams)
        return Examples(texts, self.example_labels, len(self.labels))

    @cached_property
    def _stack(self) -> ExpertStack:
        return ExpertStack(self.experts)

    @cached_property
    def _norms(self) -> CentroidNorms:
        norms = CentroidNorms(len(self.labels))
        norms.add(self._examples)
        return norms

    @cached_property
    def expert_of(self) -> dict[int, str]:
        """The name of each label's expert."""
        names = (expert_name(position) for position in range(len(self.subsets)))
        pairs = zip(names, self.subsets, strict=True)
        return {label: name for name, subset in pairs for label in subset}


def joined(parts: Sequence[Assessment]) -> Assessment:
    """Assessments of some texts, at least one, as one."""
    return Assessment(
        label_proba=np.concatenate([part.label_proba for part in parts]),
        label_risk=np.concatenate([part.label_risk for part in parts]),
        none=np.concatenate([part.none for part in parts]),
    )


def expert_name(position: int) -> str:
    """The id of the subset at `position`, as decisions and the dashboard show it."""
    return f"expert-{position:02d}"
