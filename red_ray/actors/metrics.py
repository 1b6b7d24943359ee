"""What runs, judges and endpoints tell Prometheus through Ray: one table, and who fills it.

Ray exports a metric as `ray_NAME`, a counter as `ray_NAME_total`. It forgets a gauge that nobody
sets again within some seconds, so that what has ended is not shown for ever: `Meter` sets them
again. It knows of a histogram its buckets alone: sums are counters of their own here. No text, no
label and no key is a tag.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from ray.util import metrics

from red_ray.types import Iteration, Progress

if TYPE_CHECKING:  # each actor pays for what it imports
    from red_ray.batch import BatchCounts
    from red_ray.judges import PoolStats

REFRESH_S = 2.0
"""Between two times that gauges are set; Ray takes them along every ten seconds."""

Kind = Literal["counter", "gauge", "histogram"]
Tags = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table.

    Attributes:
        name: as Ray is told it.
        kind: of Prometheus.
        about: one line, with the unit.
        tags: that each value has.
        boundaries: of a histogram's buckets.
    """

    name: str
    kind: Kind
    about: str
    tags: tuple[str, ...]
    boundaries: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """The name that Prometheus finds; a histogram has it with `_bucket` and `_count`."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


_RUN, _JUDGE = ("run",), ("judge", "run")

TABLE = (
    # A training run, told by its coordinator; `run` is the name of its folder.
    Metric("red_ray_run_progress", "gauge", "Share of the stage that is done", ("run", "stage")),
    Metric("red_ray_loop_iteration", "gauge", "Round of the loop that ended last", _RUN),
    Metric("red_ray_loop_labels", "gauge", "Rows that the model learns from", _RUN),
    Metric("red_ray_loop_pool", "gauge", "Texts of the pool that are left", _RUN),
    Metric("red_ray_loop_uncertainty", "gauge", "Mean uncertainty of the pool, 0 to 1", _RUN),
    Metric("red_ray_loop_log_likelihood", "gauge", "Log-likelihood of the cross-fitted rows", _RUN),
    Metric("red_ray_loop_accuracy", "gauge", "Estimated accuracy on the cross-fitted rows", _RUN),
    Metric("red_ray_loop_refits", "counter", "Experts that were fitted again", _RUN),
    Metric(
        "red_ray_loop_answers",
        "counter",
        "Questions about the pool: label, none, unreadable, failed",
        ("run", "outcome"),
    ),
    Metric("red_ray_loop_gold", "counter", "Planted questions: right or wrong", ("run", "outcome")),
    Metric(
        "red_ray_loop_step_seconds",
        "counter",
        "Seconds of the rounds: fit, score, acquire, judge, recalibrate",
        ("run", "step"),
    ),
    # A judge, told by its pool; `run` opened the ledger over which it is asked.
    Metric(
        "red_ray_judge_requests",
        "counter",
        "Requests that came back, retries included, by what came of them",
        (*_JUDGE, "result"),
    ),
    Metric("red_ray_judge_cached", "counter", "Questions that the ledger answered", _JUDGE),
    Metric("red_ray_judge_tokens", "counter", "Tokens of prompts and answers", _JUDGE),
    Metric("red_ray_judge_cost_usd", "counter", "Price in USD, where one is known", _JUDGE),
    Metric("red_ray_judge_in_flight", "gauge", "Requests that are under way", _JUDGE),
    Metric("red_ray_judge_waiting", "gauge", "Questions that wait for their turn", _JUDGE),
    Metric(
        "red_ray_judge_latency_seconds",
        "gauge",
        "Time of the last questions, retries included, by quantile",
        (*_JUDGE, "quantile"),
    ),
    Metric("red_ray_judge_paused", "gauge", "1 while the pool waits for the judge, else 0", _JUDGE),
    Metric(
        "red_ray_judge_budget_spent",
        "gauge",
        "Share of a budget that is spent or reserved: calls, tokens, usd",
        (*_JUDGE, "budget"),
    ),
    # An endpoint; `run` is the name of the folder that it answers from.
    Metric(
        "red_ray_serve_calls",
        "counter",
        "Calls: answered, failed, refused for load",
        ("run", "result"),
    ),
    Metric("red_ray_serve_texts", "counter", "Texts by decision", ("run", "decision")),
    Metric("red_ray_serve_sources", "counter", "Texts by who decided", ("run", "source")),
    Metric(
        "red_ray_serve_batch_texts",
        "histogram",
        "Texts that went through the model together",
        _RUN,
        (1, 2, 4, 8, 16, 32, 64, 128, 256),
    ),
    Metric("red_ray_serve_batches", "counter", "Batches that went through the model", _RUN),
    Metric(
        "red_ray_serve_step_seconds",
        "counter",
        "Seconds of batches: encode, evidence; of calls: wait, decide, judge, explain",
        ("run", "step"),
    ),
    Metric(
        "red_ray_serve_escalation_share",
        "gauge",
        "Share of the last texts that the model would not answer alone",
        _RUN,
    ),
    Metric(
        "red_ray_serve_escalation_promised",
        "gauge",
        "The share that calibration promised: expected, low, high",
        ("run", "bound"),
    ),
    Metric(
        "red_ray_serve_escalation_alarm", "gauge", "1 where the share left the band, else 0", _RUN
    ),
    # `red-ray classify` on Ray; `output` is the name of what it writes.
    Metric("red_ray_classify_rows", "counter", "Rows by decision", ("output", "decision")),
)

NAMED = {metric.name: metric for metric in TABLE}

Record = Callable[[Metric, float, Tags], None]


def to_ray(metric: Metric, value: float, tags: Tags) -> None:
    """Tell Ray a gauge's value, how much a counter grew, or what a histogram saw."""
    made = _made(metric.name)
    if metric.kind == "counter":
        made.inc(value, dict(tags))
    elif metric.kind == "gauge":
        made.set(value, dict(tags))
    else:
        made.observe(value, dict(tags))


