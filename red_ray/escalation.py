"""Asks a judge about the texts that the model does not answer alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from red_ray.config import JudgeConfig, RunConfig
from red_ray.core.retrieval import nearest_first
from red_ray.core.router import top_labels
from red_ray.core.text import text_key
from red_ray.data.prepare import HiddenLabels
from red_ray.data.tables import read_table
from red_ray.errors import ConfigError
from red_ray.judges import Judge, make_judge, question_key
from red_ray.judges.spec import is_simulated
from red_ray.model import Assessment, RedModel
from red_ray.types import HUMAN, Alternative, Candidate, Decision, Outcome, Question, Verdict

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

OnFailure = Literal["abstain", "answer_best"]

ROUND = 1
"""Escalated texts are all of one round: an answer that could not be read was paid for, and is not
asked for again."""

MAX_FORMS = 4096
"""Texts whose question is remembered, so that another spelling of one is not asked about anew."""


class Asks(Protocol):
    """Asks the judge, as the loop's validators do."""

    judge_name: str

    async def validate(self, questions: Sequence[Question], round_number: int) -> Sequence[Verdict]:
        """Verdicts in any order; a question that the budget left unasked has none."""


class Escalator:
    """Puts escalated texts to a judge; may be asked by many at once, on one event loop.

    What comes of a text:

    - a label: `accept`, with the model's probability of it (0 where a person named a label that
      the model does not know);
    - no label fits: `none`;
    - no result (not readable, a time-out, an error, a label that was not offered): `abstain`, or
      by `answer_best` the model's own answer;
    - not asked, as the budget is used up: it stays `escalate`.

    In `verify` mode a "no" says only that the best label does not fit. Nothing else was asked, so
    it is no result either, and `answer_best` is the model's best answer but this label: *none*
    where that reaches its threshold among what is left.

    Args:
        model: whose texts they are; its examples and descriptions are shown to the judge.
        validator: asks the judge; a verdict is in the ledger before it gives it out.
        judge: the question, and how many candidates and examples it has.
        on_failure: what a text becomes on which the judge gave no result.

    Attributes:
        outcomes: what came of the judge's answers, bought now or by an earlier command.
    """

    def __init__(
        self, model: RedModel, validator: Asks, judge: JudgeConfig, on_failure: OnFailure
    ) -> None:
        self._model = model
        self._validator = validator
        self._judge = judge
        self._on_failure = on_failure
        self._index = {name: position for position, name in enumerate(model.labels)}
        self._examples_of = _rows_by_label(model.example_labels, len(model.labels))
        self._forms: dict[str, Question] = {}
        self.outcomes: Counter[Outcome] = Counter()

    async def decide(
        self,
        texts: Sequence[str],
        vectors: Floats,
        assessment: Assessment,
        decisions: Sequence[Decision],
    ) -> list[Decision]:
        """The decisions after the judge was asked about those that say `escalate`, in order.

        Args:
            texts: what was decided on.
            vectors: their embeddings, shape (n_texts, dim).
            assessment: of them.
            decisions: on them, as `RedModel.decide` makes them.

        Raises:
            JudgeRefused: the judge refuses all requests.
            JudgeUnavailable: nobody had an answer for too long.
            StorageError: a verdict could not be stored.
        """
        rows = [row for row, one in enumerate(decisions) if one.decision == "escalate"]
        settled = list(decisions)
        if not rows:
            return settled
        doubtful = part_of(assessment, np.array(rows))
        verdicts = await self.ask([texts[row] for row in rows], vectors[rows], doubtful)
        distribution = doubtful.distribution
        for row, proba, verdict in zip(rows, distribution, verdicts, strict=True):
            settled[row] = self.settle(decisions[row], proba, verdict)
        return settled

    def question_about(self, text: str) -> Question | None:
        """What the judge was asked about a text of late; None where it was not."""
        return self._forms.get(text_key(text))

    async def ask(
        self, texts: Sequence[str], vectors: Floats, assessment: Assessment
    ) -> list[Verdict | None]:
        """The verdict on each text, in order; None where the budget did not reach it.

        Texts of one normalised form share a question, and one of them carries its requests.
        Arguments and errors as of `decide`; all texts are asked about.
        """
        keys = [text_key(text) for text in texts]
        questions = await self._questions(keys, texts, vectors, assessment)
        name = self._validator.judge_name
        by_key = {question_key(question, name): question for question in questions.values()}
        found = {one.key: one for one in await self._validator.validate([*by_key.values()], ROUND)}
        given = {
            key: _offered(found.get(question_key(question, name)), question)
            for key, question in questions.items()
        }
        self.outcomes.update(_said(given.values()))
        return _shared(keys, given)

    def settle(self, decision: Decision, proba: Doubles, verdict: Verdict | None) -> Decision:
        """What a verdict makes of a decision to escalate.

        Args:
            decision: the model's.
            proba: its distribution over labels and *none*, shape (n_labels + 1,).
            verdict: the judge's or a person's; None where nobody was asked.
        """
        if verdict is None:
            return decision
        source = "human" if verdict.judge == HUMAN else "judge"
        if verdict.outcome is Outcome.LABEL and verdict.label is not None:
            return self._labelled(decision, proba, verdict.label, source)
        is_no = verdict.outcome is Outcome.NONE
        if is_no and self._judge.question != "verify":
            return self._answer(decision, proba, None, source)
        if self._on_failure == "abstain":
            left = self._alternatives(proba, None, len(decision.alternatives))
            return replace(
                decision, decision="abstain", label=None, source=source, alternatives=left
            )
        return self._next_best(decision, proba) if is_no else _own_answer(decision)

    def _labelled(self, decision: Decision, proba: Doubles, label: str, source: str) -> Decision:
        if label in self._index:
            return self._answer(decision, proba, self._index[label], source)
        left = self._alternatives(proba, None, len(decision.alternatives))
        return replace(
            decision,
            decision="accept",
            label=label,
            confidence=0.0,
            source=source,
            alternatives=left,
        )

    def _answer(
        self, decision: Decision, proba: Doubles, label: int | None, source: str
    ) -> Decision:
        """One of the model's labels, or None for *none*."""
        return Decision(
            label=None if label is None else self._model.labels[label],
            confidence=float(proba[-1 if label is None else label]),
            decision="none" if label is None else "accept",
            source=source,
            alternatives=self._alternatives(proba, label, len(decision.alternatives)),
            expert=decision.expert if label is None else self._model.expert_of[label],
        )

    def _next_best(self, decision: Decision, proba: Doubles) -> Decision:
        """The model's best answer but the best label, which the judge refused."""
        best, *others = (int(label) for label in top_labels(proba[None, :-1], 2)[0])
        left = max(1 - proba[best], np.finfo(float).tiny)
        says_none = not others or proba[-1] / left >= self._model.thresholds.none
        return self._answer(decision, proba, None if says_none else others[0], "model")

    def _alternatives(
        self, proba: Doubles, chosen: int | None, n_wanted: int
    ) -> tuple[Alternative, ...]:
        ranked = top_labels(proba[None, :-1], n_wanted + 1)[0]
        others = [int(label) for label in ranked if label != chosen][:n_wanted]
        return tuple(Alternative(self._model.labels[i], float(proba[i])) for i in others)

    async def _questions(
        self, keys: Sequence[str], texts: Sequence[str], vectors: Floats, assessment: Assessment
    ) -> dict[str, Question]:
        """The question about each normalised form, by its key."""
        known = {key: self._forms[key] for key in keys if key in self._forms}
        first = {key: row for row, key in reversed([*enumerate(keys)]) if key not in known}
        rows = sorted(first.values())
        made = await asyncio.to_thread(
            self._made, [texts[row] for row in rows], vectors[rows], assessment.label_proba[rows]
        )
        for row, question in zip(rows, made, strict=True):
            # Whoever asked meanwhile about the same form was first.
            known[keys[row]] = self._forms.setdefault(keys[row], question)
        while len(self._forms) > MAX_FORMS:
            del self._forms[next(iter(self._forms))]
        return {key: known[key] for key in keys}

    def _made(self, texts: Sequence[str], vectors: Floats, label_proba: Doubles) -> list[Question]:
        plain = self._model.plain_vectors(vectors)
        rows = zip(texts, plain, top_labels(label_proba, self._judge.top_k), strict=True)
        return [
            Question(
                text,
                tuple(self._candidate(int(label), vector) for label in labels),
                self._judge.question,
            )
            for text, vector, labels in rows
        ]

    def _candidate(self, label: int, vector: Floats) -> Candidate:
        rows, model = self._examples_of[label], self._model
        similarity = model.example_vectors[rows] @ vector
        nearest = nearest_first(similarity, rows, self._judge.examples_per_candidate)
        examples = tuple(model.example_texts[row] for row in nearest)
        return Candidate(model.labels[label], model.descriptions[label], examples)


