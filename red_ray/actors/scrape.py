"""What the metrics ports of a cluster say of red_ray and of its endpoint; Ray is not imported."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

import httpx
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

SCRAPE_S = 5.0

PREFIX = "ray_red_ray_"
"""Ray puts `ray_` before the names that `ray.util.metrics` is given."""

SERVE = {
    "ray_serve_num_http_requests": "http requests",
    "ray_serve_num_http_error_requests": "http errors",
    "ray_serve_deployment_queued_queries": "waiting",
    "ray_serve_http_request_latency_ms": "latency",
}
"""What of Ray Serve's own is shown, by name."""

_OF_RAY = re.compile(
    "Component|NodeAddress|SessionName|Version|WorkerId|JobId|ActorId|NodeId|TaskId|ip|pid|le"
    "|otel_.*|IsHeadNode|RayNodeType|route|method|application|deployment|status_code|replica"
    "|handle|actor_id"
)
"""Tags that tell where a figure comes from, over which it is summed."""

TELLERS = {
    "run": "CoordinatorActor",
    "loop": "CoordinatorActor",
    "judge": "ValidatorPoolActor",
    "serve": "ServeController",
}
"""Classes of the actors without which nobody tells the metrics with that first word."""

PULSES = {"run": "run_progress", "loop": "run_progress", "judge": "judge_in_flight"}
"""Gauges that each run or judge has while it lives, by the first word of its metrics."""

_SUM, _COUNT = "_sum", "_count"

_Key = tuple[str, tuple[tuple[str, str], ...]]
"""A name, and pairs of tags with their values."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric, summed over the processes that report it.

    Attributes:
        name: without Ray's and our prefix, as `pool_calls`.
        tags: of our own.
        value: of a counter or gauge; of a histogram the mean.
        n: how many observations a histogram has; None for others.
        is_gauge: whether Ray forgets it when nobody tells it any more.
    """

    name: str
    tags: dict[str, str]
    value: float
    n: float | None = None
    is_gauge: bool = False


def scrape(targets: Iterable[str]) -> list[Figure]:
    """What the ports say; one that does not answer says nothing.

    Args:
        targets: hosts with ports.
    """
    with ThreadPoolExecutor(max_workers=8) as pool:
        return figures(list(pool.map(_text, targets)))


def figures(texts: Sequence[str]) -> list[Figure]:
    """The figures in texts of the Prometheus format, by name and tags.

    Counters, histograms and the gauges of Serve are added up over processes. Of our gauges each is
    told by one process; where another one has told it before, the higher value stands.
    """
    values: dict[_Key, dict[str, float]] = {}
    gauges: set[str] = set()
    for text in texts:
        for family in text_string_to_metric_families(text):
            name = _our_name(family.name)
            if name is not None:
                _add(values, name, family)
                gauges |= {name} if family.type == "gauge" else set()
    return [
        replace(_figure(name, dict(tags), found), is_gauge=name in gauges)
        for (name, tags), found in sorted(values.items())
    ]


def living(found: Iterable[Figure], kinds: Collection[str]) -> list[Figure]:
    """The figures of what is there: Ray keeps a counter of what has ended until it ends itself.

    Args:
        found: all figures.
        kinds: classes of the actors that are alive.
    """
    found = list(found)
    beating = {(one.name, _subject(one)) for one in found if one.is_gauge}

    def lives(one: Figure) -> bool:
        first = one.name.partition("_")[0]
        if first in TELLERS and TELLERS[first] not in kinds:
            return False
        return first not in PULSES or (PULSES[first], _subject(one)) in beating

    return [one for one in found if lives(one)]


def _subject(one: Figure) -> tuple[str, str]:
    return one.tags.get("judge", ""), one.tags.get("run", "")


def _add(values: dict[_Key, dict[str, float]], name: str, family: Metric) -> None:
    is_alone = family.type == "gauge" and family.name not in SERVE
    for sample in family.samples:
        part = sample.name.removeprefix(family.name)
        if part in ("_bucket", "_created"):
            continue
        tags = sorted((k, v) for k, v in sample.labels.items() if not _OF_RAY.fullmatch(k))
        found = values.setdefault((name, tuple(tags)), {})
        before = found.get(part, 0.0)
        found[part] = max(before, sample.value) if is_alone else before + sample.value


def _figure(name: str, tags: dict[str, str], found: dict[str, float]) -> Figure:
    if _COUNT not in found:
        return Figure(name, tags, sum(found.values()))
    n = found[_COUNT]
    return Figure(name, tags, found.get(_SUM, 0.0) / n if n else 0.0, n)


def _our_name(name: str) -> str | None:
    if name in SERVE:
        return name.removeprefix("ray_")
    return name.removeprefix(PREFIX).removesuffix("_total") if name.startswith(PREFIX) else None


def _text(target: str) -> str:
    with suppress(httpx.HTTPError):
        answer = httpx.get(f"http://{target}/metrics", timeout=SCRAPE_S, trust_env=False)
        return answer.text if answer.status_code == 200 else ""
    return ""
