"""Questions with a known answer, planted among the others: how often is the judge right?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from red_ray.training.router_host import CandidateView
from red_ray.types import HUMAN, Outcome, Verdict

Ints = NDArray[np.int64]

_ANSWERS = (Outcome.LABEL, Outcome.NONE)


class GoldRows:
    """Seed rows that the judge is asked about as if they were texts of the pool.

    Drawn at random, so that the estimate is one of the judge on texts like these; no answer
    reaches training.

    Attributes:
        answers: what the judge said of each row so far; None for none of these.

    Args:
        labels: of the seed rows, shape (n_rows,).
        share: planted questions for each question about the pool, 0 to 0.5.
        rng: draws the order of the rows.
        held: which rows are ever held back, as of the others every model has seen the label; all by
            default.
    """

    def __init__(
        self,
        labels: Ints,
        share: float,
        rng: np.random.Generator,
        held: NDArray[np.bool_] | None = None,
    ) -> None:
        self.answers: dict[int, int | None] = {}
        self._labels = labels
        self._share = share
        # A label's only row is never held back, so that no model has not seen it.
        usable = np.bincount(labels)[labels] > 1
        if held is not None:
            usable &= held
        self._order = rng.permutation(np.flatnonzero(usable))
        self._n_taken = 0
        self._n_asked = 0

    def take(self, n_asked: int) -> Ints:
        """The rows to plant beside `n_asked` questions: the share, over all rounds together."""
        self._n_asked += n_asked
        first, self._n_taken = self._n_taken, round(self._n_asked * self._share)
        return self._order[first : self._n_taken]

    def count(
        self,
        views: Sequence[CandidateView],
        verdicts: Sequence[Verdict | None],
        index: dict[str, int],
    ) -> tuple[int, int]:
        """How many of the planted questions the judge answered, and how many rightly.

        Right is the row's label, or none where that was not among the candidates.

        Args:
            views: the questions.
            verdicts: on them; None where there is none.
            index: positions of the labels, by name.
        """
        n_answered = n_right = 0
        for view, verdict in zip(views, verdicts, strict=True):
            # A person's word stands in for the judge's, and says nothing of the judge.
            if verdict is None or verdict.judge == HUMAN or verdict.outcome not in _ANSWERS:
                continue
            said = index.get(verdict.label) if verdict.label is not None else None
            truth = int(self._labels[view.row])
            self.answers[view.row] = said
            n_answered += 1
            n_right += said == (truth if truth in view.labels else None)
        return n_answered, n_right
