"""Whether recent texts are as those were that a model was made for, and which experts they hit.

Every question is one exact test on counts: did the share of a label change, did texts that are
like no label, or a group of alike ones (a new topic), or escalated ones grow, over all and near
each expert. All p-values of a report are corrected together (Holm), so that a report on texts
drawn as the reference's were says "drift" with a chance of at most its level. What is not known of
a reference's text counts against drift. What is significant and too small to matter is no drift
either.

A text that stands on both sides says nothing of a change, and is left out of both. Else repeated
texts would: a pool holds each once, and so they are a smaller part of it the larger it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from red_ray.calibration import chosen_point
from red_ray.core.metrics import wilson_interval
from red_ray.core.text import text_key
from red_ray.core.topics import label_likeness, most_typical, novel_groups
from red_ray.core.two_samples import (
    holm,
    least_share,
    p_changed,
    p_exceeds,
    p_grew,
    ratio,
    rows_to_see,
)
from red_ray.errors import DataError
from red_ray.evaluation.drift_advice import expert_advice
from red_ray.evaluation.drift_reference import Reference
from red_ray.evaluation.drift_report import (
    ESCALATION,
    LABEL,
    NONE,
    NOVELTY,
    PROMISE,
    TOPIC,
    Accuracy,
    Comparison,
    DriftReport,
    DriftSettings,
    Sight,
    Topic,
)
from red_ray.evaluation.drift_rows import DriftRows, drawn, learned_rows, score_texts
from red_ray.model import RedModel, TextEncoder, expert_name

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Doubles = NDArray[np.float64]

TAIL = 0.05
"""Of the reference, or near an expert of both sides, the texts that count as novel."""

NEAR = 0.25
"""Share of a topic's texts whose best label an expert must hold to be near the topic."""

KNOWN = 0.5
"""Share of a topic's texts that came with a label of the model, from which on it is that label."""

MOST_SHARED = 0.2
"""Share of the recent texts that may be left out, as learned or as standing in the reference too.
Up to there, of texts on both sides, label shares raised no more alarms than the level, of
simulated traffic whose repeated texts were of few labels (200 draws of each of 37 kinds); with all
texts kept on both sides, in up to a quarter of the draws."""

N_NOVEL = 5
"""Most novel texts that are named."""

WANTED_POWER = 0.8
"""Chance of being found at which a report says what it could have shown."""


def find_drift(
    model: RedModel,
    texts: Sequence[str],
    reference: Reference,
    *,
    labels: Mapping[str, str] | None = None,
    settings: DriftSettings | None = None,
    encoder: TextEncoder | None = None,
) -> tuple[DriftReport, DriftRows]:
    """Hold recent texts against a reference.

    A text that the model learned from is left out, as it looks more familiar than it is, and one
    that stands in the reference; of equal ones all but the first, as in a pool.

    Args:
        model: trained.
        texts: recent ones.
        reference: see `drift_reference`.
        labels: of recent texts by `text_key`, where there are any: they give the accuracy, and
            tell a new topic from a known label that is worded anew.
        settings: when it is drift.
        encoder: makes the embeddings; by default the model's own.

    Returns:
        The report, and what the model says of the texts that it is about.

    Raises:
        DataError: no text is left.
    """
    kept, notes = fresh_texts(model, texts)
    kept, reference, shared = _apart(texts, kept, reference)
    kept, more = drawn(kept, model.config.seed, "recent")
    recent = score_texts(model, kept, encoder)
    report = compare(model, recent, reference, settings or DriftSettings())
    notes = (*notes, *shared, *more, *report.notes)
    if labels:
        topics = tuple(_recognised(topic, model, labels) for topic in report.topics)
        report = replace(report, accuracy=_accuracy(model, recent, labels), topics=topics)
    return replace(report, notes=notes), recent


