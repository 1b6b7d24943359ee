"""The folder of a cell, and what a matrix's folder holds: results, holes, predictions.

    DIR/
      matrix.yaml            the configuration, resolved
      uses.jsonl             who reported on each test split: its key, the matrix, and when
      CELL/
        cell.json            what it is: task, column, method, seed, settings, digest, status
        results.json         its figures; not there of a hole
        history.json         its training curve
        predictions.parquet  each report row: text, label, answer, whether it was readable, raw
        confusion.svg        a picture of true and answered labels
        errors.csv           the rows that were wrong
        best_model/          where models are kept

A cell's folder appears whole, by a rename, so that what is there is finished.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.matrix.config import Cell, MatrixConfig
from red_ray.errors import DataError

Ints = NDArray[np.int64]
Status = Literal["done", "failed", "out_of_memory", "timed_out", "mislabelled", "stale", "unusable"]

CELL, RESULTS, HISTORY, PREDICTIONS, MATRIX, USES = (
    "cell.json",
    "results.json",
    "history.json",
    "predictions.parquet",
    "matrix.yaml",
    "uses.jsonl",
)


@dataclass(frozen=True, slots=True)
class CellResult:
    """A finished cell, or a hole.

    Attributes:
        cell: which one.
        method: as its folder states it.
        settings: of its column, as its folder states them.
        status: `done`, else why it is a hole; the last three are found when it is read.
        error: of a hole, one line; else empty.
        figures: as `results.json` holds them; empty of a hole. See `execute.figures`.
        history: of the training, an entry an epoch.
        folder: of its files.
    """

    cell: Cell
    method: str
    settings: Mapping[str, Any]
    status: Status
    error: str
    figures: Mapping[str, Any]
    history: Sequence[Mapping[str, float]]
    folder: Path

    @property
    def is_hole(self) -> bool:
        """Whether it has no figures."""
        return self.status != "done"

    def predictions(self) -> Predictions:
        """Its answers on the report rows."""
        return read_predictions(self.folder / PREDICTIONS)


@dataclass(frozen=True, slots=True)
class Predictions:
    """Answers on report rows, in the order of the rows, which all cells of a task share.

    Attributes:
        texts: a pair as one string.
        true: label of each row.
        answered: label of each answer; empty where it could not be read.
        raw: what a language model wrote; empty elsewhere.
    """

    texts: tuple[str, ...]
    true: tuple[str, ...]
    answered: tuple[str, ...]
    raw: tuple[str, ...]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each answer is the true label; an unreadable one never is."""
        return np.array([a == b for a, b in zip(self.true, self.answered, strict=True)], dtype=bool)


class Look(NamedTuple):
    """That a matrix began to report on a split.

    Attributes:
        report_key: of the split.
        mark: of the matrix: its settings and sources.
        at: when, as ISO 8601 in UTC.
    """

    report_key: str
    mark: str
    at: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """What stands in a matrix's folder.

    Attributes:
        config: of the matrix.
        results: of all cells that were tried, holes among them, in the order of the matrix.
        missing: cells that were not run yet: holes, too, in every table.
        looks: at the report splits, by this matrix and by others, as far as they are known.
    """

    config: MatrixConfig
    results: tuple[CellResult, ...]
    missing: tuple[Cell, ...]
    looks: tuple[Look, ...]

    @property
    def uses(self) -> Mapping[str, int]:
        """How many matrices reported on each split, by its key; a resumed one counts once."""
        return Counter(key for key, _ in {(one.report_key, one.mark) for one in self.looks})

    def of(self, task: str, column: str) -> tuple[CellResult, ...]:
        """Finished cells of a column on a task, by seed."""
        return tuple(
            one
            for one in self.results
            if (one.cell.task, one.cell.column) == (task, column) and not one.is_hole
        )

    @property
    def holes(self) -> tuple[tuple[Cell, str], ...]:
        """Cells without figures, each with why."""
        tried = [
            (one.cell, f"{one.status.replace('_', ' ')}: {one.error}")
            for one in self.results
            if one.is_hole
        ]
        return (*tried, *((cell, "not run") for cell in self.missing))


def read_matrix(folder: str | Path) -> Matrix:
    """Read what is there of a matrix.

    Raises:
        DataError: the folder holds none.
    """
    from benchmarks.matrix.config import load_matrix
    from benchmarks.matrix.figures import held_against

    place = Path(folder)
    if not (place / MATRIX).exists():
        raise DataError(f"{str(place)!r} holds no matrix: run one with `matrix run --out {place}`")
    config = load_matrix(place / MATRIX)
    found = {cell: place / cell.name for cell in config.cells}
    results = tuple(
        held_against(config, read_cell(cell, path))
        for cell, path in found.items()
        if (path / CELL).exists()
    )
    tried = {one.cell for one in results}
    missing = tuple(cell for cell in config.cells if cell not in tried)
    return Matrix(config, results, missing, read_looks(place))


def read_cell(cell: Cell, folder: Path) -> CellResult:
    """Read a cell's folder."""
    stated = json.loads((folder / CELL).read_text(encoding="utf-8"))
    is_done = stated["status"] == "done"
    return CellResult(
        cell=cell,
        method=stated["method"],
        settings=stated["settings"],
        status=stated["status"],
        error=stated.get("error", ""),
        figures=_json(folder / RESULTS) if is_done else {},
        history=_json(folder / HISTORY) if is_done else [],
        folder=folder,
    )


def read_predictions(path: Path) -> Predictions:
    """Read a cell's predictions."""
    rows = pq.read_table(path).to_pydict()
    return Predictions(*(tuple(rows[name]) for name in ("text", "true", "answered", "raw")))


def read_looks(folder: Path) -> tuple[Look, ...]:
    """The looks at report splits that a matrix's folder knows of."""
    path = folder / USES
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return tuple(
        Look(use["report_key"], use["matrix"], use["at"]) for use in map(json.loads, lines)
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
