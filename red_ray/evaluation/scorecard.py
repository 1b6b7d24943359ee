"""The scorecard: the contract of every benchmark, with an interval on every rate."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from red_ray.calibration import CROSS_FITTED
from red_ray.core.metrics import (
    auroc,
    bootstrap_interval,
    brier_score,
    class_report,
    expected_calibration_error,
    fpr_at_recall,
    wilson_interval,
)
from red_ray.core.text import text_key
from red_ray.core.thresholds import CATCH, answer_risk
from red_ray.evaluation.predictions import Predictions
from red_ray.model import RedModel
from red_ray.types import Iteration

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Json = dict[str, Any]

DIGITS = 6
N_RESAMPLES = 300
"""Of the bootstrap: fixes the ends of an interval to about a tenth of its width."""

VERSIONS = ("red-ray", "ray", "torch", "sentence-transformers", "scikit-learn", "numpy")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the scorecard says about the run rather than about the test rows.

    Attributes:
        iterations: the loop's history.
        judge_spec: who was asked, or None.
        n_dropped: test rows that also stood in training or pool, left out.
        timing_s: wall seconds of training by stage.
        bill: what the ledger says the run's requests came to; None where there is no ledger.
    """

    iterations: Sequence[Iteration]
    judge_spec: str | None
    n_dropped: int
    timing_s: Mapping[str, float]
    bill: JudgeBill | None = None


@dataclass(frozen=True, slots=True)
class JudgeBill:
    """The requests of a run, over all its restarts.

    Attributes:
        results: how many requests, by what came of them.
        tokens: of prompts and answers.
        cost_usd: their price, None where it is not known.
    """

    results: Mapping[str, int]
    tokens: int
    cost_usd: float | None


def scorecard(model: RedModel, rows: Predictions, facts: RunFacts) -> Json:
    """Everything that the test rows and the run's history say, ready for JSON."""
    n = len(rows.true)
    correct = rows.predicted == rows.true
    card: Json = {"n_test": n, "n_labels": len(model.labels)}
    card |= _share("accuracy", correct)
    card |= _class_figures(model, rows)
    card |= _decided(model, rows, correct)
    card["n_unknown_label"] = int((rows.true < 0).sum())
    card["baselines"] = _baselines(rows)
    card["calibration"] = _calibration(model, rows, correct)
    card["router"] = _router(model, rows, correct)
    card["none"] = _none(model, rows)
    card["judge"] = _judge(facts)
    card["escalation"] = None  # of a judge that is asked about test rows, later if at all
    card["leaks"] = {"train_test": _leaks(model, rows), "train_test_dropped": facts.n_dropped}
    card["timing_s"] = _timing(rows, facts)
    card["seed"] = model.config.seed
    card["versions"] = versions()
    rounded: Json = _rounded(card)
    return rounded


def versions() -> dict[str, str]:
    """Python and the libraries that a result depends on."""
    return {"python": platform.python_version()} | {name: version(name) for name in VERSIONS}


def _share(name: str, hits: NDArray[np.bool_]) -> Json:
    n_hits, n = int(hits.sum()), len(hits)
    return {name: n_hits / n if n else None, f"{name}_ci": list(wilson_interval(n_hits, n))}


def _class_figures(model: RedModel, rows: Predictions) -> Json:
    # An unknown label gets a column of its own, so that it counts against recall.
    true = np.where(rows.true < 0, len(model.labels), rows.true)
    predicted, n_columns = rows.predicted, len(model.labels) + 1
    whole = class_report(true, predicted, n_columns)
    rng = np.random.default_rng(model.config.seed)
    draws = [rng.integers(0, len(true), size=len(true)) for _ in range(N_RESAMPLES)]
    resampled = [class_report(true[draw], predicted[draw], n_columns) for draw in draws]
    figures: Json = {}
    for name in ("macro_f1", "precision_weighted", "recall_weighted", "f1_weighted"):
        figures[name] = getattr(whole, name)
        values = [getattr(report, name) for report in resampled]
        figures[f"{name}_ci"] = _holding(figures[name], np.quantile(values, [0.025, 0.975]))
    return figures


def _decided(model: RedModel, rows: Predictions, correct: NDArray[np.bool_]) -> Json:
    """After the decision rule: the share of rows that get a label, and how many of those right."""
    answered = (rows.none < model.thresholds.none) & ~_escalated(model, rows)
    return _share("accuracy_decided", correct[answered]) | _share("answered_share", answered)


def _baselines(rows: Predictions) -> Json:
    figures: Json = {}
    for name in ("majority", "flat", "flat_seed_rows", "experts_only", "oracle_routed"):
        rival = rows.rivals.get(name)
        none: Json = {name: None, f"{name}_ci": None}
        figures |= none if rival is None else _share(name, rival == rows.true)
    return figures


def _escalated(model: RedModel, rows: Predictions) -> NDArray[np.bool_]:
    threshold, none = model.thresholds.escalate, model.thresholds.none
    if threshold is None:
        return np.zeros(len(rows.none), dtype=bool)
    return answer_risk(rows.label_risk, rows.none, none) >= threshold


