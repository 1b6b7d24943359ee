"""What `results.json` may hold: one unit a figure, stated in its name, and no other.

A cell whose figures are of another unit, or whose folder states another method or other settings
than its column, is a hole: it is shown nowhere under that column's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from benchmarks.matrix.config import Column, MatrixConfig
from benchmarks.matrix.results import CellResult

MEASURED = ("latency", "throughput", "fit", "peak", "usd")
"""How figures begin that have a unit; one that is not of the schema has another."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Latency(_Frozen):
    """Of one text at batch 1, in milliseconds; never of a batch.

    Attributes:
        p50, p95, mean: over `n` texts.
        p95_ci: its 95 % interval.
        n: texts, one by one.
    """

    p50: float = Field(ge=0)
    p95: float = Field(ge=0)
    mean: float = Field(ge=0)
    p95_ci: tuple[float, float]
    n: int = Field(gt=0)


class Throughput(_Frozen):
    """Texts a second, so many at a time."""

    texts: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    per_s: float = Field(gt=0)


class CellFigures(BaseModel):
    """All figures of a finished cell; those that have no unit are not looked at here."""

    model_config = ConfigDict(frozen=True, extra="allow")

    n: int = Field(gt=0)
    n_right: int = Field(ge=0)
    n_unreadable: int = Field(ge=0)
    accuracy: float = Field(ge=0, le=1)
    accuracy_ci: tuple[float, float]
    latency_ms: Latency
    throughput_per_s: Throughput
    fit_s: float = Field(ge=0)
    fit_cpu_s: float | None
    peak_mb: float = Field(ge=0)
    peak_gpu_mb: float | None
    usd: float | None
    device: str
    report_key: str
    train_key: str

    @model_validator(mode="after")
    def _units_and_denominator(self) -> Self:
        strange = [name for name in self.model_extra or {} if name.startswith(MEASURED)]
        if strange:
            raise ValueError(f"figures of another unit than the schema's: {strange}")
        if abs(self.accuracy - self.n_right / self.n) > 1e-9:
            raise ValueError(
                f"accuracy {self.accuracy!r} is not n_right {self.n_right!r} of n {self.n!r}: "
                "its denominator is another"
            )
        return self


def held_against(config: MatrixConfig, found: CellResult) -> CellResult:
    """The cell as it is, or as a hole where it is not what its place says."""
    stated = config.column(found.cell.column).method
    if found.method != stated:
        told = f"its folder states the method {found.method!r}, the configuration {stated!r}"
        return _hole(found, "mislabelled", told)
    changed = _changed(found.settings, config.column(found.cell.column))
    if changed:
        return _hole(found, "stale", f"{changed}; run it again")
    fault = None if found.is_hole else _fault(found.figures)
    return found if fault is None else _hole(found, "unusable", fault)


def _changed(settings: Mapping[str, Any], column: Column) -> str:
    """What a cell's column had other settings in; empty where they are those of now."""
    if settings["name"] != column.name:
        return f"its folder is of the column {settings['name']!r}"
    try:
        then = TypeAdapter[Column](Column).validate_python(settings).of_result
    except ValidationError:
        return "its settings are those of another version"
    now = column.of_result
    told = [
        f"{name} was {then.get(name)!r}, is {now.get(name)!r}"
        for name in now
        if then.get(name) != now[name] and not _same_folder(name, then.get(name), now[name])
    ]
    return ", ".join(told)


def _same_folder(name: str, then: Any, now: Any) -> bool:
    """Whether a model's folder is the same by its end: a run keeps the whole path."""
    if name != "model" or then is None:
        return False
    end = Path(now).parts
    return Path(then).is_absolute() and Path(then).parts[-len(end) :] == end


def _fault(figures: Mapping[str, Any]) -> str | None:
    try:
        CellFigures.model_validate(figures)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return f"results.json: {where + ': ' if where else ''}{first['msg']}"
    return None


def _hole(found: CellResult, status: Any, told: str) -> CellResult:
    return replace(found, status=status, error=told, figures={}, history=[])
