"""From a matrix's folder to its report: one HTML page; CSV, Parquet and Markdown beside it."""

from __future__ import annotations

import io
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.matrix.advice import RULES
from benchmarks.matrix.overview import Overview, overview
from benchmarks.matrix.report import rows, tables
from benchmarks.matrix.report.markdown import against_table, full_table, short_table
from benchmarks.matrix.report.views import task_view
from benchmarks.matrix.report.words import HOLE, ranking_told
from benchmarks.matrix.results import read_matrix
from red_ray.evaluation.report.figures import plural
from red_ray.storage import writing

PAGE = "report.html"
CELLS_CSV, CELLS_PARQUET, PAIRS = "comparison.csv", "comparison.parquet", "pairs.csv"
SHORT, AGAINST, TABLES = "short.md", "against.md", "tables.md"
_OURS, _HOUSE = "benchmarks.matrix.report", "red_ray.evaluation"


def write_report(folder: str | Path) -> Path:
    """Write the report of a matrix into its folder, below `report/`.

    Returns:
        The path of the page.

    Raises:
        DataError: the folder holds no matrix.
        OutputError: it cannot be written.
        StorageError: the disk is full.
    """
    found = overview(read_matrix(folder))
    place = Path(folder) / "report"
    cells = rows.cells(found.matrix)
    files = {
        CELLS_CSV: _csv(cells),
        CELLS_PARQUET: _parquet(cells),
        PAIRS: _csv(rows.pairs(found)),
        SHORT: _utf8(short_table(found)),
        TABLES: _utf8(full_table(found)),
        PAGE: _utf8(render(found)),
    }
    if found.matrix.config.against is not None:
        files[AGAINST] = _utf8(against_table(found))
    with writing(place):
        place.mkdir(exist_ok=True)
        for name, data in files.items():
            new = place / f".{name}.new"
            new.write_bytes(data)
            new.replace(place / name)
    return place / PAGE


def render(found: Overview) -> str:
    """The page; every text of the matrix is escaped."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(_OURS, ""), PackageLoader(_HOUSE, "")]),
        autoescape=True,  # labels, texts and errors are users' and may be hostile
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = _text(_HOUSE, "report.css") + _text(_OURS, "matrix.css")
    return environment.get_template("matrix.html.j2").render(style=Markup(style), **_views(found))


def _views(found: Overview) -> dict[str, Any]:
    config = found.matrix.config
    done = [one for one in found.matrix.results if not one.is_hole]
    return {
        "config": config,
        "n_done": len(done),
        "n_cells": len(config.cells),
        "comparison": tables.comparison(found),
        "against": tables.against(found),
        "rankings": [(task, ranking_told(found, task)) for task in config.tasks],
        "cautions": tables.cautions(found),
        "questions": [one for one in found.questions if not one.lacks],
        "not_asked": [one for one in found.questions if one.lacks],
        "tasks": [task_view(found, task, at) for at, task in enumerate(config.tasks, 1)],
        "methods": tuple(tables.by_method(found)),
        "changes": tables.changes(found),
        "advice": found.advice,
        "rules": RULES,
        "holes": tables.holes(found),
        "versions": sorted({pair for one in done for pair in one.figures["versions"].items()}),
        "devices": sorted({one.figures["device"] for one in done}),
        "is_hole": lambda text: HOLE in text,
        "plural": plural,
    }


def _text(package: str, name: str) -> str:
    return resources(package).joinpath(name).read_text(encoding="utf-8")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", errors="replace")


def _csv(table: pa.Table) -> bytes:
    file = io.BytesIO()
    csv.write_csv(table, file)
    return file.getvalue()


def _parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()
