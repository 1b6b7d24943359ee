"""Many experts asked at once: a step for each would cost more than their product with a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from red_ray.core.evidence import LOG_FLOOR
from red_ray.experts.base import Expert
from red_ray.experts.logistic import LogisticRegressionExpert

Floats = NDArray[np.float32]


class ExpertStack:
    """Fitted experts, each of which scores the same texts.

    The weights of logistic-regression experts stand in one matrix; others are asked one by one.
    """

    def __init__(self, experts: Sequence[Expert]) -> None:
        self._experts = tuple(experts)
        self._weights: Floats | None = None
        logistic = [one for one in experts if isinstance(one, LogisticRegressionExpert)]
        if logistic and len(logistic) == len(experts):
            self._weights = np.concatenate([_fitted(one.weights) for one in logistic])
            self._bias = np.concatenate([_fitted(one.bias) for one in logistic])
            self._sizes = np.array([one.n_labels + 1 for one in logistic])
            self._starts = np.cumsum(self._sizes) - self._sizes
            ends = zip(self._starts, self._starts + self._sizes, strict=True)
            self._columns = [slice(int(start), int(end)) for start, end in ends]

    def score(self, vectors: Floats) -> tuple[Floats, ...]:
        """What each expert makes of the texts, as `Expert.score` gives it but for rounding."""
        if self._weights is None:
            return tuple(expert.score(vectors) for expert in self._experts)
        logits = vectors @ self._weights.T + self._bias
        logits -= np.repeat(np.maximum.reduceat(logits, self._starts, axis=1), self._sizes, axis=1)
        totals = np.log(np.add.reduceat(np.exp(logits), self._starts, axis=1))
        scores = np.maximum(logits - np.repeat(totals, self._sizes, axis=1), LOG_FLOOR)
        return tuple(scores[:, columns] for columns in self._columns)


def _fitted(array: Floats | None) -> Floats:
    if array is None:
        raise RuntimeError("an expert scores only after it was fitted")
    return array
