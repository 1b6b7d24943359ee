"""An audit's report as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from red_ray.evaluation.audit.tables import Grid, facts, findings, grids, named


def audit_page(report: Mapping[str, Any]) -> str:
    """The page, whole."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield "# Audit of judges"
    yield ""
    yield from (f"- **{judge['outcome']}** {name}" for name, judge in named(report))
    yield ""
    for fact in facts(report):
        yield f"- {fact}"
    ranking, *others = grids(report)
    for grid in (ranking, findings(report), *others):
        yield from _section(grid)
    n = report["n_disputed"]
    yield ""
    yield "## Disputed rows"
    yield ""
    yield (
        f"{n:,} labelled rows whose label the model and a judge both contradict stand in "
        "`disputed.csv`. Fill in its column `answer` (`none`: no label fits), then "
        "`red-ray ledger import RUN --input disputed.csv` (`RUN/ledger.sqlite` before the first "
        "training there): a training in RUN takes the answers."
    )


def _section(grid: Grid) -> Iterator[str]:
    yield ""
    yield f"## {grid.title}"
    yield ""
    yield _row(grid.header)
    yield _row(("---", *["---:"] * (len(grid.header) - 1)))
    yield from (_row(row) for row in grid.rows)
    if grid.notes:
        yield ""
    yield from (f"- {note}" for note in grid.notes)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
