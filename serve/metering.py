"""What an endpoint tells Prometheus: from what its replicas count anyway, and not call by call.

Knows nothing of Ray: `red_ray.actors.metrics` has the table and takes the values.
"""

from __future__ import annotations

from collections.abc import Mapping

from red_ray.actors.metrics import Meter, Record, to_ray
from serve.rates import Snapshot
from serve.schemas import EscalationRate


class ReplicaMeter:
    """Tells what one replica did since it told last.

    Args:
        record: takes each value.
    """

    def __init__(self, record: Record = to_ray) -> None:
        self._record = record
        self._told: dict[str, Mapping[str, float]] = {}
        self._batches: Mapping[int, int] = {}

    def tell(self, run: str, snapshot: Snapshot) -> None:
        """Counters grow by what is new.

        Args:
            run: name of the run that is answered from.
            snapshot: of the replica since it was started.
        """
        meter = Meter(self._record, run=run)
        for (name, tag), counts in _counts(snapshot).items():
            told = self._told.get(name, {})
            for key, value in counts.items():
                meter.add(name, value - told.get(key, 0), **{tag: key})
            self._told[name] = counts
        for n_texts, n_batches in snapshot.batches.items():
            n_new = n_batches - self._batches.get(n_texts, 0)
            meter.add("red_ray_serve_batches", n_new)
            meter.observe("red_ray_serve_batch_texts", n_texts, times=n_new)
        self._batches = snapshot.batches


def tell_escalation(meter: Meter, rate: EscalationRate) -> None:
    """The share against what calibration promised; what is not known is left out."""
    meter.set("red_ray_serve_escalation_share", rate.share)
    bounds = {"expected": rate.promised, "low": rate.low, "high": rate.high}
    for bound, share in bounds.items():
        meter.set("red_ray_serve_escalation_promised", share, bound=bound)
    meter.set("red_ray_serve_escalation_alarm", rate.alarm)


def _counts(snapshot: Snapshot) -> dict[tuple[str, str], Mapping[str, float]]:
    """By metric and tag, what the replica counted by the tag's values."""
    lost = {"failed": snapshot.errors, "refused": snapshot.refused}
    calls = {"answered": snapshot.requests - sum(lost.values()), **lost}
    return {
        ("red_ray_serve_calls", "result"): calls,
        ("red_ray_serve_texts", "decision"): snapshot.decisions,
        ("red_ray_serve_sources", "source"): snapshot.sources,
        ("red_ray_serve_step_seconds", "step"): snapshot.steps,
    }