def fresh_texts(model: RedModel, texts: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts without repeats and without what the model learned, and a line for each of these.

    Raises:
        DataError: none is left.
    """
    learned, n_learned = learned_rows(model), 0
    kept: dict[str, str] = {}
    for text in texts:
        key = text_key(text)
        n_learned += key in learned
        if key not in learned:
            kept.setdefault(key, text)
    if not texts:
        raise DataError("there are no recent texts")
    if not kept:
        raise DataError(
            f"none of the {len(texts):,} recent texts is new to the model: it learned from all of "
            "them; give texts that came after the training"
        )
    n_repeats = len(texts) - n_learned - len(kept)
    counts = ((n_learned, "that the model learned from"), (n_repeats, "that stood there before"))
    return tuple(kept.values()), tuple(
        f"recent: left out {n:,} {'text' if n == 1 else 'texts'} {what}" for n, what in counts if n
    )


def _apart(
    texts: Sequence[str], fresh: Sequence[str], reference: Reference
) -> tuple[tuple[str, ...], Reference, tuple[str, ...]]:
    """Both sides without what stands on both, and a line where that was something."""
    apart = reference.without(frozenset(map(text_key, texts)))
    there = reference.all_keys
    kept = tuple(text for text in fresh if text_key(text) not in there)
    n_shared = len(fresh) - len(kept)
    if not kept or not apart.sure.any():
        raise DataError(
            f"each of the {len(fresh):,} recent texts stands in what they are held against, so "
            "none says what changed; give texts that came after it, or another --reference"
        )
    notes: tuple[str, ...] = ()
    if n_shared:
        words = "text that stands" if n_shared == 1 else "texts that stand"
        notes = (f"left out {n_shared:,} recent {words} in the reference too, of both",)
    n_all = len(set(map(text_key, texts)))
    n_out = n_all - len(kept)
    if n_out > MOST_SHARED * n_all and apart.has_shares:
        why = (
            f"{n_out / n_all:.0%} of the recent texts were learned or stand in the reference too, "
            "which may leave a choice of them: label shares are not compared"
        )
        apart = replace(apart, no_shares=why)
    return kept, apart, notes


def compare(
    model: RedModel, recent: DriftRows, reference: Reference, settings: DriftSettings
) -> DriftReport:
    """The report on some rows; see `find_drift`."""
    before = reference.rows
    both = _Both.of(model, recent, before, reference.sure)
    groups = _groups(model, both)
    made = [*_plain(both, reference, model), *(_topic_test(both, group) for group in groups)]
    corrected = holm([one.p for one in made])
    done = tuple(_judged(one, float(p), settings) for one, p in zip(made, corrected, strict=True))
    topics = tuple(
        _topic(both, group, one)
        for group, one in zip(groups, done[len(done) - len(groups) :], strict=True)
        if one.is_drift
    )
    report = DriftReport(
        settings=settings,
        source=reference.source,
        n=len(recent),
        n_before=both.n_before,
        comparisons=done,
        topics=tuple(sorted(topics, key=lambda topic: -topic.compared.hits)),
        most_novel=_most_novel(recent),
        experts=(),
        confidence=float(recent.confidence.mean()),
        confidence_before=_mean(before.confidence),
        promised=_promised(model),
        escalates=model.thresholds.escalate is not None,
        sight=_sight(done, settings),
        notes=(*reference.notes, *([reference.no_shares] if reference.no_shares else [])),
    )
    return replace(report, experts=expert_advice(model, done, report.topics))


@dataclass(frozen=True, slots=True)
class _Both:
    """Both sides, the recent texts first; of the reference `sure` are surely of the traffic.

    What is not known of the others, or of what a model says that had not seen a text, is counted
    as it hides drift best: `most` hits for a share that grew, `least` for one that shrank.
    """

    model: RedModel
    rows: tuple[DriftRows, DriftRows]
    n: int
    n_before: int
    sure: Bools
    novelty: Doubles
    vectors: NDArray[np.float32]
    expert: tuple[Ints, Ints]

    @classmethod
    def of(cls, model: RedModel, recent: DriftRows, before: DriftRows, sure: Bools) -> _Both:
        holder = np.zeros(len(model.labels) + 1, dtype=np.int64)
        for position, subset in enumerate(model.subsets):
            holder[list(subset)] = position
        holder[-1] = -1  # of an unknown label
        return cls(
            model,
            (recent, before),
            len(recent),
            int(sure.sum()),
            sure,
            np.concatenate([recent.novelty, before.novelty]),
            np.concatenate([recent.vectors, before.vectors]),
            (holder[recent.best], holder[before.best]),
        )

    def tail(self) -> tuple[Bools, Bools]:
        """Which texts of either side are among the most novel of both, or may be."""
        known = self.novelty[np.isfinite(self.novelty)]
        # Strictly above: equal ones are all in or all out, whatever side they are of.
        above = self.novelty > np.sort(known)[-_tail_rank(known) - 1]
        return above[: self.n], above[self.n :]

    def most(self, hit: Bools) -> tuple[int, int]:
        """Of the reference the texts that are or may be hits, and all beside which they count."""
        return int(hit.sum()), int((hit | self.sure).sum())

    def counted(
        self,
        kind: str,
        hits: int,
        before: tuple[int, int],
        p: float,
        name: str = "",
        expert: str = "",
    ) -> Comparison:
        n_before = max(1, before[1])
        sides = (hits, self.n, before[0], n_before)
        return Comparison(kind, name, expert, *sides, before[0] / n_before, ratio(*sides), p)

    def grown(self, kind: str, hits: int, before: Bools, **about: str) -> Comparison:
        most = self.most(before)
        p = float(p_grew(hits, self.n, *most))
        return self.counted(kind, hits, most, p, **about)


def _plain(both: _Both, reference: Reference, model: RedModel) -> Iterator[Comparison]:
    """All comparisons but those of topics."""
    recent, before = both.rows
    if reference.has_shares:
        yield from _label_tests(both)
    yield both.grown(NONE, int(recent.none.sum()), before.none)
    if not before.is_blind.all():
        yield _novelty_test(both)
        if reference.has_shares:
            yield from _expert_tests(both, NOVELTY, *both.tail())
    if model.thresholds.escalate is None:
        return
    n_escalated = int(recent.escalated.sum())
    escalation = both.grown(ESCALATION, n_escalated, before.escalated)
    yield escalation
    if reference.has_shares:
        yield from _expert_tests(both, ESCALATION, recent.escalated, before.escalated)
    goal = model.promise.goals.get("escalate_at_most") if model.promise else None
    if goal is not None:
        yield _promise_test(n_escalated, both.n, goal, escalation.p)


def _label_tests(both: _Both) -> Iterator[Comparison]:
    model, n = both.model, both.n
    recent = both.rows[0]
    hits = np.bincount(recent.best[~recent.none], minlength=len(model.labels))
    most, least = _most_of_labels(both), _least_of_labels(both)
    p = p_changed(hits, n, *most, least)
    shrank = hits * least[1] < n * least[0]
    for label, name in enumerate(model.labels):
        counts, sizes = least if shrank[label] else most
        beside = (int(counts[label]), int(sizes[label]))
        expert = model.expert_of[label]
        yield both.counted(LABEL, int(hits[label]), beside, float(p[label]), name, expert)


def _most_of_labels(both: _Both) -> tuple[Ints, Ints]:
    """Texts of the reference that have or may have each label, and beside how many."""
    before, n_labels = both.rows[1], len(both.model.labels)
    may = before.is_blind | ~before.none
    counts = []
    for mine in (both.sure, ~both.sure):
        named = np.bincount(before.best[mine & may & (before.best >= 0)], minlength=n_labels)
        counts.append(named + int((mine & may & (before.best < 0)).sum()))
    return counts[0] + counts[1], both.n_before + counts[1]


def _least_of_labels(both: _Both) -> tuple[Ints, Ints]:
    """Those that surely have each label and are of the traffic, and beside how many at most."""
    before, n_labels = both.rows[1], len(both.model.labels)
    has = ~before.is_blind & ~before.none & (before.best >= 0)
    counts = [
        np.bincount(before.best[mine & has], minlength=n_labels) for mine in (both.sure, ~both.sure)
    ]
    return counts[0], len(before) - counts[1]


def _novelty_test(both: _Both) -> Comparison:
    """Recent texts that are more novel than all but a few of the reference."""
    recent, before = both.rows[0].novelty, both.rows[1]
    known = np.sort(before.novelty[~before.is_blind])
    rank = _tail_rank(known)
    cut, n_blind = known[-rank], int(before.is_blind.sum())
    hits = int((recent > cut).sum())
    n_before = int((both.sure | (before.novelty >= cut)).sum())
    p = p_exceeds(hits, both.n, rank + n_blind, n_before)
    return both.counted(NOVELTY, hits, (rank + n_blind - 1, n_before), p)


def _tail_rank(known: Doubles) -> int:
    """The rank that ends the most novel texts, of those of which that is known."""
    return min(max(1, round(TAIL * len(known))), max(1, len(known) - 1))


def _expert_tests(both: _Both, kind: str, recent: Bools, before: Bools) -> Iterator[Comparison]:
    """Those texts whose best label is an expert's, as shares of all texts."""
    nearest, theirs = both.expert
    for position in range(len(both.model.subsets)):
        hits = int((nearest[recent] == position).sum())
        near = before & ((theirs == position) | (theirs < 0))
        yield both.grown(kind, hits, near, expert=expert_name(position))


def _promise_test(hits: int, n: int, promised: float, grew: float) -> Comparison:
    """More than was promised, and more than before: else the promise was never kept.

    Source: the exact binomial test of scipy.
    """
    p = max(grew, float(binomtest(hits, n, promised, alternative="greater").pvalue))
    factor = (hits + 0.5) / (n + 1) / promised
    return Comparison(PROMISE, "", "", hits, n, 0, 0, promised, factor, p)


def _groups(model: RedModel, both: _Both) -> list[Ints]:
    if not both.rows[1].vectors.any():
        return []
    likeness = label_likeness(model.example_vectors, model.example_labels)
    return novel_groups(both.vectors, both.novelty, likeness)


def _topic_test(both: _Both, group: Ints) -> Comparison:
    before = np.zeros(len(both.sure), dtype=bool)
    before[group[group >= both.n] - both.n] = True
    return both.grown(TOPIC, int((group < both.n).sum()), before)


def _topic(both: _Both, group: Ints, compared: Comparison) -> Topic:
    model, recent = both.model, both.rows[0]
    mine = group[group < both.n]
    typical = mine[most_typical(recent.vectors[mine], len(mine))]
    texts = tuple(recent.texts[row] for row in typical)
    labels = Counter(int(label) for label in recent.best[mine]).most_common()
    held = Counter(int(expert) for expert in both.expert[0][mine]).most_common()
    near = [held[0][0], *(expert for expert, n in held[1:] if n >= NEAR * len(mine))]
    return Topic(
        replace(compared, name=texts[0]),
        texts,
        tuple(model.labels[label] for label, _ in labels[:3]),
        tuple(expert_name(expert) for expert in near),
    )


def _recognised(topic: Topic, model: RedModel, labels: Mapping[str, str]) -> Topic:
    """With the model's label that most of its texts came with, if one did."""
    given = Counter(labels.get(text_key(text)) for text in topic.texts)
    label, n = given.most_common(1)[0]
    is_known = label in model.labels and n >= KNOWN * len(topic.texts)
    return replace(topic, known_as=label) if is_known else topic


def _most_novel(recent: DriftRows) -> tuple[str, ...]:
    order = np.argsort(-recent.novelty, kind="stable")[:N_NOVEL]
    return tuple(recent.texts[row] for row in order)


def _judged(one: Comparison, corrected: float, settings: DriftSettings) -> Comparison:
    matters = settings.matters(one.share_before, one.share, one.ratio)
    return replace(one, p_corrected=corrected, is_drift=corrected <= settings.level and matters)


def _promised(model: RedModel) -> float | None:
    """The share of the texts that the thresholds promised to escalate, or that of their rows."""
    promise = model.promise
    if promise is None or promise.thresholds.escalate is None:
        return None
    if "escalate_at_most" in promise.goals:
        return promise.goals["escalate_at_most"]
    chosen = chosen_point(promise)
    return None if chosen is None else chosen.escalated


def _sight(made: Sequence[Comparison], settings: DriftSettings) -> Sight | None:
    labels = [one for one in made if one.kind == LABEL]
    if not labels:
        return None
    # The median count, so that a label of it is one that there is.
    one = sorted(labels, key=lambda one: one.hits_before)[len(labels) // 2]
    first = settings.level / len(made)
    # Two-sided, and the first step of Holm's correction: what it takes at the most.
    sides = (one.hits_before, one.n_before, first / 2, WANTED_POWER)
    triple = min(1.0, 3 * one.share_before)
    return Sight(
        one.share_before,
        least_share(one.n, *sides),
        rows_to_see(triple, *sides) if one.hits_before else None,
    )


def _accuracy(model: RedModel, recent: DriftRows, labels: Mapping[str, str]) -> Accuracy:
    index = {name: position for position, name in enumerate(model.labels)}
    found = [labels.get(text_key(text)) for text in recent.texts]
    known = [(row, index[label]) for row, label in enumerate(found) if label in index]
    n_right = sum(int(recent.best[row]) == label for row, label in known)
    unknown = Counter(label for label in found if label is not None and label not in index)
    estimate = float(model.calibration.right.mean()) if len(model.calibration.right) else 0.0
    return Accuracy(
        n_right / len(known) if known else None,
        wilson_interval(n_right, len(known)),
        len(known),
        estimate,
        dict(unknown.most_common()),
        model.labelled_by,
    )


def _mean(values: Doubles) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