def _router(model: RedModel, rows: Predictions, correct: NDArray[np.bool_]) -> Json | None:
    """What the goal came to: an error is a row where the model's own answer, or none, is wrong."""
    promise = model.promise
    if promise is None:
        return None
    wrong = ~correct | (rows.none >= promise.thresholds.none)
    escalated = _escalated(model, rows)
    return {
        "source": promise.source,
        "labelled_by": promise.labelled_by,
        "confidence": promise.confidence,
        "goals": dict(promise.goals),
        "threshold": promise.thresholds.escalate,
        "score": "confidence" if model.risk is None else "learned",
        "recall_target": promise.goals.get(CATCH),
        **_share("recall", escalated[wrong]),
        **_share("positive_rate", escalated),
        "n_positive": int(escalated.sum()),
        "n_errors": int(wrong.sum()),
        **_share("accept_precision", ~wrong[~escalated]),
    }


def _calibration(model: RedModel, rows: Predictions, correct: NDArray[np.bool_]) -> Json:
    seed = model.config.seed
    confidence = rows.proba.max(axis=1)
    known = rows.true >= 0
    return {
        "source": CROSS_FITTED if model.promise is None else model.promise.source,
        "labelled_by": model.labelled_by if model.promise is None else model.promise.labelled_by,
        **_resampled(
            "ece",
            lambda draw: expected_calibration_error(confidence[draw], correct[draw]),
            len(correct),
            seed,
        ),
        **_resampled(
            "brier",
            lambda draw: brier_score(rows.proba[known][draw], rows.true[known][draw]),
            int(known.sum()),
            seed,
        ),
    }


def _none(model: RedModel, rows: Predictions) -> Json | None:
    seed, threshold = model.config.seed, model.thresholds.none
    strange, known = rows.none_out_of_scope, rows.none[rows.true >= 0]
    if not len(strange) or not len(known):
        return None
    card: Json = {"n_oos": len(strange), "threshold": threshold}
    card |= _share("recall", strange >= threshold) | _share("false_alarm", known >= threshold)
    for name, figure in (("auroc", auroc), ("fpr_at_95", fpr_at_recall)):
        rng = np.random.default_rng(seed)
        values = [figure(_redrawn(strange, rng), _redrawn(known, rng)) for _ in range(N_RESAMPLES)]
        low, high = np.quantile(values, [0.025, 0.975])
        value = figure(strange, known)
        card |= {name: value, f"{name}_ci": [min(float(low), value), max(float(high), value)]}
    return card


def _redrawn(values: Doubles, rng: np.random.Generator) -> Doubles:
    return values[rng.integers(0, len(values), size=len(values))]


def _resampled(name: str, figure: Callable[[Ints], float], n: int, seed: int) -> Json:
    if not n:
        return {name: None, f"{name}_ci": None}
    whole = figure(np.arange(n))
    rng = np.random.default_rng(seed)
    interval = bootstrap_interval(figure, n, rng=rng, n_resamples=N_RESAMPLES)
    return {name: whole, f"{name}_ci": _holding(whole, interval)}


def _holding(value: float, interval: Sequence[float] | Floats) -> list[float]:
    """An interval that holds its figure.

    A resample repeats rows, which makes a small calibration error look larger than it is: the
    plain percentiles may then lie above the figure itself.
    """
    return [min(value, float(interval[0])), max(value, float(interval[1]))]


def judge_card(facts: RunFacts) -> Json | None:
    """What the judge was asked, answered and cost; None where nobody was asked."""
    card: Json | None = _rounded(_judge(facts))
    return card


def _judge(facts: RunFacts) -> Json | None:
    asked = facts.iterations or (facts.bill is not None and facts.bill.results)
    if not asked or facts.judge_spec is None:
        return None
    rounds = facts.iterations
    # An answer that another run has bought counts as a call: this one would have paid it.
    known = sum(one.n_cached for one in rounds)
    bill = facts.bill or JudgeBill({"requests": sum(one.n_requests for one in rounds)}, 0, None)
    calls = sum(bill.results.values()) + known
    labelled = sum(one.n_labelled for one in rounds)
    readable = labelled + sum(one.n_none for one in rounds)
    checked = [one for one in rounds if one.label_precision is not None]
    right = sum(round((one.label_precision or 0.0) * one.n_labelled) for one in checked)
    n_checked = sum(one.n_labelled for one in checked)
    n_gold = sum(one.n_gold for one in rounds)
    return {
        "spec": facts.judge_spec,
        "calls": calls,
        "from_ledger": known,
        "results": dict(bill.results) if facts.bill else None,
        **_ratio("labels_per_call", labelled, calls),
        **_ratio("label_precision", right, n_checked),
        **_ratio("validation_rate", labelled, readable),
        "n_gold": n_gold,
        **_ratio("gold_accuracy", sum(one.n_gold_right for one in rounds), n_gold),
        "unreadable": sum(one.n_unreadable for one in rounds),
        "failed": sum(one.n_failed for one in rounds),
        "tokens": bill.tokens,
        "cost_usd": bill.cost_usd,
    }


def _ratio(name: str, part: int, whole: int) -> Json:
    if not whole:
        return {name: None, f"{name}_ci": None}
    # Answers of the ledger cost no call, so that there may be more labels than calls.
    interval = list(wilson_interval(part, whole)) if part <= whole else None
    return {name: part / whole, f"{name}_ci": interval}


def _leaks(model: RedModel, rows: Predictions) -> int:
    seen = {text_key(text) for text in model.example_texts}
    return sum(text_key(text) in seen for text in rows.texts)


def _timing(rows: Predictions, facts: RunFacts) -> Json:
    timing = {"encode": rows.encode_s, "fit": 0.0, "score": rows.score_s, "judge_wait": 0.0}
    for stage, seconds in facts.timing_s.items():
        timing[stage] = timing.get(stage, 0.0) + seconds
    return timing


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value
