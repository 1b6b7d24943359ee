"""An audit's folder: what stands in it and how it is written.

suite/PART/CATEGORY.jsonl  the questions
audit.json                 the criteria as declared, then all figures
audit.md                   the same to read
disputed.csv               rows for a person to decide, as `red-ray ledger import` takes them; one
                           whose answers were not imported is kept as disputed.1.csv
ledger.sqlite              every verdict
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from red_ray.config import AuditCriteria
from red_ray.data.prepare import LabelledRows
from red_ray.data.tables import TableWriter
from red_ray.errors import DataError, OutputError
from red_ray.evaluation.answers import holds_unheard_answers
from red_ray.evaluation.audit.suite import CATEGORIES, PARTS, Item
from red_ray.judges.ledger import Ledger, utc_now
from red_ray.storage import set_aside, writing

Json = dict[str, Any]

REPORT, DISPUTED = "audit.json", "disputed.csv"


class AuditFolder:
    """Writes an audit's folder; a file is whole or not there.

    Attributes:
        kept_answers: the table of a person's answers that was kept from the audit before, if any.
    """

    def __init__(self, path: Path, *, now: Callable[[], datetime] = utc_now) -> None:
        """Open a folder for an audit, or for going on with one.

        Raises:
            OutputError: it cannot be written, or holds something else.
        """
        self.kept_answers: Path | None = None
        self.path = path
        self.ledger = path / "ledger.sqlite"
        self._now = now
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            foreign = any(path.iterdir()) and not (path / REPORT).exists()
        if foreign:
            raise OutputError(f"{str(path)!r} holds something else; choose another --out")

    def check_rows(self, rows: LabelledRows) -> None:
        """See that the audit that stands here is one of the same rows.

        Raises:
            DataError: the report of an earlier audit is damaged.
            OutputError: it is of other rows.
        """
        known = (self._declared() or {}).get("rows_sha256")
        if known not in (None, _digest_of(rows)):
            raise OutputError(
                f"{str(self.path)!r} holds an audit of other rows; choose another --out, or add "
                "--overwrite (its ledger stays)"
            )

    def declare(self, criteria: AuditCriteria, rows: LabelledRows) -> Json:
        """Write the criteria down before anybody is asked, and what was declared here earlier.

        Returns:
            `at`, `criteria`, `sha256`, `rows_sha256` and, where other criteria were declared
            before, `earlier`.

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
        known["rows_sha256"] = _digest_of(rows)
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
        schema, path = pa.schema([(name, pa.string()) for name in columns]), self.path / DISPUTED
        with closing(Ledger(self.ledger)) as ledger:
            is_unheard = holds_unheard_answers(path, ledger)
        if is_unheard:
            with writing(path):
                self.kept_answers = set_aside(path)
        with TableWriter(path) as writer:
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


def _digest_of(rows: LabelledRows) -> str:
    pairs = sorted(zip(rows.texts, rows.labels, strict=True))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def _line(item: Item) -> str:
    told = {
        "text": item.question.text,
        "candidates": [candidate.label for candidate in item.question.candidates],
        "right": item.right,
        "label": item.label,
        "category": item.category,
    }
    return json.dumps(told, ensure_ascii=False) + "\n"
