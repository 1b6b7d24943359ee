"""Which experts drift has hit, why, and what to do about each."""

from __future__ import annotations

from collections.abc import Sequence

from red_ray.evaluation.drift_report import (
    ESCALATION,
    LABEL,
    NOVELTY,
    TOPIC,
    Comparison,
    ExpertAdvice,
    Topic,
)
from red_ray.model import RedModel, expert_name

ADVICE = {
    TOPIC: "give the topic a label (red-ray label add RUN --name N --examples F), or add its texts "
    "to the label that they belong to",
    LABEL: "label some recent texts of it and refit: --refit with a label column or a judge",
    NOVELTY: "look at its novel texts: a label is missing (red-ray label add), or its labels are "
    "worded anew (label some and --refit)",
    ESCALATION: "label its most doubtful recent texts: --refit --judge SPEC --calls N",
}
"""What to do, the most pressing first: of several reasons the first one counts."""

OF_EXPERT = {
    NOVELTY: "of the texts are among the most novel of all, and nearest to it",
    ESCALATION: "of the texts are escalated, and nearest to it",
}


def expert_advice(
    model: RedModel, compared: Sequence[Comparison], topics: Sequence[Topic]
) -> tuple[ExpertAdvice, ...]:
    """The experts to refit, those with the surest reason first.

    Reasons are that a label of its own grew, that a new topic is nearest to it, and that novel
    or escalated texts near it grew. A label that shrank is no reason: its expert knows it.

    Args:
        model: whose experts they are.
        compared: all comparisons of a report.
        topics: the new ones.
    """
    found: dict[str, list[tuple[float, str, str]]] = {}
    for one in compared:
        if one.is_drift and one.grew and one.expert:
            found.setdefault(one.expert, []).append((one.p, one.kind, _reason(one)))
    for topic in topics:
        for expert in topic.experts:
            reason = (topic.compared.p, TOPIC, _topic_reason(topic))
            found.setdefault(expert, []).append(reason)
    order = sorted(found, key=lambda expert: (min(found[expert])[0], expert))
    return tuple(_advised(model, expert, sorted(found[expert])) for expert in order)


def _advised(
    model: RedModel, expert: str, reasons: Sequence[tuple[float, str, str]]
) -> ExpertAdvice:
    kinds = {kind for _, kind, _ in reasons}
    names = [expert_name(position) for position in range(len(model.subsets))]
    labels = tuple(model.labels[label] for label in model.subsets[names.index(expert)])
    advice = next(ADVICE[kind] for kind in ADVICE if kind in kinds)
    return ExpertAdvice(expert, labels, tuple(words for _, _, words in reasons), advice)


def _reason(one: Comparison) -> str:
    what = f"of the texts are {one.name}" if one.kind == LABEL else OF_EXPERT[one.kind]
    return f"{one.share:.1%} {what}; {one.share_before:.1%} before"


def _topic_reason(topic: Topic) -> str:
    near = ", ".join(topic.labels)
    before = topic.compared.hits_before
    return f"a topic of {topic.compared.hits} novel texts ({before} before) is nearest to {near}"
