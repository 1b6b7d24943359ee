"""What is told of runs and judges, and the table that says what there is."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from red_ray.actors import metrics
from red_ray.actors.metrics import (
    NAMED,
    TABLE,
    Meter,
    Metric,
    PoolMeter,
    Tags,
    tell_classified,
    tell_progress,
)
from red_ray.batch import BatchCounts
from red_ray.judges import PoolStats
from red_ray.types import Iteration, Progress
from tests.monitoring import (
    PARTS,
    dashboard,
    expressions,
    label_values,
    names_in,
    rules,
    used_names,
)

DOCS = Path(__file__).parents[3] / "docs" / "watching.md"


class Told:
    """What Ray would know: of counters the sum, of gauges the last value."""

    def __init__(self) -> None:
        self.values: defaultdict[tuple[str, ...], float] = defaultdict(float)

    def __call__(self, metric: Metric, value: float, tags: Tags) -> None:
        assert tuple(tags) == metric.tags
        key = (metric.name, *tags.values())
        self.values[key] = value + (self.values[key] if metric.kind == "counter" else 0.0)


STATS = PoolStats(
    requests=12,
    results={"label": 8, "timeout": 2},
    answered=8,
    cached=3,
    unreadable=0,
    timeouts=2,
    errors=0,
    in_flight=2,
    waiting=5,
    tokens=900,
    cost_usd=0.25,
    latency_p50_ms=500.0,
    latency_p95_ms=2000.0,
    notice="",
)

ROUND = Iteration(
    iteration=3,
    phase="informative",
    n_asked=24,
    n_labelled=20,
    n_none=3,
    n_unreadable=1,
    n_failed=0,
    n_requests=27,
    n_cached=0,
    n_train=92,
    n_pool=60,
    experts_refitted=(0, 1),
    mean_uncertainty=0.5,
    log_likelihood=-0.75,
    estimated_accuracy=0.8,
    label_precision=None,
    fit_s=1.0,
    score_s=0.5,
    acquire_s=0.25,
    judge_s=4.0,
    recalibrate_s=0.0,
    n_gold=3,
    n_gold_right=2,
)


def test_rounds_add_up_and_gauges_are_of_the_last_one() -> None:
    told = Told()
    meter = Meter(told, run="tickets")
    tell_progress(meter, Progress("loop", 3, 10, "", ROUND))
    later = replace(ROUND, iteration=4, log_likelihood=None, estimated_accuracy=None)
    tell_progress(meter, Progress("loop", 4, 10, "", later))
    run = "tickets"
    assert told.values["red_ray_loop_iteration", run] == 4
    assert told.values["red_ray_loop_log_likelihood", run] == -0.75
    assert told.values["red_ray_loop_labels", run] == 92
    assert told.values["red_ray_loop_refits", run] == 4
    assert told.values["red_ray_loop_answers", run, "label"] == 40
    assert told.values["red_ray_loop_gold", run, "wrong"] == 2
    assert told.values["red_ray_loop_step_seconds", run, "judge"] == 8.0
    assert told.values["red_ray_run_progress", run, "loop"] == 0.4


def test_a_stage_that_is_over_is_told_no_more() -> None:
    told = Told()
    meter = Meter(told, run="tickets")
    tell_progress(meter, Progress("encode", 0, 10))
    tell_progress(meter, Progress("fit", 1, 2))
    told.values.clear()
    meter.refresh()
    assert dict(told.values) == {("red_ray_run_progress", "tickets", "fit"): 0.5}


def test_a_pool_tells_what_is_new() -> None:
    told = Told()
    meter = PoolMeter("openai:m", "tickets", told)
    meter.tell(STATS, {"calls": 0.12})
    meter.tell(STATS, {"calls": 0.12})
    results = {"label": 9, "timeout": 2, "none": 1}
    meter.tell(
        replace(STATS, results=results, tokens=1000, cost_usd=0.5, in_flight=0, notice="away"),
        {"calls": 0.14},
    )
    judge = ("openai:m", "tickets")
    requests = {key[3]: value for key, value in told.values.items() if key[0].endswith("requests")}
    assert requests == results
    assert told.values["red_ray_judge_tokens", *judge] == 1000
    assert told.values["red_ray_judge_cached", *judge] == 3
    assert told.values["red_ray_judge_cost_usd", *judge] == pytest.approx(0.5)
    assert told.values["red_ray_judge_in_flight", *judge] == 0
    assert told.values["red_ray_judge_paused", *judge] == 1
    assert told.values["red_ray_judge_latency_seconds", *judge, "0.95"] == 2.0
    assert told.values["red_ray_judge_budget_spent", *judge, "calls"] == 0.14


def test_pools_of_two_ledgers_tell_of_themselves_alone() -> None:
    """Else the budget of one would hide behind that of the other."""
    told = Told()
    for run, share in (("tickets", 0.95), ("reviews", 0.01)):
        PoolMeter("openai:m", run, told).tell(STATS, {"calls": share})
    assert told.values["red_ray_judge_budget_spent", "openai:m", "tickets", "calls"] == 0.95


def test_a_shard_tells_each_of_its_rows_once() -> None:
    told = Told()
    counts = BatchCounts(rows=10, accepted=5, none=2, errors=1, escalated=2, by_judge=1)
    tell_classified(Meter(told, output="decided.csv"), counts)
    assert sum(told.values.values()) == counts.rows


async def test_gauges_are_set_again_while_the_block_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "REFRESH_S", 0.0)
    seen = asyncio.Event()
    meter = Meter(lambda metric, value, tags: seen.set(), run="tickets")
    meter.set("red_ray_loop_iteration", 1)
    seen.clear()
    with metrics.repeating(meter.refresh):
        await asyncio.wait_for(seen.wait(), 10)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


def test_the_table_keeps_prometheus_rules() -> None:
    for metric in TABLE:
        assert re.fullmatch(r"red_ray_[a-z_]+", metric.name)
        assert not metric.name.endswith(("_total", *PARTS))
        assert (metric.kind == "histogram") == bool(metric.boundaries)
        assert metric.about
    assert len(NAMED) == len(TABLE)


def exported() -> set[str]:
    """What may be used of our own."""
    names = {one.exported for one in TABLE if one.kind != "histogram"}
    return names | {one.exported + part for one in TABLE if one.boundaries for part in PARTS}


def test_dashboard_and_alarms_use_only_what_there_is() -> None:
    """Ray's own names, a test in tests/services finds on the port."""
    ours = {name for name in used_names() if name.startswith("ray_red_ray_")}
    assert ours <= exported()
    for query in label_values():
        assert names_in(query.replace("(run_progress|serve_calls_total)", "run_progress"))


def test_the_dashboard_shows_every_metric() -> None:
    text = " ".join(expressions().values())
    assert not [one.name for one in TABLE if one.exported not in text]


def test_panels_do_not_overlap_and_have_a_title_each() -> None:
    panels = dashboard()["panels"]
    cells = [
        (x, y)
        for one in panels
        for place in [one["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert (
        len({one["id"] for one in panels}) == len({one["title"] for one in panels}) == len(panels)
    )


def test_the_manual_has_every_metric_and_every_alarm() -> None:
    text = DOCS.read_text("utf-8")
    rows = dict(re.findall(r"^\| `(ray_red_ray_\w+)` \| (.+) \|$", text, re.MULTILINE))
    expected = {
        one.exported: " | ".join((one.kind, ", ".join(f"`{tag}`" for tag in one.tags), one.about))
        for one in TABLE
    }
    assert rows == expected
    assert not [one["alert"] for one in rules() if f"`{one['alert']}`" not in text]
