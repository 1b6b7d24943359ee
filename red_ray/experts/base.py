"""What every expert can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from red_ray.config import ExpertKind

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ExpertSpec:
    """Which expert this is and what it decides between.

    Attributes:
        name: as the dashboard shows it: `expert-03: card_arrival, …`, or `gate: 77 labels`.
        labels: indices of its labels; column j of its scores is `labels[j]`.
        kind: what is fitted.
        seed: of this expert's fit.
    """

    name: str
    labels: tuple[int, ...]
    kind: ExpertKind
    seed: int


class Expert(Protocol):
    """A classifier over the labels of one subset and *noise*.

    `classes` are columns: 0 to n_labels - 1 for the labels and n_labels for noise.
    """

    kind: ExpertKind

    def fit(self, vectors: Floats, classes: Ints, weights: Doubles | None = None) -> None:
        """Fit anew on the full current set.

        Args:
            vectors: embeddings, shape (n_rows, dim).
            classes: column of each row, shape (n_rows,); not every column needs a row.
            weights: what each row counts for, above 0, shape (n_rows,); by default all the same.
        """

    def score(self, vectors: Floats) -> Floats:
        """Log-probabilities, shape (n_texts, n_labels + 1), the last column noise.

        A column that had no row in the fit holds `LOG_FLOOR`.
        """


def make_expert(spec: ExpertSpec) -> Expert:
    """A fresh expert of the kind that `spec` names."""
    # Imported here: scikit-learn costs a second, and scoring a logistic expert needs none of it.
    if spec.kind == "random_forest":
        from red_ray.experts.forest import RandomForestExpert

        return RandomForestExpert(n_labels=len(spec.labels), seed=spec.seed)
    from red_ray.experts.logistic import LogisticRegressionExpert, SetFitExpert

    kind = SetFitExpert if spec.kind == "setfit" else LogisticRegressionExpert
    return kind(n_labels=len(spec.labels))
