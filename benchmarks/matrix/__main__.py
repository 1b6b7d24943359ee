"""`python -m benchmarks.matrix run | report | check`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.cells import ROOT
from benchmarks.matrix.config import Cell, MatrixConfig, load_matrix
from red_ray.cli.console import Output, catch_sigterm, guarded

STOPPED = "stopped; finished cells stay, and the same command goes on"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="The result alone, as JSON, on stdout.")]
Folder = Annotated[Path, typer.Argument(help="The matrix's folder.", metavar="DIR")]


@app.command()
def run(
    config: Annotated[
        str, typer.Option("--config", help="A YAML file, or the name of one that is shipped.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The matrix's folder.", metavar="DIR")
    ] = None,
    criteria: Annotated[
        Path | None, typer.Option("--criteria", help="Declare these before the run; see `check`.")
    ] = None,
    only: Annotated[str, typer.Option("--only", help="Cells whose name contains this.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Try holes once more.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take, run nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the cells that are missing or have changed; what is finished stays."""
    output = Output(as_json=as_json)
    with guarded(output, stopped=STOPPED):
        matrix = load_matrix(config)
        if dry_run:
            _show_plan(output, matrix)
            return
        place = _place(out, matrix)
        if criteria is not None:
            from benchmarks.matrix.check import declare

            declare(place, criteria)
        _run(output, matrix, place, only, again=again)


def _place(out: Path | None, matrix: MatrixConfig) -> Path:
    from red_ray.actors.environment import JOB_VARIABLE

    place = (out or Path("matrix") / matrix.name).absolute()
    if os.environ.get(JOB_VARIABLE) and place.is_relative_to(ROOT):
        sys.exit(f"Ray removes {place} with the job: give --out a folder elsewhere")
    return place


def _show_plan(output: Output, matrix: MatrixConfig) -> None:
    from benchmarks.matrix.plan import plan, render

    found = plan(matrix)
    facts = {"cells": found.n_cells, "judge_calls": found.n_calls, "usd": found.total_usd}
    facts |= {"cpu_s": found.cpu_s, "gpu_s": found.gpu_s}
    pairs = [asdict(pair) for pair in found.pairs]
    output.result(facts | {"not_estimated": len(found.not_estimated), "pairs": pairs})
    if not output.as_json:
        output.out.print(render(found))


def _run(output: Output, matrix: MatrixConfig, place: Path, only: str, *, again: bool) -> None:
    from red_ray.actors.environment import prepare_environment

    prepare_environment()
    from benchmarks.matrix.results import read_matrix
    from benchmarks.matrix.runner import run_matrix
    from red_ray.actors.cluster import ray_session
    from red_ray.evaluation.report.figures import plural

    n_ended = 0

    def tell(cell: Cell, status: str, error: str) -> None:
        nonlocal n_ended
        n_ended += 1
        words = "done" if status == "done" else f"a hole, {status.replace('_', ' ')}: {error}"
        output.note(f"{n_ended}  {cell.name}: {words}")

    @contextmanager
    def session() -> Iterator[None]:
        with ray_session():
            catch_sigterm()  # Ray took it
            yield

    n_run = run_matrix(matrix, place, only=only, again=again, session=session, tell=tell)
    found = read_matrix(place)
    n_cells, n_missing = len(matrix.cells), len(found.missing)
    n_holes = len(found.holes) - n_missing
    n_done = n_cells - n_missing - n_holes
    facts = {"folder": str(place), "run": n_run, "done": n_done, "holes": n_holes}
    output.result(facts | {"not_run": n_missing, "cells": n_cells})
    if not output.as_json:
        output.out.print(
            f"ran {plural(n_run, 'cell')}; {n_done} of {n_cells} are done, {n_holes} are holes, "
            f"{n_missing} have not run\nreport: `python -m benchmarks.matrix report {place}`",
            markup=False,
            highlight=False,
        )


@app.command()
def models(
    config: Annotated[
        str, typer.Option("--config", help="Whose texts they are made from.")
    ] = "here",
    out: Annotated[Path, typer.Option("--out", metavar="DIR")] = Path("tiny_models"),
    as_json: Json = False,
) -> None:
    """Make the small random models that `here` asks for; they say nothing of real ones."""
    output = Output(as_json=as_json)
    with guarded(output):
        from benchmarks.matrix.tiny import make_models

        made = make_models(load_matrix(config), out)
        output.result({"models": [str(path) for path in made]})
        if not output.as_json:
            told = ", ".join(map(str, made))
            output.out.print(f"made {told}", markup=False, highlight=False)


@app.command()
def report(folder: Folder, as_json: Json = False) -> None:
    """Write tables, plots and one HTML file into DIR/report."""
    output = Output(as_json=as_json)
    with guarded(output):
        from benchmarks.matrix.report import SHORT, write_report

        page = write_report(folder)
        output.result({"report": str(page)})
        if not output.as_json:
            short = (page.parent / SHORT).read_text(encoding="utf-8")
            output.out.print(short, markup=False, highlight=False)
            output.out.print(f"report: {page}", highlight=False, markup=False)


@app.command()
def check(
    folder: Folder,
    criteria: Annotated[Path, typer.Option("--criteria", help="What was declared before the run.")],
    as_json: Json = False,
) -> None:
    """Say whether criteria that were declared before the run are met.

    DEPLOY, and exit code 0; else ITERATE, ABORT or INCONCLUSIVE, and 3. The file holds, as
    docs/matrix.md shows, a list `criteria` of {column, task, figure, at_least or at_most, over}.
    """
    output = Output(as_json=as_json)
    with guarded(output):
        from benchmarks.matrix.check import Outcome, check_text
        from benchmarks.matrix.check import check as held_against

        found = held_against(folder, criteria)
        output.result(asdict(found))
        if not output.as_json:
            output.out.print(check_text(found), markup=False, highlight=False, soft_wrap=True)
        if found.outcome is not Outcome.DEPLOY:
            raise typer.Exit(3)


if __name__ == "__main__":
    app()
