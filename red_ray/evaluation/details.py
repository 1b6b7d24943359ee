"""What the report shows beyond the scorecard: confusions, calibration, experts, labels."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from red_ray.calibration import threshold_details
from red_ray.core.metrics import reliability_bins
from red_ray.evaluation.predictions import Predictions
from red_ray.model import RedModel, expert_name
from red_ray.training import Trained
from red_ray.training.paraphrases import who_learned
from red_ray.types import FIRST_EXAMPLES

Json = dict[str, Any]

N_CONFUSIONS = 20
N_EXAMPLES = 3
N_BINS = 20


def run_details(trained: Trained, judge_spec: str | None) -> Json:
    """What is known without test rows."""
    model = trained.model
    return {
        "estimate": asdict(trained.estimate),
        "judge_spec": judge_spec,
        "stop_reason": trained.stop_reason,
        "strategy": trained.strategy,
        "n_seed": model.n_seed,
        "n_train": len(model.example_labels),
        "labelled_by": model.labelled_by,
        "unseen": list(model.unseen),
        "learning_curve": _learning_curve(trained),
        "thresholds": threshold_details(model),
    } | _paraphrases(trained)


def test_details(model: RedModel, rows: Predictions) -> Json:
    """What the test rows show."""
    correct = rows.predicted == rows.true
    return {
        "confusions": _confusions(model, rows),
        "reliability": [list(part) for part in reliability_bins(rows.proba.max(axis=1), correct)],
        "experts": _experts(model, rows),
        "labels": _labels(model, rows),
        "confidence_histogram": _histogram(
            rows.proba.max(axis=1), {"correct": correct, "wrong": ~correct}
        ),
        "none_histogram": _none_histogram(rows),
    }


def _paraphrases(trained: Trained) -> Json:
    """What the judge wrote, and who learned it; nothing where it wrote nothing."""
    written = trained.paraphrases
    if not written:
        return {}
    told = {"n_written": len(written), "n_labels": len({one.label for one in written})}
    return {"paraphrases": told | who_learned(trained.model)}


def _learning_curve(trained: Trained) -> list[Json]:
    iterations = [one for one in trained.iterations if one.phase != FIRST_EXAMPLES]
    before = [one for one in trained.iterations if one.phase == FIRST_EXAMPLES]
    n_before = sum(one.n_requests + one.n_cached for one in before)
    n_requests = n_before + np.cumsum([one.n_requests + one.n_cached for one in iterations])
    # How often a model agrees with a judge says nothing of how good it is.
    by_user = trained.model.labelled_by == "user"
    accuracy = trained.first_estimate.accuracy if by_user else None
    start = {
        "n_train": trained.n_first,
        "n_requests": n_before,
        "estimated_accuracy": accuracy,
    }
    return [start] + [
        {
            "n_train": one.n_train,
            "n_requests": int(total),
            "estimated_accuracy": one.estimated_accuracy,
        }
        for one, total in zip(iterations, n_requests, strict=True)
    ]


def _confusions(model: RedModel, rows: Predictions) -> list[Json]:
    pairs: dict[tuple[int, int], list[int]] = defaultdict(list)
    wrong = np.flatnonzero((rows.predicted != rows.true) & (rows.true >= 0))
    for row in wrong:
        pairs[int(rows.true[row]), int(rows.predicted[row])].append(int(row))
    n_true = np.bincount(rows.true[rows.true >= 0], minlength=len(model.labels))
    worst = sorted(pairs.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:N_CONFUSIONS]
    return [
        {
            "true": model.labels[true],
            "predicted": model.labels[predicted],
            "count": len(members),
            "share_of_true": len(members) / int(n_true[true]),
            "examples": [rows.texts[row] for row in members[:N_EXAMPLES]],
        }
        for (true, predicted), members in worst
    ]


def _experts(model: RedModel, rows: Predictions) -> list[Json]:
    return [_expert(model, rows, position) for position in range(len(model.subsets))]


def _expert(model: RedModel, rows: Predictions, position: int) -> Json:
    subset = model.subsets[position]
    own = np.isin(rows.true, subset)
    n_rows = int(np.isin(model.example_labels, subset).sum())
    right = rows.predicted == rows.true
    inside = rows.rivals["oracle_routed"] == rows.true
    return {
        "expert": expert_name(position),
        "labels": [model.labels[label] for label in subset],
        "n_rows": n_rows,
        "n_noise": model.noise_counts[position],
        "accuracy_inside": float(inside[own].mean()) if own.any() else None,
        "routed_share": float(np.isin(rows.predicted, subset).mean()),
        "accuracy": float(right[own].mean()) if own.any() else None,
    }


def _labels(model: RedModel, rows: Predictions) -> list[Json]:
    n_labels = len(model.labels)
    known = rows.true >= 0
    n_test = np.bincount(rows.true[known], minlength=n_labels)
    n_predicted = np.bincount(rows.predicted, minlength=n_labels)
    hits = np.bincount(rows.true[known & (rows.predicted == rows.true)], minlength=n_labels)
    n_train = np.bincount(model.example_labels, minlength=n_labels)
    expert_of = {label: i for i, subset in enumerate(model.subsets) for label in subset}
    return [
        {
            "label": name,
            "n_train": int(n_train[i]),
            "n_test": int(n_test[i]),
            "precision": _part(hits[i], n_predicted[i]),
            "recall": _part(hits[i], n_test[i]),
            "f1": _part(2 * hits[i], n_test[i] + n_predicted[i]),
            "expert": expert_name(expert_of[i]),
        }
        for i, name in enumerate(model.labels)
    ]


def _part(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _none_histogram(rows: Predictions) -> Json | None:
    strange = rows.none_out_of_scope
    if not len(strange):
        return None
    values = np.concatenate([rows.none, strange])
    in_scope = np.arange(len(values)) < len(rows.none)
    return _histogram(values, {"in_scope": in_scope, "out_of_scope": ~in_scope})


def _histogram(values: NDArray[np.float64], groups: dict[str, NDArray[np.bool_]]) -> Json:
    edges = np.linspace(0, 1, N_BINS + 1)
    counts = {
        name: np.histogram(values[group], edges)[0].tolist() for name, group in groups.items()
    }
    return {"edges": edges.tolist(), **counts}
