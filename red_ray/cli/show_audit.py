"""An audit on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from red_ray.cli.console import Output
from red_ray.evaluation.audit.report import shown
from red_ray.evaluation.audit.tables import Grid, facts, grids
from red_ray.judges import PoolStats

STYLES = {"GO": "bold green", "ITERATE": "bold yellow", "INCONCLUSIVE": "bold", "ABORT": "bold red"}


@contextmanager
def asking(output: Output) -> Iterator[Callable[[str, PoolStats], None]]:
    """Shows which judge is asked and how far it is, and on a line of its own what holds it up."""
    told: set[str] = set()

    def show(spec: str, stats: PoolStats) -> None:
        n_done = stats.cached + stats.answered + stats.unreadable + stats.timeouts + stats.errors
        status.update(f"{n_done:,} of {n_done + stats.waiting + stats.in_flight:,} questions")
        for line in (f"asking {shown(spec)}", stats.notice):
            if line and line not in told:
                told.add(line)
                output.note(line)

    with output.err.status("making the questions") as status:
        yield show


def show_audit(output: Output, out: Path, report: Mapping[str, Any]) -> None:
    """Print the report, or its tables."""
    output.result(report)
    if output.as_json:
        return
    for line in facts(report):
        output.out.print(Text(line, style="dim"))
    for grid in grids(report):
        output.out.print()
        _print(output, grid)
    n = report["n_disputed"]
    output.out.print()
    output.out.print(
        f"report {out / 'audit.md'}   {n:,} disputed rows for a person {out / 'disputed.csv'}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _print(output: Output, grid: Grid) -> None:
    output.out.print(Text(grid.title, style="bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for position, name in enumerate(grid.header):
        words = position == 0 or name == "outcome"
        table.add_column(Text(name), justify="left" if words else "right", overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    output.out.print(table)
    for note in grid.notes:
        output.out.print(Text(note, style="dim"))