def asked_in(judge: JudgeConfig) -> str:
    """Names escalated texts in the ledger: they are no part of a training run, nor of its bill.

    Where answers are cut is named too: one that could not be read may be readable with more room.
    """
    return f"escalation:{judge.max_answer_tokens}"


def judge_of(config: RunConfig, model: RedModel, truth: HiddenLabels | None) -> Judge:
    """The judge; nothing is asked yet.

    Raises:
        ConfigError: it is unknown, or lacks what it needs.
    """
    votes = None
    if config.judge.spec == "neighbours":
        from red_ray.judges.votes import lexical_votes  # late: scikit-learn costs a second

        n_seed = model.n_seed or len(model.example_texts)  # else a judge's: there are no others
        names = [model.labels[label] for label in model.example_labels[:n_seed]]
        votes = lexical_votes(model.example_texts[:n_seed], names)
    hidden = truth.of if truth is not None else None
    return make_judge(config.judge, seed=config.seed, hidden=hidden, votes=votes)


def truth_of(source: Path, config: RunConfig, model: RedModel) -> HiddenLabels | None:
    """The labels of a table, for a simulated judge alone; None for any other.

    Raises:
        ConfigError: it has none.
        DataError: it cannot be read.
    """
    if not is_simulated(config.judge.spec):
        return None
    columns = model.config
    table = read_table(
        source,
        text_column=columns.text_column,
        label_column=columns.label_column,
        label_required=False,
    )
    if table.labels is None:
        raise ConfigError(
            f"judge {config.judge.spec!r} only plays one and needs the truth: give "
            f"{str(source)!r} a column {columns.label_column!r}, or ask a language model "
            "(--judge ollama:MODEL)"
        )
    pairs = zip(table.texts, table.labels, strict=True)
    return HiddenLabels.of_texts((text, label.strip()) for text, label in pairs if text and label)


