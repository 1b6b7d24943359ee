"""Examples of a label from the judge: of the pool's texts, or of a label that is split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from red_ray.core.retrieval import nearest_first
from red_ray.core.router import top_labels
from red_ray.core.text import text_key
from red_ray.encoding import plain_part
from red_ray.errors import ConfigError, DataError, JudgeUnavailable
from red_ray.judges.base import question_key
from red_ray.model import RedModel, TextEncoder
from red_ray.training.job import readable
from red_ray.types import Candidate, Outcome, Question, Verdict

Floats = NDArray[np.float32]

AT_ONCE = 10
"""Questions of a round: after each, what was found says where to look next."""

Ask = Callable[[Sequence[Question]], Sequence[Verdict]]
"""Puts questions to the judge; one that the budget left unasked has no verdict."""

FAILURES = (Outcome.TIMEOUT, Outcome.ERROR)

FEW, SMALL_SHARE = 5, 0.1
"""Fewer texts of a label, or a smaller share of those asked about, may be a judge's errors: one
that is right 90 % of the time is wrong about as many."""

N_SHOWN, SHOWN_CHARS = 5, 60
"""Texts that a caution shows, and how much of each."""


def _unasked(n: int) -> str:
    return f"the judge's budget is used up, and {n} questions were not asked: raise it"


@dataclass(frozen=True, slots=True)
class Asker:
    """Whom to ask, and how.

    Attributes:
        ask: puts questions.
        judge_name: part of every question's key.
        top_k: candidates of a question.
        n_examples: of a candidate.
        unasked: what to say of so many questions that the budget did not reach.
    """

    ask: Ask
    judge_name: str
    top_k: int
    n_examples: int
    unasked: Callable[[int], str] = _unasked

    def answers(self, questions: Sequence[Question]) -> list[Verdict | None]:
        """The verdict on each question; None where it was not asked.

        Raises:
            JudgeUnavailable: it gave no answer to any of them.
        """
        found = {one.key: one for one in self.ask(questions)}
        verdicts = [found.get(question_key(one, self.judge_name)) for one in questions]
        failed = [one for one in verdicts if one is not None and one.outcome in FAILURES]
        if failed and len(failed) == sum(one is not None for one in verdicts):
            raise JudgeUnavailable(
                f"the judge gave no answer to any of {len(failed)} questions "
                f"({failed[0].error}); what it answered before is kept: run the same command again"
            )
        return verdicts


@dataclass(frozen=True, slots=True)
class Found:
    """What the judge picked.

    Attributes:
        texts: that it gave the label.
        n_asked: questions that had a verdict.
        n_unasked: questions that the budget did not reach.
    """

    texts: tuple[str, ...]
    n_asked: int
    n_unasked: int

    @property
    def caution(self) -> str:
        """A line where so few of the texts got the label that it may be the judge's errors."""
        n = len(self.texts)
        if n >= max(FEW, SMALL_SHARE * self.n_asked):
            return ""
        shown = ", ".join(repr(one[:SHOWN_CHARS]) for one in self.texts[:N_SHOWN])
        more = f" and {n - N_SHOWN} more" if n > N_SHOWN else ""
        return (
            f"the judge gave only {n} of {self.n_asked} texts the label, and may be wrong about "
            f"these: look at them, and `undo` if they are of other labels: {shown}{more}"
        )


