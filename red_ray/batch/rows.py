"""Decisions as columns beside those of the input."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from red_ray.types import Decision

COLUMNS = (
    pa.field("label", pa.string()),
    pa.field("confidence", pa.float64()),
    pa.field("decision", pa.string()),
    pa.field("source", pa.string()),
    pa.field("alternatives", pa.string()),
    pa.field("expert", pa.string()),
    pa.field("error", pa.string()),
)
"""What is added to the input's columns; `alternatives` is JSON."""


def with_decisions(
    table: pa.Table, decisions: Sequence[Decision | None], errors: Sequence[str | None]
) -> pa.Table:
    """The table with what was decided on its rows.

    Every input column is kept; one that has the name of an output column comes out as
    `input_NAME`.

    Args:
        table: the input.
        decisions: on each row; None where there is none.
        errors: why there is none.
    """
    result = table.rename_columns(_input_names(table.column_names))
    for column in COLUMNS[:-1]:
        values = [None if one is None else _value(one, column.name) for one in decisions]
        result = result.append_column(column, pa.array(values, column.type))
    return result.append_column(COLUMNS[-1], pa.array(errors, COLUMNS[-1].type))


def _input_names(names: Sequence[str]) -> list[str]:
    """The input's columns, renamed where an output column or another one has the name."""
    taken = {column.name for column in COLUMNS} | set(names)
    ours = {column.name for column in COLUMNS}
    renamed = []
    for name in names:
        new = name
        while new in taken if new != name else new in ours:
            new = f"input_{new}"
        taken.add(new)
        renamed.append(new)
    return renamed


def _value(decision: Decision, column: str) -> object:
    if column == "alternatives":
        others = [{"label": a.label, "confidence": a.confidence} for a in decision.alternatives]
        return json.dumps(others, ensure_ascii=False)
    return getattr(decision, column)
