"""The dashboard and the alarms that the package ships, and the metrics that they use."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import red_ray.actors

FOLDER = Path(red_ray.actors.__file__).parent / "monitoring"
DASHBOARD = FOLDER / "dashboards" / "red_ray.json"
RULES = FOLDER / "prometheus_rules.yaml"

PARTS = ("_bucket", "_count")
"""Of a histogram."""


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> dict[str, str]:
    """PromQL of panels and alarms, by what says where it stands; variables are filled in."""
    found = {f"alarm {one['alert']}": str(one["expr"]) for one in rules()}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            filled = target["expr"].replace("$run", ".*").replace("$judge", ".*")
            found[f"panel {panel['title']} {target['refId']}"] = filled
    return found


def names_in(expression: str) -> set[str]:
    """Every metric of ours and of Ray's begins so, and nothing else does."""
    return set(re.findall(r"\bray_\w+", expression))


def used_names() -> set[str]:
    """Metrics of panels and alarms as the port tells them."""
    return set().union(*(names_in(one) for one in expressions().values()))


def label_values() -> Iterator[str]:
    """Queries of the dashboard's variables."""
    for one in dashboard()["templating"]["list"]:
        if one["type"] == "query":
            yield one["query"]["query"]
