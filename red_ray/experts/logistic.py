"""Logistic-regression expert: fitted with scikit-learn, kept and scored as plain arrays."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from red_ray.config import ExpertKind
from red_ray.core.evidence import LOG_FLOOR

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

INVERSE_PENALTY = 10.0
"""C of the logistic regression: the value of the flat baseline, so that both are comparable."""

MAX_ITERATIONS = 500
"""L-BFGS steps; unit-length embeddings need 40 to 150."""


class LogisticRegressionExpert:
    """Multinomial logistic regression; the flat gate is one over all labels without noise."""

    kind: ExpertKind = "logistic_regression"

    def __init__(
        self, n_labels: int, weights: Floats | None = None, bias: Floats | None = None
    ) -> None:
        self.n_labels = n_labels
        self.weights = weights
        self.bias = bias

    def fit(self, vectors: Floats, classes: Ints, weights: Doubles | None = None) -> None:
        """Fit anew; see `Expert.fit`."""
        from sklearn.linear_model import LogisticRegression

        n_columns, dim = self.n_labels + 1, vectors.shape[1]
        self.weights = np.zeros((n_columns, dim), dtype=np.float32)
        self.bias = np.full(n_columns, -np.inf, dtype=np.float32)
        present = np.unique(classes)
        if len(present) == 1:
            self.bias[present] = 0.0
            return
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=MAX_ITERATIONS)
        with warnings.catch_warnings():
            # Takes many labels with few rows each for a regression target; they are labels.
            warnings.filterwarnings("ignore", message="The number of unique classes")
            model.fit(vectors, classes, sample_weight=weights)
        if len(present) == 2:  # scikit-learn keeps one row of weights for two classes
            self.weights[present[1]] = model.coef_[0]
            self.bias[present] = [0.0, model.intercept_[0]]
            return
        self.weights[present] = model.coef_
        self.bias[present] = model.intercept_

    def score(self, vectors: Floats) -> Floats:
        """Log-probabilities; see `Expert.score`."""
        if self.weights is None or self.bias is None:
            raise RuntimeError("an expert scores only after it was fitted")
        logits = vectors @ self.weights.T + self.bias
        scores: Floats = np.maximum(log_softmax(logits, axis=1), LOG_FLOOR).astype(np.float32)
        return scores


class SetFitExpert(LogisticRegressionExpert):
    """The same over the vectors of an encoder that was fine-tuned on the run's rows.

    Source: Tunstall et al., Efficient Few-Shot Learning Without Prompts (2022).
    """

    kind: ExpertKind = "setfit"
