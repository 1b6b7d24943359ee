"""The judge says examples of poor labels in other words, before anything is fitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from red_ray.core.text import text_key
from red_ray.judges.base import question_key
from red_ray.model import RedModel, expert_name
from red_ray.training.asking import Asking
from red_ray.training.job import TrainingJob
from red_ray.types import Candidate, Outcome, Progress, Question, Verdict

Ints = NDArray[np.int64]

_WHY = {
    "unasked": "left unasked, as the budget is used up",
    "unanswered": "without an answer",
    "repeated": "dropped, a text that was there before",
    "too_long": "dropped, longer than max_chars",
}


@dataclass(frozen=True, slots=True)
class Written:
    """Paraphrases as rows of the shared vectors; no labelled rows, whatever is done with those.

    Attributes:
        rows: as indices into the shared vectors, shape (n_written,).
        labels: of the texts that they say again, shape (n_written,).
        sources: rows of these texts, shape (n_written,).
        weight: what each counts for, beside 1 for a labelled row.
    """

    rows: Ints
    labels: Ints
    sources: Ints
    weight: float


class Paraphrasing:
    """Asks once about each chosen example; an answer that is no new text is dropped.

    A question holds its text and its label, and no other example: the paraphrase is left out of
    the fold that holds the text, and must not tell of a text that another fold holds.

    Attributes:
        texts: what was written, in the order of the questions.
        labels: positions of their labels, shape (n_written,).
        sources: rows that they say in other words, shape (n_written,).
    """

    def __init__(
        self, job: TrainingJob, rows: Ints, labels: Ints, asking: Asking, *, round_number: int
    ) -> None:
        """Choose the examples; nobody is asked yet.

        Args:
            job: rows and configuration.
            rows: labelled texts to begin with, as positions in its texts and pool, (n_rows,).
            labels: their labels, shape (n_rows,).
            asking: puts the questions.
            round_number: of the round of the loop that follows. What failed in it has failed for
                good once that round is over, and is asked again before.
        """
        chosen = examples_of_poor(labels, job.config.judge.paraphrases)
        self.texts: tuple[str, ...] = ()
        self.labels, self.sources = labels[:0], rows[:0]
        self._job = job
        self._all_texts = (*job.texts, *job.pool)
        self._rows, self._labels_of = rows[chosen], labels[chosen]
        self._asking = asking
        self._round = round_number

    @property
    def by(self) -> str:
        """Who wrote them."""
        return self._asking.judge_name

    async def run(self) -> AsyncGenerator[Progress, None]:
        """Ask, and say what came of it.

        Raises:
            JudgeUnavailable: the judge is away, or of no use.
        """
        questions = [
            self._question(int(row), int(label))
            for row, label in zip(self._rows, self._labels_of, strict=True)
        ]
        if not questions:
            return
        async with aclosing(self._asking.ask(questions, self._round)) as steps:
            async for step in steps:
                yield step
        self._asking.check_alive()
        counts = self._take_in(questions, self._asking.verdicts)
        yield Progress("judge", len(questions), len(questions), self._told(counts))

    def _question(self, row: int, label: int) -> Question:
        name = self._job.label_names[label]
        candidate = Candidate(name, self._job.descriptions.get(name, ""))
        return Question(self._all_texts[row], (candidate,), "paraphrase")

    def _take_in(self, questions: Sequence[Question], verdicts: Sequence[Verdict]) -> Counter[str]:
        """Keep the new texts, in the order of the questions; how many are none, by the reason."""
        said = {verdict.key: verdict for verdict in verdicts}
        known = {text_key(text) for text in self._all_texts} | self._job.apart
        counts: Counter[str] = Counter()
        kept, texts = [], []
        for position, question in enumerate(questions):
            verdict = said.get(question_key(question, self._asking.judge_name))
            why = self._fault(verdict, known)
            counts[why] += 1
            if not why and verdict is not None and verdict.label is not None:
                known.add(text_key(verdict.label))
                kept.append(position)
                texts.append(verdict.label)
        at = np.array(kept, dtype=np.int64)
        self.texts, self.labels, self.sources = tuple(texts), self._labels_of[at], self._rows[at]
        return counts

    def _fault(self, verdict: Verdict | None, known: set[str]) -> str:
        """Why an answer is no new text, by the keys of `_WHY`; empty where it is one."""
        if verdict is None:
            return "unasked"
        if verdict.outcome is not Outcome.LABEL or verdict.label is None:
            return "unanswered"
        if len(verdict.label) > self._job.config.max_chars:
            return "too_long"
        return "repeated" if text_key(verdict.label) in known else ""

    def _told(self, counts: Counter[str]) -> str:
        n_texts, n_labels = len(self.texts), len(np.unique(self.labels))
        texts = "1 paraphrase" if n_texts == 1 else f"{n_texts:,} paraphrases"
        labels = "1 label" if n_labels == 1 else f"{n_labels:,} labels"
        others = [f"{counts[why]:,} {words}" for why, words in _WHY.items() if counts[why]]
        return "; ".join([f"{texts} by the judge for {labels}", *others])


def who_learned(model: RedModel) -> dict[str, Any]:
    """How many texts that a judge wrote a model learned, and by which experts, for details.json."""
    counts = model.written_counts
    experts = [expert_name(position) for position, n in enumerate(counts) if n]
    return {"n_learned": sum(counts), "experts": experts}


def examples_of_poor(labels: Ints, wanted: int) -> Ints:
    """The first examples of the labels that have fewer than `wanted`, as many as they lack.

    Args:
        labels: of the rows, shape (n_rows,).
        wanted: texts of a label.

    Returns:
        Positions of rows, ascending.
    """
    counts = np.bincount(labels)
    order = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), dtype=np.int64)  # of a row among those of its label
    rank[order] = np.arange(len(labels)) - (np.cumsum(counts) - counts)[labels[order]]
    return np.flatnonzero(rank < wanted - counts[labels])


def most_questions(labels: Ints, wanted: int, *, n_labels: int, grows: bool) -> int:
    """How many examples `examples_of_poor` chooses at most.

    Args:
        labels: of the rows there are, shape (n_rows,).
        wanted: texts of a label.
        n_labels: of labels, those without a row among them.
        grows: whether the judge finds more rows before that is asked.
    """
    counts = np.bincount(labels, minlength=n_labels)
    most = np.minimum(wanted - counts, counts)
    if grows:  # a label lacks as many as it has where it has half of them
        most = np.where(2 * counts < wanted, wanted // 2, most)
    return int(np.clip(most, 0, None).sum())
