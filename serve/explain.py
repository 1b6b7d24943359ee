"""How a decision came about, read off the evidence: the experts may be in other processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from red_ray.core.evidence import Column
from red_ray.core.retrieval import nearest_first
from red_ray.core.router import top_labels
from red_ray.judges.spec import is_simulated
from red_ray.model import Assessment, RedModel, expert_name
from red_ray.types import HUMAN, Decision, Outcome, Question, Verdict
from serve.about import thresholds_of
from serve.schemas import (
    Alternative,
    AskedCandidate,
    Evidence,
    ExpertSaid,
    Explanation,
    JudgeSaid,
    LabelEvidence,
    NearExample,
)

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

N_EXPERTS = 5
"""Experts that an explanation names: the others say that the text is not theirs."""

N_EXAMPLES = 5

_ANSWERS = (Outcome.LABEL, Outcome.NONE)


def explanations(
    model: RedModel,
    vectors: Floats,
    evidence: Floats,
    assessment: Assessment,
    decisions: Sequence[Decision],
    *,
    top_k: int,
) -> list[Explanation]:
    """How each decision came about, but for the judge's part and the times.

    Args:
        model: decided; its experts are not asked anything.
        vectors: embeddings of the texts, shape (n_texts, dim).
        evidence: about them, shape (n_texts, n_labels, len(Column)).
        assessment: of them.
        decisions: on them, as they stand in the end.
        top_k: labels to name; the decision's own is named even beyond them.
    """
    risk, distribution = model.answer_risk(assessment), assessment.distribution[:, :-1]
    candidates = _Candidates(model)
    experts, gate = _experts(model, evidence), _gate(model, evidence, top_k)
    similarity = model.plain_vectors(vectors) @ model.example_vectors.T
    thresholds, ranked = thresholds_of(model), top_labels(distribution, top_k)
    return [
        Explanation(
            risk=_share(risk[row]),
            none=_share(assessment.none[row]),
            thresholds=thresholds,
            candidates=candidates.of(evidence[row], distribution[row], ranked[row], decision.label),
            n_experts=len(model.subsets),
            experts=experts[row],
            gate=gate[row],
            examples=_nearest(model, similarity[row]),
        )
        for row, decision in enumerate(decisions)
    ]


def judge_said(
    spec: str,
    question: Question | None,
    verdict: Verdict | None,
    *,
    mode: str,
    pending: bool = False,
) -> JudgeSaid:
    """What came of asking about a text.

    Args:
        spec: names the judge.
        question: None where it did not come to one.
        verdict: the judge's or a person's; None where there is none.
        mode: how the judge is asked.
        pending: whether a verdict may still come.
    """
    candidates = [
        AskedCandidate(label=one.label, description=one.description, examples=list(one.examples))
        for one in (question.candidates if question else ())
    ]
    if verdict is None:
        return JudgeSaid(
            judge=spec,
            simulated=is_simulated(spec),
            mode=mode,
            candidates=candidates,
            outcome="pending" if pending else "not_asked",
        )
    by_person = verdict.judge == HUMAN
    # A failure without a request is one that another call paid for, or a judge that is away.
    known = not verdict.requests and verdict.outcome in _ANSWERS
    return JudgeSaid(
        judge=HUMAN if by_person else spec,
        simulated=not by_person and is_simulated(spec),
        mode=mode,
        candidates=candidates,
        outcome=verdict.outcome.value,
        label=verdict.label,
        error=verdict.error,
        from_ledger=known,
        requests=verdict.requests,
        latency_ms=None if known else verdict.latency_ms,
        cost_usd=0.0 if known else verdict.cost_usd,
    )


class _Candidates:
    """Labels with what speaks for them; a part that the router does not read is null."""

    def __init__(self, model: RedModel) -> None:
        self._model = model
        self._position = {name: at for at, name in enumerate(model.labels)}
        columns = set(model.router.columns.tolist())
        self._has_gate = Column.GATE in columns
        self._has_lexical = Column.LEXICAL_NEAREST in columns

    def of(
        self, evidence: Floats, proba: Doubles, ranked: Ints, decided: str | None
    ) -> list[LabelEvidence]:
        """The labels `ranked`, and the one `decided` on where it is not among them."""
        shown = ranked.tolist()
        chosen = self._position.get(decided) if decided is not None else None
        if chosen is not None and chosen not in shown:
            shown.append(chosen)
        return [
            LabelEvidence(
                label=self._model.labels[label],
                confidence=_share(proba[label]),
                expert=self._model.expert_of[label],
                evidence=self._evidence(evidence[label].tolist()),
            )
            for label in shown
        ]

    def _evidence(self, values: Sequence[float]) -> Evidence:
        return Evidence(
            gate=_proba(values[Column.GATE]) if self._has_gate else None,
            expert=_proba(values[Column.EXPERT]),
            noise=_proba(values[Column.NOISE]),
            centroid=values[Column.CENTROID],
            nearest=values[Column.NEAREST],
            nearest_3=values[Column.NEAREST_3],
            lexical_centroid=values[Column.LEXICAL_CENTROID] if self._has_lexical else None,
            lexical_nearest=values[Column.LEXICAL_NEAREST] if self._has_lexical else None,
        )


def _experts(model: RedModel, evidence: Floats) -> list[list[ExpertSaid]]:
    """Of each text the experts that see least noise in it; all labels of one share its noise."""
    first_labels = [subset[0] for subset in model.subsets]
    noise = evidence[:, first_labels, Column.NOISE]
    nearest = np.argsort(noise, axis=1, kind="stable")[:, :N_EXPERTS]
    return [
        [_said(model, int(position), row) for position in positions]
        for row, positions in zip(evidence, nearest, strict=True)
    ]


def _said(model: RedModel, position: int, evidence: Floats) -> ExpertSaid:
    subset = model.subsets[position]
    scores = evidence[list(subset), Column.EXPERT]
    best = int(scores.argmax())
    return ExpertSaid(
        expert=expert_name(position),
        n_labels=len(subset),
        label=model.labels[subset[best]],
        score=_proba(scores[best]),
        noise=_proba(evidence[subset[0], Column.NOISE]),
    )


def _gate(model: RedModel, evidence: Floats, top_k: int) -> list[list[Alternative]]:
    if Column.GATE not in model.router.columns:
        return [[] for _ in evidence]
    log_proba = evidence[:, :, Column.GATE].astype(np.float64)
    return [
        [Alternative(label=model.labels[at], confidence=_proba(row[at])) for at in best]
        for row, best in zip(log_proba, top_labels(log_proba, top_k), strict=True)
    ]


def _given_by(model: RedModel, row: int) -> Literal["user", "judge", "name"]:
    if model.labels[model.example_labels[row]] in model.unseen:
        return "name"
    return "user" if row < model.n_seed else "judge"


def _nearest(model: RedModel, similarity: Floats) -> list[NearExample]:
    # To sort all of them would take longer than everything else here.
    n_shown = min(N_EXAMPLES, len(similarity))
    near = np.flatnonzero(similarity >= np.partition(similarity, -n_shown)[-n_shown])
    rows: Iterable[int] = nearest_first(similarity[near], near, n_shown)
    return [
        NearExample(
            text=model.example_texts[row],
            label=model.labels[model.example_labels[row]],
            similarity=float(similarity[row]),
            given_by=_given_by(model, row),
        )
        for row in rows
    ]


def _proba(log_proba: float) -> float:
    return _share(np.exp(log_proba))


def _share(value: float) -> float:
    """`value` without what rounding put beyond 0 and 1."""
    return min(1.0, max(0.0, float(value)))
