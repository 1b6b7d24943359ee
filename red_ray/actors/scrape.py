"""What the metrics ports of a cluster say of red_ray and of its endpoint; Ray is not imported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

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
)
"""Tags that tell where a figure comes from, over which it is summed."""

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
    """

    name: str
    tags: dict[str, str]
    value: float
    n: float | None = None


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
    for text in texts:
        for family in text_string_to_metric_families(text):
            name = _our_name(family.name)
            if name is not None:
                _add(values, name, family)
    return [_figure(name, dict(tags), found) for (name, tags), found in sorted(values.items())]


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
