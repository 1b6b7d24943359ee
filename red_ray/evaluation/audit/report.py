"""Everything an audit found, ready for JSON; the best judge first."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from red_ray.evaluation.audit.asking import AuditJob
from red_ray.evaluation.audit.comparison import agreement, position_bias
from red_ray.evaluation.audit.criteria import Finding, find, worst
from red_ray.evaluation.audit.figures import Answer, Figure, Figures, by_category, figures_of
from red_ray.evaluation.audit.suite import CATEGORIES, PARTS, Item
from red_ray.evaluation.scorecard import versions
from red_ray.judges.ledger.transfer import BETWEEN, guarded_cell
from red_ray.judges.spec import is_simulated

Json = dict[str, Any]
Answers = Mapping[str, Sequence[Answer]]

DIGITS = 6


def audit_report(job: AuditJob, suite: Sequence[Item], answers: Answers) -> Json:
    """Figures of every judge on each part, what they mean, and how the judges compare."""
    judges = [_judge(job, spec, len(suite), answers[spec]) for spec in job.specs]
    report = {
        "suite": suite_counts(suite),
        "judges": sorted(judges, key=lambda one: -(one["held"]["accuracy"] or 0.0)),
        "agreement": _agreements(answers),
        "providers": _providers(answers),
        "n_disputed": len(disputed(suite, answers)),
        "seed": job.config.seed,
        "versions": versions(),
    }
    plain: Json = _plain(report)
    return plain


def shown(spec: str) -> str:
    """A judge as every output names it."""
    return f"{spec} (SIMULATED)" if is_simulated(spec) else spec


def suite_counts(suite: Sequence[Item]) -> Json:
    """Questions by part and category."""
    counts = Counter((item.part, item.category) for item in suite)
    return {
        "n": len(suite),
        "n_planted": sum(item.planted for item in suite),
        "parts": {part: {name: counts[part, name] for name in CATEGORIES} for part in PARTS},
    }


def disputed(suite: Sequence[Item], answers: Answers) -> list[dict[str, str]]:
    """The rows whose label the model and a judge both contradict, most contradicted first.

    A judge contradicts by naming another label, not by *none*; a row whose label was taken out
    of the candidates is no case. The columns are `disputed_columns`, ready for a table.
    """
    said = {
        spec: {one.item: one.verdict.label for one in given if one.verdict.label is not None}
        for spec, given in answers.items()
    }
    ranked = []
    for item in suite:
        named = {shown(spec): labels.get(item) or "" for spec, labels in said.items()}
        against = [label for label in named.values() if label not in ("", item.label)]
        if item.guess != item.label and not item.planted and against:
            rank = (len(against), against.count(item.guess))
            ranked.append((rank, _disputed_row(item, named)))
    return [row for _, row in sorted(ranked, key=lambda one: one[0], reverse=True)]


def disputed_columns(specs: Sequence[str]) -> tuple[str, ...]:
    """The judges' columns stand between the model's and those that a person needs."""
    return ("text", "label", "model", *(shown(spec) for spec in specs), "candidates", "answer")


def _disputed_row(item: Item, named: Mapping[str, str]) -> dict[str, str]:
    offered = BETWEEN.join(candidate.label for candidate in item.question.candidates)
    told = {"text": item.question.text, "label": item.label, "model": item.guess}
    cells = {**told, **named, "candidates": offered, "answer": ""}
    return {name: guarded_cell(cell) for name, cell in cells.items()}


def _judge(job: AuditJob, spec: str, n_suite: int, answers: Sequence[Answer]) -> Json:
    parts = {part: [one for one in answers if one.item.part == part] for part in PARTS}
    seed = job.config.seed
    figures = {part: figures_of(some, np.random.default_rng(seed)) for part, some in parts.items()}
    findings = find(figures["held"], job.config.audit)
    bias = position_bias(answers, np.random.default_rng(seed))
    return {
        "judge": spec,
        "simulated": is_simulated(spec),
        "outcome": worst(finding.outcome for finding in findings),
        "findings": [_finding(finding) for finding in findings],
        "held": _figures(figures["held"]),
        "working": _figures(figures["working"]),
        "all": _figures(figures_of(answers, np.random.default_rng(seed))),
        "n_unasked": n_suite - len(answers),
        "position": asdict(bias) if bias else None,
        "model_versions": sorted({one.verdict.version for one in answers} - {""}),
    }


def _figures(figures: Figures) -> Json:
    told: Json = {"n": figures.n}
    for name, figure in figures.rates.items():
        told |= {name: figure.value, f"{name}_ci": figure.interval}
    told |= {
        "n_offered": figures.rates["accuracy_offered"].n,
        "categories": {name: _accuracy(one) for name, one in figures.categories.items()},
        "latency_s": dict(figures.latency_s),
        "outcomes": dict(figures.outcomes),
        "requests": figures.requests,
        "prompt_tokens": figures.prompt_tokens,
        "completion_tokens": figures.completion_tokens,
        "cost_usd": figures.cost_usd,
    }
    return told


def _accuracy(figure: Figure) -> Json:
    return {"n": figure.n, "accuracy": figure.value, "accuracy_ci": figure.interval}


def _finding(finding: Finding) -> Json:
    return {
        "criterion": finding.name,
        "value": finding.figure.value,
        "ci": finding.figure.interval,
        "go": finding.limits.go,
        "abort": finding.limits.abort,
        "outcome": finding.outcome,
        "note": finding.note,
    }


def _agreements(answers: Answers) -> list[Json]:
    found = []
    for first, second in itertools.combinations(answers, 2):
        both = agreement(answers[first], answers[second])
        if both is not None:
            found.append({"judges": [first, second], **asdict(both)})
    return found


def _providers(answers: Answers) -> list[Json]:
    """Questions and right answers by who served them and by category."""
    served: dict[str, list[Answer]] = {}
    for spec, given in answers.items():
        served.setdefault(_provider(spec), []).extend(given)
    return [
        {
            "provider": provider,
            "judges": [spec for spec in answers if _provider(spec) == provider],
            "requests": sum(one.verdict.requests for one in given),
            "categories": {name: _accuracy(figure) for name, figure in by_category(given).items()},
        }
        for provider, given in served.items()
    ]


def _provider(spec: str) -> str:
    """Kind of judge and host, as `openai at api.example.com`."""
    kind, _, rest = spec.partition(":")
    if kind == "simulated":
        return "SIMULATED"
    _, found, address = rest.rpartition("@http")
    return f"{kind} at {urlsplit('http' + address).hostname}" if found else kind


def _plain(value: Any) -> Any:
    """Rounded, and without what JSON cannot hold: an end of an interval may be infinite."""
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
