"""What a sweep found: a table, its Pareto front, and the setting to take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from red_ray.config import RunConfig
from red_ray.errors import RunError
from red_ray.storage import writing
from tune.folder import FINISHED, Record
from tune.points import Point, goal_name, rank, score
from tune.space import Params, SweepConfig, setting_of


@dataclass(frozen=True, slots=True)
class Row:
    """One goal of one setting.

    Attributes:
        record: of the setting.
        point: of the goal; None where the setting was of no use.
        score: how good it is by the objective.
        cost_usd: of its judge's answers at the mean price of the sweep; None without a price.
        on_front: whether no other row is as accurate and escalates less, or the other way round.
        chosen: whether it was chosen.
    """

    record: Record
    point: Point | None
    score: float | None = None
    cost_usd: float | None = None
    on_front: bool = False
    chosen: bool = False

    @property
    def counts(self) -> bool:
        """Whether it may be chosen: its setting is trained to the end, and its goal promised."""
        return self.record.state == FINISHED and self.point is not None and not self.point.refused


def rows_of(
    sweep: SweepConfig, records: Sequence[Record], usd_per_call: float | None
) -> tuple[Row, ...]:
    """All rows, the best ones first.

    Args:
        sweep: the sweep.
        records: of all settings.
        usd_per_call: mean price of a judge's answer, None where it is not known.

    Raises:
        RunError: no setting could be trained.
    """
    rows = [
        Row(record, one, score(one, sweep.objective) if one else None, _cost(record, usd_per_call))
        for record in records
        for one in (record.points or (None,))
    ]
    able = sorted((row for row in rows if row.counts), key=lambda row: _rank(row, sweep))
    if not able:
        why = next((record.error for record in records if record.error), "none was finished")
        raise RunError(f"no setting of {len(records)} could be used: {why}")
    front = {id(row) for row in pareto(able)}
    ranked = [*able, *(row for row in rows if not row.counts)]
    return tuple(
        Row(
            record=row.record,
            point=row.point,
            score=row.score,
            cost_usd=row.cost_usd,
            on_front=id(row) in front,
            chosen=row is able[0],
        )
        for row in ranked
    )


def pareto(rows: Sequence[Row], usage: Callable[[Row], float] | None = None) -> list[Row]:
    """The rows that none beats in accuracy and usage, least usage first.

    Args:
        rows: to compare, each with a point.
        usage: of a row; by default the share of texts that it escalates.
    """
    takes = usage or (lambda row: _point(row).escalated)
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (takes(row), -_point(row).assumed_accuracy)):
        if not front or _point(row).assumed_accuracy > _point(front[-1]).assumed_accuracy:
            front.append(row)
    return front


def chosen_config(sweep: SweepConfig, chosen: Row) -> RunConfig:
    """The configuration of the chosen row, its goal included."""
    goals = {goal_name(goal): goal for goal in sweep.goals}
    config = setting_of(sweep, chosen.record.params).config
    router = config.router.model_copy(update={"goal": goals.get(_point(chosen).goal)})
    return config.model_copy(update={"router": router})


def meets(row: Row) -> bool:
    """Whether a row does what the objective asks."""
    return row.score is not None and row.score >= -1


def in_words(params: Params, keys: Sequence[str]) -> str:
    """What makes a setting, by the last part of each key that differs between settings."""
    return ", ".join(f"{key.rpartition('.')[2]} {shown(params[key])}" for key in keys)


def shown(value: object) -> str:
    """A parameter as one reads it; `null` as its file has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_table(path: Path, sweep: SweepConfig, rows: Sequence[Row]) -> None:
    """Write one row for each setting and goal, as Parquet.

    Raises:
        OutputError: it cannot be written.
        StorageError: the disk is full.
    """
    found = [_flat(row, sweep) for row in rows]
    columns = {name: _column([one[name] for one in found]) for name in found[0]}
    about = {
        "red_ray.accuracy": "estimates from cross-fitted training rows",
        "red_ray.assumed_judge_accuracy": str(sweep.assumed_judge_accuracy),
    }
    new = path.with_name(f".{path.name}.new")
    with writing(path):
        pq.write_table(pa.table(columns).replace_schema_metadata(about), new)
        new.replace(path)


def _flat(row: Row, sweep: SweepConfig) -> dict[str, Any]:
    record, one = row.record, row.point
    return {
        "setting": record.id,
        **{key: record.params.get(key) for key in sweep.space},
        "state": record.state,
        "goal": one.goal if one else None,
        "chosen": row.chosen,
        "on_front": row.on_front,
        "score": row.score if row.counts else None,
        "estimated_accuracy": record.estimated_accuracy,
        "assumed_accuracy": one.assumed_accuracy if one else None,
        "escalated": one.escalated if one else None,
        "escalated_low": one.escalated_low if one else None,
        "escalated_high": one.escalated_high if one else None,
        "catch_errors": one.catch if one else None,
        "precision": one.precision if one else None,
        "threshold": one.threshold if one else None,
        "calls": record.calls,
        "cost_usd": row.cost_usd,
        "n_train": record.n_train,
        "rounds": record.rounds,
        "log_likelihood": record.log_likelihood,
        "ece": record.ece,
        "seconds": record.seconds,
        "refused": one.refused if one else "",
        "error": record.error,
    }


def _column(values: list[Any]) -> pa.Array:
    """A column; values of several kinds are written as text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])


def _rank(row: Row, sweep: SweepConfig) -> tuple[float | int | str, ...]:
    best_first = (-part for part in rank(_point(row), sweep.objective))
    return *best_first, row.record.calls, row.record.id, _point(row).goal


def _cost(record: Record, usd_per_call: float | None) -> float | None:
    return None if usd_per_call is None else record.calls * usd_per_call


def _point(row: Row) -> Point:
    if row.point is None:
        raise ValueError("a setting of no use has no point")
    return row.point


def as_json(row: Row) -> Mapping[str, Any]:
    """A row for a command's JSON."""
    one = _point(row)
    return {
        "setting": row.record.id,
        "params": row.record.params,
        "goal": one.goal,
        "assumed_accuracy": one.assumed_accuracy,
        "estimated_accuracy": row.record.estimated_accuracy,
        "escalated": one.escalated,
        "catch_errors": one.catch,
        "precision": one.precision,
        "calls": row.record.calls,
        "cost_usd": row.cost_usd,
        "seconds": row.record.seconds,
    }
