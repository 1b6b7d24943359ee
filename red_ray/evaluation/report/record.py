"""What a run was: where its time went, how it was configured, what it ran with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from red_ray.config import RunConfig, load_config
from red_ray.evaluation.report.figures import number, percent, seconds
from red_ray.evaluation.report.source import RunFiles, Scorecard

_STAGES = {
    "encode": "Encoding texts",
    "fit": "Fitting",
    "score": "Scoring",
    "judge_wait": "Waiting for the judge",
    "other": "Loop and everything else",
}
_LEAST_SHARE = 1e-3  # of the bar: less is no stage but the rounding of the others
_N_HUES = 6  # colours that stay apart for colour-blind readers


@dataclass(frozen=True, slots=True)
class Stage:
    """A share of the run's wall time; `width` in % of the bar."""

    name: str
    time: str
    share: str
    width: str
    hue: int


@dataclass(frozen=True, slots=True)
class Timing:
    """The stages of a run and their sum."""

    stages: tuple[Stage, ...]
    total: str


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of the configuration that differs from its default."""

    key: str
    value: str
    default: str


def timing(card: Scorecard | None) -> Timing | None:
    """Where the time went, None where it was not measured."""
    found = {key: number(value) for key, value in ((card and card.timing_s) or {}).items()}
    parts = {key: value for key, value in found.items() if value is not None and key != "total"}
    total = max(found.get("total") or 0.0, sum(parts.values()))
    if total <= 0:
        return None
    parts["other"] = parts.get("other", 0.0) + total - sum(parts.values())
    stages = [
        Stage(
            name=_STAGES.get(key, key.replace("_", " ")),
            time=seconds(value),
            share=percent(value / total, 0),
            width=f"{100 * value / total:.2f}",
            hue=index % _N_HUES + 1,
        )
        for index, (key, value) in enumerate(parts.items())
        if value > _LEAST_SHARE * total
    ]
    return Timing(tuple(stages), seconds(total))


def settings(config: RunConfig) -> tuple[Setting, ...]:
    """What differs from the defaults of the run's mode."""
    given = _flat(config.model_dump(mode="json"))
    default = _flat(load_config(overrides={"mode": config.mode}).model_dump(mode="json"))
    return tuple(
        Setting(key, _written(value), _written(default.get(key)))
        for key, value in given.items()
        if value != default.get(key)
    )


def versions(files: RunFiles) -> tuple[tuple[str, str], ...]:
    """Name and version of what the run was made with."""
    table = (files.scorecard.versions if files.scorecard else None) or {}
    return tuple((name, str(value)) for name, value in sorted(table.items()))


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _written(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if value != "" else "empty"