def from_pool(
    model: RedModel,
    name: str,
    description: str,
    pool: Sequence[str],
    asker: Asker,
    *,
    n_calls: int,
    encoder: TextEncoder,
) -> Found:
    """Ask about the pool texts that are most like a label's name and description.

    After each round the texts like those that were found count as well.

    Args:
        model: without the label.
        name: of the label.
        description: of it.
        pool: texts that may become examples, each once.
        asker: the judge.
        n_calls: questions at most.
        encoder: of the model.

    Raises:
        ConfigError: the budget ended before a text got the label.
        DataError: the pool is empty, or the judge gave no text the label.
        JudgeError: the judge cannot be asked.
    """
    if not pool:
        raise DataError(
            "no pool text is left to ask about: give --pool F, or examples (--examples F, --text T)"
        )
    encoder = plain_part(encoder)
    vectors = encoder.encode(pool)
    words = f"{readable(name)}. {description}" if description else readable(name)
    query = encoder.encode([words])[0]
    left, found = np.ones(len(pool), dtype=bool), list[int]()
    n_asked, n_wanted, is_over = 0, min(n_calls, len(pool)), False
    while n_asked < n_wanted and not is_over:
        n = min(AT_ONCE, n_wanted - n_asked)
        rows = _nearest(vectors, _towards(query, vectors[found]), left, n)
        left[rows] = False
        questions = _questions(model, name, description, pool, vectors, rows, asker)
        for row, verdict in zip(rows, asker.answers(questions), strict=True):
            n_asked, is_over = n_asked + (verdict is not None), is_over or verdict is None
            if verdict is not None and verdict.label == name:
                found.append(int(row))
    n_unasked = n_wanted - n_asked
    if not found and n_unasked:
        told = f"none of {n_asked} texts is of the label {name!r} yet: " if n_asked else ""
        raise ConfigError(told + asker.unasked(n_unasked))
    if not found:
        raise DataError(
            f"the judge gave none of {n_asked} texts the label {name!r}: raise --calls, say more "
            "in --description, or give examples (--examples F, --text T)"
        )
    return Found(tuple(pool[row] for row in sorted(found)), n_asked, n_unasked)


def parts_of(
    texts: Sequence[str], names: Sequence[str], descriptions: Sequence[str], asker: Asker
) -> tuple[dict[str, str | None], int]:
    """Ask to which of two labels each text belongs.

    Returns:
        The name by `text_key`, None where neither fits or the answer cannot be read; and how many
        of these there are.

    Raises:
        ConfigError: the budget did not reach all of them.
        JudgeUnavailable: some texts have no answer: ask again, what is known is not paid twice.
    """
    pairs = zip(names, descriptions, strict=True)
    candidates = tuple(Candidate(name, description) for name, description in pairs)
    verdicts = asker.answers([Question(text, candidates, "choose") for text in texts])
    n_unasked = sum(one is None for one in verdicts)
    open_ = n_unasked + sum(one is not None and one.outcome in FAILURES for one in verdicts)
    told = f"{open_} of {len(texts)} rows have no answer"
    if n_unasked:
        raise ConfigError(f"{told}: {asker.unasked(n_unasked)}")
    if open_:
        raise JudgeUnavailable(f"{told}; what it answered is kept: run the same command again")
    said = [one.label if one is not None and one.label in names else None for one in verdicts]
    return dict(zip(map(text_key, texts), said, strict=True)), said.count(None)


def _towards(query: Floats, found: Floats) -> Floats:
    """Between the words and the middle of what was found, as a label's embedding is."""
    if not len(found):
        return query
    middle = found.mean(axis=0)
    return np.asarray(query + middle / max(float(np.linalg.norm(middle)), 1e-12))


def _nearest(vectors: Floats, query: Floats, left: NDArray[np.bool_], n: int) -> list[int]:
    positions = np.flatnonzero(left)
    return [int(row) for row in nearest_first(vectors[positions] @ query, positions, n)]


def _questions(
    model: RedModel,
    name: str,
    description: str,
    pool: Sequence[str],
    vectors: Floats,
    rows: Sequence[int],
    asker: Asker,
) -> list[Question]:
    """Choose: the label, or one of those that the model thinks of, or none."""
    texts, near = [pool[row] for row in rows], vectors[list(rows)]
    best = top_labels(model.assess(texts, near).label_proba, max(1, asker.top_k - 1))
    new = Candidate(name, description)
    return [
        Question(
            text,
            (new, *(_candidate(model, int(label), vector, asker.n_examples) for label in labels)),
            "choose",
        )
        for text, vector, labels in zip(texts, near, best, strict=True)
    ]


def _candidate(model: RedModel, label: int, vector: Floats, n_examples: int) -> Candidate:
    rows = np.flatnonzero(model.example_labels == label)
    nearest = nearest_first(model.example_vectors[rows] @ vector, rows, n_examples)
    examples = tuple(model.example_texts[row] for row in nearest)
    return Candidate(model.labels[label], model.descriptions[label], examples)