@cache
def _made(name: str) -> Any:
    one = NAMED[name]
    if one.kind == "counter":
        return metrics.Counter(one.name, one.about, one.tags)
    if one.kind == "gauge":
        return metrics.Gauge(one.name, one.about, one.tags)
    return metrics.Histogram(one.name, one.about, list(one.boundaries), one.tags)


class Meter:
    """Fills rows of the table for one source.

    Args:
        record: takes each value.
        tags: that all values of the source have.
    """

    def __init__(self, record: Record = to_ray, **tags: str) -> None:
        self._record = record
        self._tags = tags
        self._gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def add(self, name: str, amount: float, **tags: str) -> None:
        """Let a counter grow; by nothing is fine."""
        if amount > 0:
            self._record(NAMED[name], float(amount), self._tags | tags)

    def set(self, name: str, value: float | None, **tags: str) -> None:
        """Set a gauge, and keep it so; None says that there is no value any more."""
        key = (name, tuple(sorted(tags.items())))
        if value is None:
            self._gauges.pop(key, None)
            return
        self._gauges[key] = float(value)
        self._record(NAMED[name], float(value), self._tags | tags)

    def observe(self, name: str, value: float, times: int = 1) -> None:
        """Let a histogram see a value so many times."""
        for _ in range(times):
            self._record(NAMED[name], float(value), self._tags)

    def drop(self, name: str) -> None:
        """Forget a gauge whatever its tags are."""
        self._gauges = {key: value for key, value in self._gauges.items() if key[0] != name}

    def refresh(self) -> None:
        """Set all gauges again, as Ray forgets them."""
        for (name, tags), value in self._gauges.items():
            self._record(NAMED[name], value, self._tags | dict(tags))


@contextmanager
def repeating(step: Callable[[], None]) -> Iterator[None]:
    """Do something every `REFRESH_S` on this event loop while the block runs."""
    task = asyncio.create_task(_repeat(step))
    try:
        yield
    finally:
        task.cancel()


