"""What a replica and the desk tell Prometheus."""

from __future__ import annotations

from collections import Counter

from red_ray.actors.metrics import Meter, Metric, Tags
from serve.metering import ReplicaMeter, tell_escalation
from serve.rates import Promised, Rates
from serve.schemas import EscalationRate


class Told:
    """Sums of counters, counts of histograms, values of gauges."""

    def __init__(self) -> None:
        self.values: Counter[tuple[str, ...]] = Counter()

    def __call__(self, metric: Metric, value: float, tags: Tags) -> None:
        assert tuple(tags) == metric.tags
        key = (metric.name.removeprefix("red_ray_serve_"), *tags.values())
        if metric.kind == "histogram":
            self.values[*key, f"{value:g}"] += 1
        else:
            self.values[key] += value


def test_a_replica_tells_what_is_new_however_often_it_is_asked() -> None:
    told, rates = Told(), Rates("1")
    meter = ReplicaMeter(told)
    answer(rates, "accept", "none")
    rates.batch(2, encode=40.0, evidence=2.0)
    rates.refusal()
    meter.tell("tickets", rates.snapshot())
    meter.tell("tickets", rates.snapshot())
    answer(rates, "escalate")
    rates.batch(1, encode=10.0, evidence=1.0)
    rates.batch(1, encode=10.0, evidence=1.0)
    rates.steps(wait=5.0)
    rates.error()
    meter.tell("tickets", rates.snapshot())
    run = "tickets"
    assert {key: round(value, 6) for key, value in told.values.items()} == {
        ("calls", run, "answered"): 2,
        ("calls", run, "refused"): 1,
        ("calls", run, "failed"): 1,
        ("texts", run, "accept"): 1,
        ("texts", run, "none"): 1,
        ("texts", run, "escalate"): 1,
        ("sources", run, "model"): 3,
        ("batches", run): 3,
        ("batch_texts", run, "2"): 1,
        ("batch_texts", run, "1"): 2,
        ("step_seconds", run, "encode"): 0.06,
        ("step_seconds", run, "evidence"): 0.004,
        ("step_seconds", run, "wait"): 0.005,
    }


def test_what_comes_after_another_run_is_told_of_that_one() -> None:
    told, rates = Told(), Rates("1")
    meter = ReplicaMeter(told)
    for run in ("old", "new"):
        answer(rates, "accept")
        meter.tell(run, rates.snapshot())
    assert told.values["texts", "old", "accept"] == told.values["texts", "new", "accept"] == 1


def test_the_desk_tells_share_band_and_alarm() -> None:
    told = Told()
    rate = EscalationRate(
        share=0.5, n_texts=200, promised=0.25, estimate=False, low=0.1, high=0.4, alarm=True
    )
    tell_escalation(Meter(told, run="tickets"), rate)
    assert told.values == {
        ("escalation_share", "tickets"): 0.5,
        ("escalation_promised", "tickets", "expected"): 0.25,
        ("escalation_promised", "tickets", "low"): 0.1,
        ("escalation_promised", "tickets", "high"): 0.4,
        ("escalation_alarm", "tickets"): 1,
    }


def test_without_a_promise_there_is_no_band_and_no_alarm() -> None:
    told = Told()
    rate = EscalationRate(
        share=None, n_texts=0, promised=None, estimate=False, low=None, high=None, alarm=False
    )
    tell_escalation(Meter(told, run="tickets"), rate)
    assert told.values == {("escalation_alarm", "tickets"): 0}


def test_a_snapshot_carries_what_was_promised() -> None:
    promised = Promised(5, 50, "bundle")
    assert Rates("1").snapshot(promised).promised == promised


def answer(rates: Rates, *decisions: str) -> None:
    rates.add(
        decisions=decisions,
        sources=["model"] * len(decisions),
        n_escalated=decisions.count("escalate"),
        is_auto=True,
        bundle="bundle",
    )
