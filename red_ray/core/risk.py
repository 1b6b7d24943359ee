"""The learned router score: how likely the best label is wrong, from all that the router sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, expit, logit, logsumexp
from sklearn.linear_model import LogisticRegression

from red_ray.core.evidence import Column

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SURE = 1e-9
"""Keeps the log-odds of a probability of one finite."""

INVERSE_PENALTY = 0.1

MIN_ERRORS = 30
"""Fewer errors than two for each feature teach nothing."""

RECALLS = (0.8, 0.85, 0.9, 0.95)
"""Shares of the errors to be caught at which two scores are compared."""

N_RESAMPLES = 100
SURELY_BETTER = 0.9
"""Share of the resamples in which the learned score must do better to be used."""


@dataclass(frozen=True, slots=True)
class RiskModel:
    """A logistic regression on the features of `risk_features`.

    Attributes:
        mean: of each feature over the rows it was fitted on, shape (n_features,).
        scale: their standard deviations, shape (n_features,).
        weights: for each standardised feature, shape (n_features,).
        bias: log-odds of an error at the mean of all features.
    """

    mean: Doubles
    scale: Doubles
    weights: Doubles
    bias: float

    def risk(self, features: Doubles) -> Doubles:
        """Probability that the best label is wrong, shape (n_texts,)."""
        return np.asarray(expit(((features - self.mean) / self.scale) @ self.weights + self.bias))


def risk_features(
    evidence: Floats, scores: Doubles, columns: Ints, energy: Doubles | None = None
) -> Doubles:
    """What tells a doubtful text, shape (n_texts, n_features).

    Log-odds of the best label, its margins over the second and of that over the third, entropy,
    energy, the noise that its own expert sees, its nearest example; and for the gate, the expert,
    each similarity and n-grams how far the best label is ahead of all others there, and how many
    of them agree.

    Args:
        evidence: shape (n_texts, n_labels, len(Column)).
        scores: the router's unnormalised log-scores, shape (n_texts, n_labels).
        columns: the evidence columns that the router reads.
        energy: `logsumexp` of the scores over the labels, where it is known.
    """
    rows, best = np.arange(len(scores)), scores.argmax(axis=1)
    ranked = _three_best(scores)
    energy = logsumexp(scores, axis=1) if energy is None else energy
    proba = np.exp(scores - energy[:, None])
    ahead = [
        _ahead(evidence[:, :, column], rows, best) for column in columns if column != Column.NOISE
    ]
    return np.column_stack(
        [
            logit(np.clip(proba[rows, best], SURE, 1 - SURE)),
            ranked[:, 0] - ranked[:, 1],
            ranked[:, 1] - ranked[:, 2],
            entr(proba).sum(axis=1),
            energy,
            evidence[rows, best, Column.NOISE],
            evidence[rows, best, Column.NEAREST],
            *ahead,
            sum(gap >= 0 for gap in ahead),
        ]
    ).astype(np.float64)


def plain_risk(features: Doubles) -> Doubles:
    """One minus the confidence in the best label, from the same features."""
    return np.asarray(expit(-features[:, 0]))


def fit_risk(features: Doubles, wrong: Bools, recall_factor: float) -> RiskModel:
    """Learn which rows' best labels are wrong.

    Errors weigh as much as right rows, times `recall_factor`, as the router of R2R is trained; the
    bias is set back afterwards, so that what comes out is a probability all the same.

    Args:
        features: of rows that the model had not seen, shape (n_rows, n_features).
        wrong: whether their best label is wrong, shape (n_rows,); some are and some are not.
        recall_factor: weight of an error on top of the balance.

    Source: Fu et al., R2R: Efficiently Navigating Divergent Reasoning Paths (2025).
    """
    mean, spread = features.mean(axis=0), features.std(axis=0)
    # What varies by rounding alone, as the noise of a lone expert, is not blown up.
    scale = np.where(spread > 1e-6, spread, 1.0)
    weight = recall_factor * float((~wrong).sum()) / float(wrong.sum())
    model = LogisticRegression(
        C=INVERSE_PENALTY, class_weight={False: 1.0, True: weight}, max_iter=2000
    ).fit((features - mean) / scale, wrong)
    return RiskModel(mean, scale, model.coef_[0], float(model.intercept_[0] - np.log(weight)))


def crossfitted_risk(
    features: Doubles, wrong: Bools, folds: Ints, recall_factor: float
) -> Doubles | None:
    """Learned risk of each row by a fit without its fold; None where that cannot be learned."""
    if wrong.sum() < MIN_ERRORS or (~wrong).sum() < MIN_ERRORS:
        return None
    risk = np.zeros(len(wrong))
    for fold in np.unique(folds):
        held = folds == fold
        if wrong[~held].all() or not wrong[~held].any():
            return None
        risk[held] = fit_risk(features[~held], wrong[~held], recall_factor).risk(features[held])
    return risk


def is_better(risk: Doubles, than: Doubles, wrong: Bools, rng: np.random.Generator) -> bool:
    """Whether one score escalates fewer texts for the same errors than another, and surely so.

    Compared on resampled rows, as the share of texts that reach the threshold of each recall.
    """
    better = 0
    for _ in range(N_RESAMPLES):
        draw = rng.integers(0, len(wrong), size=len(wrong))
        if not wrong[draw].any():
            continue
        better += usage(risk[draw], wrong[draw]) < usage(than[draw], wrong[draw])
    return better >= SURELY_BETTER * N_RESAMPLES


def usage(risk: Doubles, wrong: Bools, recalls: tuple[float, ...] = RECALLS) -> float:
    """Share of texts escalated where a share of the errors is, mean over `recalls`."""
    errors, ordered = np.sort(risk[wrong])[::-1], np.sort(risk)
    # The small term: a product such as 0.95 * 20 must not round up to one error more.
    ranks = [max(1, int(np.ceil(recall * len(errors) - 1e-9))) for recall in recalls]
    below = np.searchsorted(ordered, errors[np.array(ranks) - 1], side="left")
    return float(1 - below.mean() / len(risk))


def _three_best(scores: Doubles) -> Doubles:
    """The three highest scores of each row, best first; what there is not, is far below."""
    missing = max(0, 3 - scores.shape[1])
    padded = np.pad(scores, ((0, 0), (0, missing)), constant_values=-1e3)
    return np.asarray(-np.sort(np.partition(-padded, 2, axis=1)[:, :3], axis=1))


def _ahead(values: Floats, rows: Ints, best: Ints) -> Floats:
    """How far the best label is ahead of all others in a column, shape (n_texts,)."""
    others = values.copy()
    others[rows, best] = -np.inf
    highest = others.max(axis=1) if values.shape[1] > 1 else values[rows, best]
    return np.asarray(values[rows, best] - highest)
