"""An audit's folder: what stands in it and how it is written.

suite/PART/CATEGORY.jsonl  the questions
audit.json                 the criteria as declared, then all figures
audit.md                   the same to read
disputed.csv               rows for a person to decide, as `red-ray ledger import` takes them
ledger.sqlite              every verdict
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from red_ray.config import AuditCriteria
from red_ray.data.tables import TableWriter
from red_ray.errors import DataError, OutputError
from red_ray.evaluation.audit.suite import CATEGORIES, PARTS, Item
from red_ray.judges.ledger import utc_now
from red_ray.storage import writing

Json = dict[str, Any]

REPORT = "audit.json"


class AuditFolder:
    """Writes an audit's folder; a file is whole or not there."""

    def __init__(self, path: Path, *, now: Callable[[], datetime] = utc_now) -> None:
        """Open a folder for an audit, or for going on with one.

        Raises:
            OutputError: it cannot be written, or holds something else.
        """
        self.path = path
        self.ledger = path / "ledger.sqlite"
        self._now = now
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            foreign = any(path.iterdir()) and not (path / REPORT).exists()
        if foreign:
            raise OutputError(f"{str(path)!r} holds something else; choose another --out")

    def declare(self, criteria: AuditCriteria) -> Json:
        """Write the criteria down before anybody is asked, and what was declared here earlier.

        Returns:
            `at`, `criteria`, `sha256` and, where others were declared before, `earlier`.

        Raises:
            DataError: the report of an earlier audit is damaged.
        """
        plain = criteria.model_dump(mode="json")
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
        known = self._declared()
        if known is None or known["sha256"] != digest:
            earlier = [*known.pop("earlier"), known] if known else []
            at = self._now().isoformat(timespec="seconds")
            known = {"at": at, "criteria": plain, "sha256": digest, "earlier": earlier}
        self.write_report({"declared": known})
        return known

    def write_suite(self, suite: Sequence[Item]) -> None:
        """Write the questions, one file for each part and category."""
        for part in PARTS:
            for category in CATEGORIES:
                lines = [
                    _line(one) for one in suite if (one.part, one.category) == (part, category)
                ]
                self._write(Path("suite", part, f"{category}.jsonl"), "".join(lines))

    def write_report(self, report: Mapping[str, Any]) -> None:
        """Write `audit.json`."""
        text = json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False)
        self._write(Path(REPORT), text + "\n")

    def write_page(self, text: str) -> None:
        """Write `audit.md`."""
        self._write(Path("audit.md"), text)

    def write_disputed(self, rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> None:
        """Write the rows that a person should decide, of `disputed`."""
        schema = pa.schema([(name, pa.string()) for name in columns])
        with TableWriter(self.path / "disputed.csv") as writer:
            writer.write(pa.Table.from_pylist(list(rows), schema=schema))

    def _declared(self) -> Json | None:
        path = self.path / REPORT
        if not path.exists():
            return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["declared"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{str(path)!r} is damaged, so what was declared is lost; choose another --out"
            ) from error

    def _write(self, name: Path, text: str) -> None:
        path = self.path / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}.new")
            new.write_text(text, encoding="utf-8", errors="replace")
            new.replace(path)


def _line(item: Item) -> str:
    told = {
        "text": item.question.text,
        "candidates": [candidate.label for candidate in item.question.candidates],
        "right": item.right,
        "label": item.label,
        "category": item.category,
    }
    return json.dumps(told, ensure_ascii=False) + "\n"
