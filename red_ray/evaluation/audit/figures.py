"""What the answers of one judge come to; failed and unreadable answers count as not right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from red_ray.core.metrics import Interval, bootstrap_interval, wilson_interval
from red_ray.evaluation.audit.suite import CATEGORIES, Item
from red_ray.types import Outcome, Verdict

Floats = NDArray[np.float64]

READABLE = (Outcome.LABEL, Outcome.NONE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one judge made of one question.

    Attributes:
        item: the question, with what is right.
        verdict: what came of it.
        presented: the candidates' labels in the order in which the judge read them.
    """

    item: Item
    verdict: Verdict
    presented: tuple[str, ...]

    @property
    def readable(self) -> bool:
        """Whether the judge named a candidate or none."""
        return self.verdict.outcome in READABLE

    @property
    def correct(self) -> bool:
        """Whether the readable answer is the right one."""
        return self.readable and self.verdict.label == self.item.right


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % interval, an end of which may be infinite; None where undefined."""

    value: float | None
    interval: Interval | None
    n: int
    is_share: bool = True


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of some answers of one judge.

    Attributes:
        n: questions asked.
        rates: accuracy, accuracy_offered (over the questions that offered the truth),
            success_rate (readable answers), unreadable_rate, failed_rate (time-outs and errors),
            p95_latency_s and usd_per_correct, each with its interval.
        categories: accuracy by category of question.
        latency_s: quantiles by name, failures included; None without an answer.
        outcomes: questions by what came of them.
        requests: made for them, retries included.
        prompt_tokens: of all requests.
        completion_tokens: of all requests.
        cost_usd: None where the price is unknown.
    """

    n: int
    rates: Mapping[str, Figure]
    categories: Mapping[str, Figure]
    latency_s: Mapping[str, float | None]
    outcomes: Mapping[str, int]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None


def figures_of(answers: Sequence[Answer], rng: np.random.Generator) -> Figures:
    """Count, and put intervals around what was counted.

    Args:
        answers: of one judge, to the questions of one part.
        rng: draws the resamples of the price's interval.
    """
    outcomes = Counter(answer.verdict.outcome for answer in answers)
    latencies_s = np.array([answer.verdict.latency_ms / 1000 for answer in answers])
    return Figures(
        n=len(answers),
        rates={
            "accuracy": accuracy_of(answers),
            "accuracy_offered": accuracy_of(a for a in answers if a.item.right is not None),
            "success_rate": _share(sum(outcomes[one] for one in READABLE), len(answers)),
            "unreadable_rate": _share(outcomes[Outcome.UNREADABLE], len(answers)),
            "failed_rate": _share(
                outcomes[Outcome.TIMEOUT] + outcomes[Outcome.ERROR], len(answers)
            ),
            "p95_latency_s": _quantile(latencies_s, 0.95),
            "usd_per_correct": _price(answers, rng),
        },
        categories=by_category(answers),
        latency_s={
            f"p{level}": _quantile(latencies_s, level / 100).value for level in (50, 95, 99)
        },
        outcomes={outcome.value: outcomes[outcome] for outcome in Outcome},
        requests=sum(answer.verdict.requests for answer in answers),
        prompt_tokens=sum(answer.verdict.prompt_tokens for answer in answers),
        completion_tokens=sum(answer.verdict.completion_tokens for answer in answers),
        cost_usd=_cost(answers),
    )


def accuracy_of(answers: Iterable[Answer]) -> Figure:
    """Share of right answers among all, whatever became of the others."""
    right = [answer.correct for answer in answers]
    return _share(sum(right), len(right))


def by_category(answers: Sequence[Answer]) -> dict[str, Figure]:
    """Accuracy by category of question."""
    return {
        name: accuracy_of(one for one in answers if one.item.category == name)
        for name in CATEGORIES
    }


def _share(part: int, n: int) -> Figure:
    return Figure(part / n, wilson_interval(part, n), n) if n else Figure(None, None, 0)


def _quantile(values: Floats, level: float) -> Figure:
    """A quantile; its interval by order statistics assumes nothing about the distribution."""
    n = len(values)
    if not n:
        return Figure(None, None, 0, is_share=False)
    ordered = np.sort(values)
    below, above = int(binom.ppf(0.025, n, level)) - 1, int(binom.ppf(0.975, n, level))
    low = float(ordered[below]) if below >= 0 else 0.0
    high = float(ordered[above]) if above < n else math.inf
    return Figure(float(np.quantile(values, level)), (low, high), n, is_share=False)


def _cost(answers: Sequence[Answer]) -> float | None:
    costs = [answer.verdict.cost_usd for answer in answers]
    known = [cost for cost in costs if cost is not None]
    return math.fsum(known) if len(known) == len(costs) else None


def _price(answers: Sequence[Answer], rng: np.random.Generator) -> Figure:
    """What a right answer costs: the cost of all over the number of right ones."""
    n, total = len(answers), _cost(answers)
    right = np.array([answer.correct for answer in answers], dtype=float)
    if total is None or not right.any():
        return Figure(None, None, n, is_share=False)
    cost = np.array([answer.verdict.cost_usd for answer in answers], dtype=float)
    # A resample without any right answer has no price; one right answer is the least it can pay.
    interval = bootstrap_interval(
        lambda draw: float(cost[draw].sum() / max(1.0, right[draw].sum())), n, rng=rng
    )
    return Figure(total / float(right.sum()), interval, n, is_share=False)
