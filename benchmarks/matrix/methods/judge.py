"""A judge of red_ray as a classifier: it is offered all labels of a task."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.matrix.config import JudgeColumn
from benchmarks.matrix.methods.base import UNREADABLE, Answers
from benchmarks.matrix.tasks import Task, Text, joined
from red_ray.config import RunConfig, load_config
from red_ray.core.lexical import LexicalSpace
from red_ray.judges import Ledger, ValidatorPool, make_judge
from red_ray.judges.votes import lexical_votes
from red_ray.types import Candidate, Outcome, Question, Verdict


class Judge:
    """See `JudgeColumn`."""

    def __init__(self, column: JudgeColumn) -> None:
        self._column = column

    def fit(self, task: Task, seed: int) -> FittedJudge:
        """Open the judge; nothing is learned but where the examples lie."""
        column = self._column
        judge = {"spec": column.judge, **column.settings}
        config = load_config(None, {"seed": seed, "judge": judge})
        return FittedJudge(task, config, column.shots)


class FittedJudge:
    """A judge behind a validator pool of its own, whose ledger knows no answer yet.

    Args:
        task: its labels, and the rows that examples are taken from.
        config: whose `judge` part names the judge and its limits.
        shots: examples of each label that a question shows.
    """

    n_parameters = 0
    n_trained = 0
    device = "cpu"

    def __init__(self, task: Task, config: RunConfig, shots: int) -> None:
        self._task, self._shots = task, shots
        rows = task.everything
        self._labels = rows.labels
        self._texts = [joined(text, task.columns) for text in rows.texts]
        self._word = dict(zip(task.words, range(len(task.words)), strict=True))
        self._space = LexicalSpace.fit(self._texts) if shots else None
        self._known = self._space.transform(self._texts) if self._space else None
        votes = lexical_votes(self._texts, [task.words[at] for at in rows.labels])
        self._folder = tempfile.TemporaryDirectory()
        self._ledger = Ledger(Path(self._folder.name) / "ledger.sqlite")
        self._loop = asyncio.new_event_loop()
        judge = make_judge(config.judge, seed=config.seed, votes=votes)
        self._pool = self._loop.run_until_complete(_open(judge, self._ledger, config))
        self.history: Sequence[Mapping[str, float]] = ()
        self._n_open = 0

    @property
    def usd(self) -> float | None:
        """Paid so far; None where no price is known."""
        return self._pool.stats().cost_usd

    @property
    def notes(self) -> Sequence[str]:
        """Questions that got no answer."""
        return (f"{self._n_open} texts got no answer",) if self._n_open else ()

    def predict(self, texts: Sequence[Text], batch_size: int) -> Answers:
        """Ask about so many at a time."""
        parts = [texts[at : at + batch_size] for at in range(0, len(texts), batch_size)]
        verdicts = [one for part in parts for one in self._asked(part)]
        labels = [self._label(one) for one in verdicts]
        raw = tuple("" if one is None else (one.label or str(one.outcome)) for one in verdicts)
        return Answers(np.array(labels, dtype=np.int64), raw)

    def save(self, folder: Path) -> None:
        """Nothing was trained."""

    def close(self) -> None:
        """Close judge and ledger."""
        self._loop.run_until_complete(self._pool.close())
        self._loop.close()
        self._ledger.close()
        self._folder.cleanup()

    def _asked(self, texts: Sequence[Text]) -> list[Verdict | None]:
        questions = [self._question(joined(text, self._task.columns)) for text in texts]
        found = self._loop.run_until_complete(self._pool.validate(questions))
        by_key = {verdict.key: verdict for verdict in found}
        return [by_key.get(self._pool.key(question)) for question in questions]

    def _label(self, verdict: Verdict | None) -> int:
        if verdict is None or verdict.outcome in (Outcome.TIMEOUT, Outcome.ERROR):
            self._n_open += 1
            return UNREADABLE
        return UNREADABLE if verdict.label is None else self._word[verdict.label]

    def _question(self, text: str) -> Question:
        near = self._nearness(text)
        candidates = (
            Candidate(word, "", self._examples(label, near))
            for label, word in enumerate(self._task.words)
        )
        return Question(text, tuple(candidates), "choose")

    def _nearness(self, text: str) -> NDArray[np.float64] | None:
        if self._space is None:
            return None
        return (self._space.transform([text]) @ self._known.T).toarray()[0]

    def _examples(self, label: int, near: NDArray[np.float64] | None) -> tuple[str, ...]:
        if near is None:
            return ()
        rows = np.flatnonzero(self._labels == label)
        order = rows[np.argsort(-near[rows], kind="stable")][: self._shots]
        return tuple(self._texts[row] for row in order)


async def _open(judge: object, ledger: Ledger, config: RunConfig) -> ValidatorPool:
    """On the loop that asks: its limits belong to one."""
    return ValidatorPool(judge, ledger, config.judge, seed=config.seed)
