"""What a classification is of, so that only the same one goes on with its parts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from red_ray.batch.shards import SHARD_ROWS
from red_ray.config import RunConfig
from red_ray.data.formats.parquet import parquet_parts
from red_ray.data.formats.source import translated

_ANSWERS = {"spec", "question", "top_k", "examples_per_candidate", "temperature"}
"""Keys of the judge that its answers depend on; limits and budgets may change meanwhile."""


@dataclass(frozen=True, slots=True)
class Job:
    """What decides the parts of a classified table.

    Attributes:
        input: path, bytes, files and the last change of the table.
        bundle: id of the model's bundle.
        top_k: labels that a decision names.
        escalation: the judge and what becomes of a text without a result; None where nobody is
            asked.
        shard_rows: rows of a part.
    """

    input: Mapping[str, Any]
    bundle: str
    top_k: int
    escalation: Mapping[str, Any] | None = None
    shard_rows: int = SHARD_ROWS

    @classmethod
    def of(cls, source: Path, bundle: str, *, top_k: int, asking: RunConfig | None = None) -> Job:
        """The job of classifying `source`.

        Args:
            source: a table.
            bundle: id of the model's bundle.
            top_k: labels that a decision names.
            asking: the configuration under which a judge is asked, None where nobody is.

        Raises:
            DataError: the table is not there.
        """
        escalation = None
        if asking is not None:
            judge = asking.judge.model_dump(mode="json", include=_ANSWERS)
            escalation = {"on_failure": asking.router.on_failure, **judge}
        return cls(_input(source), bundle, top_k, escalation)

    def to_dict(self) -> dict[str, Any]:
        """As `job.json` holds it."""
        return asdict(self)

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """In what a job that was read from a file is another one, in words."""
        pairs = ((name, value, other.get(name)) for name, value in self.to_dict().items())
        return [_told(name, mine, its) for name, mine, its in pairs if mine != its]


def _input(source: Path) -> dict[str, Any]:
    with translated(source, "table"):
        files = parquet_parts(source) if source.is_dir() else [source]
        found = [os.stat(file) for file in files]
    return {
        "path": str(source.resolve()),
        "files": len(found),
        "bytes": sum(one.st_size for one in found),
        "modified_ns": max(one.st_mtime_ns for one in found),
    }


def _told(name: str, mine: Any, other: Any) -> str:
    if name == "input" and isinstance(other, dict) and other.get("path") == mine["path"]:
        return f"{mine['path']!r} has changed since"
    if name == "input" and isinstance(other, dict):
        return f"its input is {other.get('path')!r}"
    if name == "bundle":
        return "another model"
    if name == "escalation":
        return "another judge" if mine and other else "a judge was asked" if other else "no judge"
    return f"{name} {other!r} and not {mine!r}"