def part_of(assessment: Assessment, rows: Ints) -> Assessment:
    """The assessment of some of its texts."""
    return Assessment(
        assessment.label_proba[rows], assessment.label_risk[rows], assessment.none[rows]
    )


def _rows_by_label(labels: Ints, n_labels: int) -> list[Ints]:
    """Positions of each label's rows, ascending."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, n_labels)))


def _offered(verdict: Verdict | None, question: Question) -> Verdict | None:
    """The verdict; one of a judge that names what it was not offered cannot be used."""
    if verdict is None or verdict.judge == HUMAN or verdict.outcome is not Outcome.LABEL:
        return verdict
    if verdict.label in {candidate.label for candidate in question.candidates}:
        return verdict
    told = "the judge named a label that was not offered"
    return replace(verdict, outcome=Outcome.UNREADABLE, label=None, error=told)


def _said(verdicts: Iterable[Verdict | None]) -> Iterator[Outcome]:
    """What came of each verdict that is the judge's."""
    return (one.outcome for one in verdicts if one is not None and one.judge != HUMAN)


def _shared(keys: Iterable[str], given: Mapping[str, Verdict | None]) -> list[Verdict | None]:
    """The verdict of each key; from its second time on it costs nothing."""
    verdicts: list[Verdict | None] = []
    seen: set[str] = set()
    for key in keys:
        verdict = given[key]
        if verdict is not None and verdict.key in seen:
            verdict = replace(
                verdict, requests=0, prompt_tokens=0, completion_tokens=0, cost_usd=0.0
            )
        elif verdict is not None:
            seen.add(verdict.key)
        verdicts.append(verdict)
    return verdicts


def _own_answer(decision: Decision) -> Decision:
    return replace(decision, decision="none" if decision.label is None else "accept")
