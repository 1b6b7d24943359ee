"""Random-forest expert, the reference's `balanced` kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from red_ray.config import ExpertKind
from red_ray.core.evidence import LOG_FLOOR

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

N_TREES = 200
"""Enough that a vote's share is smooth to half a percent."""


class RandomForestExpert:
    """A forest over the embeddings; probabilities are shares of votes, never quite 0."""

    kind: ExpertKind = "random_forest"

    def __init__(
        self, n_labels: int, seed: int = 0, model: RandomForestClassifier | None = None
    ) -> None:
        self.n_labels = n_labels
        self.seed = seed
        self.model = model

    def fit(self, vectors: Floats, classes: Ints, weights: Doubles | None = None) -> None:
        """Fit anew; see `Expert.fit`. Classes are balanced, since noise rows are the many."""
        from sklearn.ensemble import RandomForestClassifier

        self.model = RandomForestClassifier(
            n_estimators=N_TREES,
            min_samples_leaf=2,
            max_features="sqrt",
            class_weight="balanced_subsample",
            random_state=self.seed,
            n_jobs=1,
        ).fit(vectors, classes, sample_weight=weights)

    def score(self, vectors: Floats) -> Floats:
        """Log-probabilities; see `Expert.score`."""
        if self.model is None:
            raise RuntimeError("an expert scores only after it was fitted")
        scores = np.full((len(vectors), self.n_labels + 1), LOG_FLOOR, dtype=np.float32)
        if len(vectors) == 0:  # scikit-learn refuses; a fold of a small set may have no row
            return scores
        classes = self.model.classes_
        # Laplace: a label without a vote is unlikely, not impossible.
        votes = self.model.predict_proba(vectors) * N_TREES + 1 / len(classes)
        scores[:, classes] = np.log(votes / (N_TREES + 1))
        return scores
