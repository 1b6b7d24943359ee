"""Criteria that were declared before a run, held against what it measured.

A criterion is met where its whole 95 % interval is on the good side of the limit, missed where the
whole interval is on the other, and open else: also where a cell that it asks for is a hole, unless
what is there misses it already.

The outcome, the worst first:
    ABORT         a criterion is missed, and the figure is not near the limit
    INCONCLUSIVE  none of these, but one is open
    ITERATE       all are met or missed, and those missed are near the limit
    DEPLOY        all are met, and the criteria were declared before the first cell was finished
Near is what the criterion says, else within 2 points of a share, and a tenth of any other limit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchmarks.matrix.compare import held, same_rows
from benchmarks.matrix.results import CELL, Matrix, read_matrix
from benchmarks.matrix.summary import (
    MEASURED,
    SHARES,
    Measured,
    difference,
    measured_difference,
    summary,
)
from red_ray.config import faults_of
from red_ray.errors import ConfigError, DataError
from red_ray.judges.ledger import utc_now
from red_ray.storage import writing

DECLARED = "criteria.json"
NEAR_SHARE, NEAR_OTHER = 0.02, 0.1

FigureName = Literal[
    "accuracy",
    "macro_f1",
    "mcc",
    "precision",
    "recall",
    "specificity",
    "f1",
    "balance_gap",
    "n_unreadable_share",
    "latency_p50_ms",
    "latency_p95_ms",
    "throughput_per_s",
    "fit_s",
    "peak_mb",
    "peak_gpu_mb",
    "usd_per_1000",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Criterion(_Frozen):
    """A limit of a figure.

    Attributes:
        column: that must keep it.
        task: on which, or `all`: on each that the column runs on.
        figure: see `summary`; shares as fractions.
        at_least, at_most: the limit, one of the two.
        over: a column whose figure is taken off first, paired by row and seed: "at least flat
            + 0.01" is `over: flat, at_least: 0.01`.
        near: so far from the limit a miss is worth another try; see the module.
    """

    column: str
    task: str = "all"
    figure: FigureName
    at_least: float | None = None
    at_most: float | None = None
    over: str | None = None
    near: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(
                f"give `at_least` or `at_most`, one: {self.at_least!r}, {self.at_most!r}"
            )
        if self.over == self.column:
            raise ValueError(f"`over` names the column itself: {self.over!r}")
        return self

    @property
    def limit(self) -> float:
        """The value of the limit."""
        return self.at_least if self.at_least is not None else float(self.at_most or 0.0)

    @property
    def told(self) -> str:
        """As a reader would say it."""
        what = self.figure if self.over is None else f"{self.figure} over {self.over}"
        return f"{self.column}: {what} {'≥' if self.at_least is not None else '≤'} {self.limit:g}"


class Criteria(_Frozen):
    """All that must hold."""

    criteria: tuple[Criterion, ...] = Field(min_length=1)


class Outcome(StrEnum):
    """What a check concludes, the worst first."""

    ABORT = "ABORT"
    INCONCLUSIVE = "INCONCLUSIVE"
    ITERATE = "ITERATE"
    DEPLOY = "DEPLOY"


Verdict = Literal["met", "missed", "open"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a criterion came to on a task; `why` is a sentence."""

    criterion: Criterion
    task: str
    figure: Measured | None
    verdict: Verdict
    near: bool
    why: str

    @property
    def outcome(self) -> Outcome:
        """What it alone would conclude."""
        if self.verdict == "missed":
            return Outcome.ITERATE if self.near else Outcome.ABORT
        return Outcome.DEPLOY if self.verdict == "met" else Outcome.INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome with its reasons.

    Attributes:
        outcome: of all.
        why: a sentence.
        declared: a sentence on when the criteria were declared.
        in_time: whether they were declared before any cell was finished, and are unchanged.
        findings: of each criterion and task.
    """

    outcome: Outcome
    why: str
    declared: str
    in_time: bool
    findings: tuple[Finding, ...]


def load_criteria(path: str | Path) -> Criteria:
    """Read criteria from YAML.

    Raises:
        ConfigError: there are none, or they say what no criterion has.
    """
    place = Path(path)
    try:
        return Criteria.model_validate(yaml.safe_load(place.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"no criteria at {str(place)!r}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{str(place)!r} is no YAML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{str(place)!r}: {faults_of(error, ())}") from error


def declare(
    folder: str | Path, criteria: str | Path, *, now: Callable[[], datetime] = utc_now
) -> None:
    """Write down which criteria a run is held against, before it; those declared earlier stay.

    Args:
        folder: of the matrix; it may not be there yet.
        criteria: the file.
        now: the time.

    Raises:
        ConfigError: the file is no criteria.
        OutputError: the folder cannot be written.
    """
    load_criteria(criteria)
    place, digest = Path(folder), _digest(criteria)
    known = _declared(place)
    if known and known[-1]["sha256"] == digest:
        return
    text = Path(criteria).read_text(encoding="utf-8")
    entry = {
        "at": now().isoformat(timespec="seconds"),
        "sha256": digest,
        "text": text,
        "n_finished": len(list(place.glob(f"*/{CELL}"))) if place.exists() else 0,
    }
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
        new = place / f".{DECLARED}.new"
        new.write_text(json.dumps([*known, entry], indent=2) + "\n", encoding="utf-8")
        new.replace(place / DECLARED)


def check(folder: str | Path, criteria: str | Path) -> Check:
    """Hold a matrix against criteria.

    Raises:
        ConfigError: the criteria are none, or name columns or tasks that are not there.
        DataError: the folder holds no matrix.
    """
    asked, matrix = load_criteria(criteria), read_matrix(folder)
    found = tuple(
        _find(matrix, one, task) for one in asked.criteria for task in _tasks(matrix, one)
    )
    declared, in_time = _when(Path(folder), matrix, _digest(criteria))
    outcome = worst(one.outcome for one in found)
    why = _sentence(outcome, found)
    if outcome is Outcome.DEPLOY and not in_time:
        outcome = Outcome.INCONCLUSIVE
        why = "every criterion is met, but they were not declared before the figures were known"
    return Check(outcome, why, declared, in_time, found)


def check_text(found: Check) -> str:
    """A check as lines for a terminal."""
    lines = [f"{found.outcome}: {found.why}", found.declared]
    lines += [
        f"  {one.verdict:7s}{one.criterion.told} on {one.task}: {one.why}" for one in found.findings
    ]
    return "\n".join(lines)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of some outcomes."""
    return min(outcomes, key=list(Outcome).index)


