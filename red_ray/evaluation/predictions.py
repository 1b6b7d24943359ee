"""One pass of a model over test rows, from which every figure is worked out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from red_ray.evaluation import baselines
from red_ray.model import Assessment, RedModel, TextEncoder, joined

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the model and the baselines say about in-scope test rows.

    Attributes:
        texts: the rows' texts.
        true: label index, -1 for a label that training never saw, shape (n_rows,).
        proba: over labels, given that one fits, shape (n_rows, n_labels), rows sum to 1.
        label_risk: probability that the best label is wrong, shape (n_rows,).
        none: probability that no label fits, shape (n_rows,).
        rivals: the baselines' labels by name, each (n_rows,); of the user's rows none where these
            have fewer than two labels.
        none_out_of_scope: probability of *none* for out-of-scope rows, shape (n_oos,).
        encode_s: wall seconds of encoding.
        score_s: wall seconds of evidence and router.
    """

    texts: tuple[str, ...]
    true: Ints
    proba: Doubles
    label_risk: Doubles
    none: Doubles
    rivals: dict[str, Ints]
    none_out_of_scope: Doubles
    encode_s: float
    score_s: float

    @property
    def predicted(self) -> Ints:
        """The most probable label of each row, *none* excluded."""
        return np.asarray(self.proba.argmax(axis=1))


def predict_rows(
    model: RedModel,
    texts: Sequence[str],
    labels: Sequence[str],
    out_of_scope: Sequence[str],
    encoder: TextEncoder,
) -> Predictions:
    """Predict test rows and out-of-scope rows, with all baselines."""
    start = perf_counter()
    vectors = encoder.encode([*texts, *out_of_scope])
    encoded = perf_counter()
    n = len(texts)
    index = {name: position for position, name in enumerate(model.labels)}
    true = np.array([index.get(label, -1) for label in labels], dtype=np.int64)
    assessment, rivals = _in_scope(model, texts, vectors[:n], true)
    strange = model.assess(out_of_scope, vectors[n:])
    scored = perf_counter()
    rivals |= {
        "majority": baselines.majority(model, n),
        "flat": baselines.flat(model, vectors[:n]),
    }
    if len(set(model.example_labels[: model.n_seed].tolist())) > 1:
        rivals["flat_seed_rows"] = baselines.flat(model, vectors[:n], seed_rows_only=True)
    return Predictions(
        texts=tuple(texts),
        true=true,
        proba=assessment.label_proba,
        label_risk=assessment.label_risk,
        none=assessment.none,
        rivals=rivals,
        none_out_of_scope=strange.none,
        encode_s=encoded - start,
        score_s=scored - encoded,
    )


def _in_scope(
    model: RedModel, texts: Sequence[str], vectors: Floats, true: Ints
) -> tuple[Assessment, dict[str, Ints]]:
    parts, alone, oracle = [], [], []
    start = 0
    for evidence in model.evidence(texts, vectors):
        stop = start + len(evidence)
        parts.append(model.assess_evidence(evidence))
        alone.append(baselines.experts_only(evidence))
        oracle.append(baselines.oracle_routed(evidence, model.subsets, true[start:stop]))
        start = stop
    rivals = {"experts_only": np.concatenate(alone), "oracle_routed": np.concatenate(oracle)}
    return joined(parts), rivals
