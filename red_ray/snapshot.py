"""The rows of a run, kept in its folder so that it can go on wherever the folder is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from red_ray.data.inputs import Inputs, KnownRows, TestRows
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.errors import DataError
from red_ray.storage import writing

ROWS = "inputs.parquet"
_ABOUT = b"red_ray"
_COLUMNS = ("part", "text", "label")

_Row = tuple[str, str, str | None]
_Parts = dict[str, list[tuple[str, str | None]]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All rows of a run: what it learns from, and what only the scorecard touches."""

    inputs: Inputs
    test: TestRows | None

    @property
    def scored(self) -> TestRows | None:
        """The test rows, where a change of labels left one that has a label."""
        return self.test if self.test is not None and len(self.test.rows) else None


def write_snapshot(folder: Path, snapshot: Snapshot) -> None:
    """Write the rows as one file; it is whole or not there.

    Raises:
        StorageError: the disk is full.
        OutputError: it cannot be written.
    """
    inputs, test = snapshot.inputs, snapshot.test
    rows: list[_Row] = [*_labelled("train", inputs.train), *_labelled("judged", inputs.judged)]
    rows += [("pool", text, inputs.hidden.of(text)) for text in inputs.pool]
    about: dict[str, Any] = {"descriptions": dict(inputs.descriptions), "test": None}
    about["labels"] = list(inputs.labels)
    if inputs.calibration is not None:
        rows += _labelled("calibration", inputs.calibration.rows)
        rows += [("calibration_oos", text, None) for text in inputs.calibration.out_of_scope]
    if test is not None:
        rows += _labelled("test", test.rows)
        rows += [("oos", text, None) for text in test.out_of_scope]
        about["test"] = {"n_dropped": test.n_dropped}
    columns = [[_encoded(row[at]) for row in rows] for at in range(3)]
    # Binary: a lone surrogate is no UTF-8, and must come back as it was.
    table = pa.table([pa.array(column, pa.binary()) for column in columns], _COLUMNS)
    table = table.replace_schema_metadata({_ABOUT: json.dumps(about)})
    new = folder / f".{ROWS}.new"
    with writing(folder / ROWS):
        pq.write_table(table, new, write_page_checksum=True)
        new.replace(folder / ROWS)


def read_snapshot(folder: Path) -> Snapshot:
    """Read what `write_snapshot` wrote.

    Raises:
        DataError: it is not there, or damaged.
    """
    path = folder / ROWS
    if not path.exists():
        raise DataError(
            f"{str(folder)!r} has no {ROWS}: it was stopped before it began; run the training again"
        )
    try:
        return _snapshot(pq.read_table(path, page_checksum_verification=True))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{str(path)!r} is damaged ({type(error).__name__}); train again with --overwrite"
        ) from error


def _snapshot(table: pa.Table) -> Snapshot:
    about = json.loads(table.schema.metadata[_ABOUT])
    columns = [[_decoded(value) for value in table[name].to_pylist()] for name in _COLUMNS]
    parts: _Parts = {}
    for part, text, label in zip(*columns, strict=True):
        parts.setdefault(str(part), []).append((str(text), label))
    return Snapshot(_inputs(parts, about), _test(parts, about))


def _inputs(parts: _Parts, about: dict[str, Any]) -> Inputs:
    pool = parts.get("pool", [])
    return Inputs(
        train=_rows(parts.get("train", [])),
        pool=tuple(text for text, _ in pool),
        hidden=HiddenLabels.of_texts((text, label) for text, label in pool if label is not None),
        descriptions=about["descriptions"],
        calibration=_calibration(parts),
        labels=tuple(about.get("labels", ())),
        judged=_rows(parts.get("judged", [])),
    )


def _calibration(parts: _Parts) -> KnownRows | None:
    rows = parts.get("calibration", [])
    strange = tuple(text for text, _ in parts.get("calibration_oos", []))
    return KnownRows(_rows(rows), strange) if rows else None


def _test(parts: _Parts, about: dict[str, Any]) -> TestRows | None:
    if about["test"] is None:
        return None
    strange = tuple(text for text, _ in parts.get("oos", []))
    return TestRows(_rows(parts.get("test", [])), strange, about["test"]["n_dropped"], ())


def _labelled(part: str, rows: LabelledRows) -> list[_Row]:
    return [(part, text, label) for text, label in zip(rows.texts, rows.labels, strict=True)]


def _rows(pairs: list[tuple[str, str | None]]) -> LabelledRows:
    return LabelledRows(tuple(t for t, _ in pairs), tuple(str(label) for _, label in pairs))


def _encoded(value: str | None) -> bytes | None:
    return None if value is None else value.encode("utf-8", "surrogatepass")


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "surrogatepass")