def verdict(figure: Measured, criterion: Criterion) -> Verdict:
    """Where the whole interval is; `open` where it holds the limit, or there is none."""
    if figure.interval is None:
        return "open"
    low, high = figure.interval
    limit = criterion.limit
    if criterion.at_most is not None:
        low, high, limit = -high, -low, -limit
    return "met" if low >= limit else "missed" if high < limit else "open"


def is_near(value: float, criterion: Criterion) -> bool:
    """Whether a figure is near the limit; see the module."""
    near = criterion.near
    if near is None:
        near = NEAR_SHARE if _is_share(criterion.figure) else NEAR_OTHER * abs(criterion.limit)
    return abs(value - criterion.limit) <= near + 1e-12


def _is_share(figure: str) -> bool:
    return figure in SHARES or figure == "mcc"


def _tasks(matrix: Matrix, criterion: Criterion) -> Iterator[str]:
    names = [column.name for column in matrix.config.columns]
    for name in (criterion.column, criterion.over):
        if name is not None and name not in names:
            raise ConfigError(f"criterion {criterion.told!r}: no column {name!r}; there: {names}")
    column = matrix.config.column(criterion.column)
    tasks = column.tasks or tuple(matrix.config.tasks)
    if criterion.task != "all" and criterion.task not in tasks:
        raise ConfigError(
            f"criterion {criterion.told!r}: the column has no task {criterion.task!r}; "
            f"there: {list(tasks)}"
        )
    yield from tasks if criterion.task == "all" else (criterion.task,)