async def _repeat(step: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(REFRESH_S)
        step()


def tell_progress(meter: Meter, event: Progress) -> None:
    """A step of a run; the stage before it is over."""
    meter.drop("red_ray_run_progress")
    share = event.done / event.total if event.total else 0.0
    meter.set("red_ray_run_progress", share, stage=event.stage)
    if event.iteration is not None:
        _tell_iteration(meter, event.iteration)


def tell_classified(meter: Meter, counts: BatchCounts) -> None:
    """Count a shard's rows."""
    decisions = {
        "accept": counts.accepted,
        "none": counts.none,
        "escalate": counts.escalated,
        "abstain": counts.abstained,
        "error": counts.errors,
    }
    for decision, n_rows in decisions.items():
        meter.add("red_ray_classify_rows", n_rows, decision=decision)


def _tell_iteration(meter: Meter, one: Iteration) -> None:
    gauges = {
        "red_ray_loop_iteration": one.iteration,
        "red_ray_loop_labels": one.n_train,
        "red_ray_loop_pool": one.n_pool,
        "red_ray_loop_uncertainty": one.mean_uncertainty,
        # Of the last round that refitted the router: it stands until the next one.
        "red_ray_loop_log_likelihood": one.log_likelihood,
        "red_ray_loop_accuracy": one.estimated_accuracy,
    }
    for name, value in gauges.items():
        if value is not None:
            meter.set(name, value)
    meter.add("red_ray_loop_refits", len(one.experts_refitted))
    outcomes = {
        "label": one.n_labelled,
        "none": one.n_none,
        "unreadable": one.n_unreadable,
        "failed": one.n_failed,
    }
    for outcome, n_questions in outcomes.items():
        meter.add("red_ray_loop_answers", n_questions, outcome=outcome)
    meter.add("red_ray_loop_gold", one.n_gold_right, outcome="right")
    meter.add("red_ray_loop_gold", one.n_gold - one.n_gold_right, outcome="wrong")
    for step in ("fit", "score", "acquire", "judge", "recalibrate"):
        meter.add("red_ray_loop_step_seconds", getattr(one, f"{step}_s"), step=step)


class PoolMeter:
    """Tells what one validator pool did since it was told last.

    Args:
        judge: its name.
        run: that opened the pool's ledger: a judge has a pool for each.
        record: takes each value.
    """

    def __init__(self, judge: str, run: str, record: Record = to_ray) -> None:
        self._meter = Meter(record, judge=judge, run=run)
        self._told: PoolStats | None = None

    def tell(self, stats: PoolStats, budget: Mapping[str, float]) -> None:
        """Counters grow by what is new, gauges are set.

        Args:
            stats: of the pool since it was made.
            budget: share of each limit that is spent.
        """
        meter, before = self._meter, self._told
        known = {} if before is None else before.results
        for result, n_requests in stats.results.items():
            meter.add("red_ray_judge_requests", n_requests - known.get(result, 0), result=result)
        for name in ("cached", "tokens"):
            told = 0 if before is None else getattr(before, name)
            meter.add(f"red_ray_judge_{name}", getattr(stats, name) - told)
        paid = 0.0 if before is None else before.cost_usd or 0.0
        meter.add("red_ray_judge_cost_usd", (stats.cost_usd or 0.0) - paid)
        meter.set("red_ray_judge_in_flight", stats.in_flight)
        meter.set("red_ray_judge_waiting", stats.waiting)
        meter.set("red_ray_judge_latency_seconds", stats.latency_p50_ms / 1e3, quantile="0.5")
        meter.set("red_ray_judge_latency_seconds", stats.latency_p95_ms / 1e3, quantile="0.95")
        meter.set("red_ray_judge_paused", bool(stats.notice))
        for limit, share in budget.items():
            meter.set("red_ray_judge_budget_spent", share, budget=limit)
        self._told = stats