def _find(matrix: Matrix, criterion: Criterion, task: str) -> Finding:
    try:
        figure = _figure(matrix, criterion, task)
    except DataError as error:
        return Finding(criterion, task, None, "open", False, f"cannot be said: {error}")
    holes = [
        f"{cell.column}, seed {cell.seed}, {why}"
        for cell, why in matrix.holes
        if cell.task == task and cell.column in (criterion.column, criterion.over)
    ]
    missing = f"holes: {'; '.join(holes)}" if holes else ""
    if figure is None:
        told = missing or f"nothing measured {criterion.figure}"
        return Finding(criterion, task, None, "open", False, f"cannot be said: {told}")
    found = verdict(figure, criterion)
    told = _told(figure, ".3f" if _is_share(criterion.figure) else ".4g")
    if len(matrix.of(task, criterion.column)) == 1:
        told += " of this one training"
    if holes and found == "met":
        return Finding(criterion, task, figure, "open", False, f"{told}, but there are {missing}")
    near = is_near(figure.value, criterion)
    return Finding(criterion, task, figure, found, near, told + _reason(found, figure, near))


def _reason(found: Verdict, figure: Measured, near: bool) -> str:
    if found == "missed":
        return ", near the limit" if near else ", not near the limit"
    if found == "open":
        if figure.interval is None:
            return ": it has no interval"
        return ": the interval has the limit inside"
    return ""


def _figure(matrix: Matrix, criterion: Criterion, task: str) -> Measured | None:
    column = held(matrix, task, criterion.column)
    if column is None:
        return None
    if criterion.over is None:
        return summary(column, matrix.config).figures.get(criterion.figure)
    other = held(matrix, task, criterion.over)
    if other is None:
        return None
    if criterion.figure in MEASURED:
        return measured_difference(column, other, criterion.figure, matrix.config)
    same_rows(task, column, other)
    return difference(column, other, criterion.figure)


def _told(figure: Measured, as_: str) -> str:
    if figure.interval is None:
        return f"{figure.value:{as_}}"
    low, high = figure.interval
    return f"{figure.value:{as_}} ({low:{as_}} to {high:{as_}})"


def _sentence(outcome: Outcome, found: tuple[Finding, ...]) -> str:
    """Of the findings that decided."""
    if outcome is Outcome.DEPLOY:
        return f"all {len(found)} criteria are met with their whole 95 % intervals"
    deciding = [one for one in found if one.outcome is outcome]
    first = deciding[0]
    rest = f", and {len(deciding) - 1} more" if len(deciding) > 1 else ""
    return f"{first.criterion.told} on {first.task}: {first.why}{rest}"


def _when(folder: Path, matrix: Matrix, digest: str) -> tuple[str, bool]:
    """When the criteria were declared, as a sentence, and whether that was in time."""
    known = _declared(folder)
    if not known:
        return "The criteria were NOT declared before the run: none were.", False
    same = next((entry for entry in known if entry["sha256"] == digest), None)
    if same is None:
        told = f"The criteria were CHANGED since they were declared at {known[-1]['at']}"
        return f"{told}: the file is another one now.", False
    if same["n_finished"]:
        told = f"The criteria were declared at {same['at']}, when {same['n_finished']} cells were"
        return f"{told} finished already: NOT before the run.", False
    earlier = _run_before(matrix, same["at"])
    if earlier:
        told = f"The criteria were declared at {same['at']}, when this matrix had run already"
        return f"{told}, at {earlier}, in another folder: NOT before the run.", False
    if same is not known[0]:
        told = f"Other criteria were declared at {known[0]['at']}, these at {same['at']}"
        return f"{told}, before any cell was finished.", True
    if same is not known[-1]:
        told = f"These criteria were declared at {same['at']}, before the run, others at"
        return f"{told} {known[-1]['at']}.", True
    return f"The criteria were declared at {same['at']}, before any cell was finished.", True


def _run_before(matrix: Matrix, declared: str) -> str:
    """When the same matrix began to run before a moment, in any folder; empty where it did not."""
    looks = [(one.mark, one.at) for one in matrix.looks]
    own = {mark for mark, at in looks if at >= declared}
    return min((at for mark, at in looks if mark in own and at < declared), default="")


def _digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _declared(folder: Path) -> list[dict[str, Any]]:
    path = folder / DECLARED
    if not path.exists():
        return []
    try:
        return list(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise DataError(
            f"{str(path)!r} is damaged, so what was declared is lost; run in another folder"
        ) from error
