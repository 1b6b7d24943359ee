"""`red-ray tune`: the best setting for a budget, found by Ray Tune."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from red_ray.cli.console import Output, guarded, notes
from red_ray.cli.lasting import check_lasting
from red_ray.cli.options import Dashboard, Json, check_is_local
from red_ray.cli.running import beginning, check_parts, run_training
from red_ray.cli.show import show_run
from red_ray.data.inputs import Inputs, TestRows, draw_samples
from red_ray.errors import GoalError
from red_ray.run_folder import RunFolder

if TYPE_CHECKING:
    from red_ray.config import RunConfig
    from tune.folder import Place
    from tune.results import Row
    from tune.space import SweepConfig
    from tune.sweep import SweepStep

N_SHOWN = 10


def tune(
    file: Annotated[Path, typer.Argument(help="The sweep's YAML file.", metavar="SWEEP.yaml")],
    out: Annotated[Path, typer.Option("--out", help="The sweep's folder.", metavar="FOLDER")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a sweep that was cut short.")
    ] = False,
    dashboard: Dashboard = False,
    as_json: Json = False,
) -> None:
    """Try many settings, rank them by estimates, and train the best one."""
    output = Output(as_json=as_json)
    with guarded(output):
        check_is_local(out, "--out")
        # Before Ray is imported: it reads its settings then.
        from red_ray.actors.environment import prepare_environment

        prepare_environment()
        from tune.folder import sweep_folder
        from tune.rows import marks_of, read_rows
        from tune.space import load_sweep

        check_lasting(out, "--out")
        sweep = load_sweep(file)
        inputs, test = read_rows(sweep)
        _check(sweep, inputs)
        text, marks = file.read_text(encoding="utf-8"), marks_of(sweep, inputs, test)
        with sweep_folder(out, text, marks, resume=resume) as place:
            notes(output, (*inputs.notes, *(test.notes if test else ())))
            rows, card = _swept(output, sweep, inputs, test, place, dashboard=dashboard)
            _show(output, sweep, rows, place, card)


def _check(sweep: SweepConfig, inputs: Inputs) -> None:
    """Find what cannot work before Ray is started."""
    from tune.space import base_config, known_settings

    settings = [one.config for one in known_settings(sweep)]
    configs = [base_config(sweep), *settings]
    for config in {config.judge.spec: config for config in configs}.values():
        check_parts(config, draw_samples(config, inputs))
    _check_goals(sweep, inputs, settings)


def _check_goals(sweep: SweepConfig, inputs: Inputs, settings: list[RunConfig]) -> None:
    """Find a goal that the chosen setting could not promise.

    Calibration rows are the same for all settings, any of which may be chosen: the highest
    confidence counts. Of training rows each setting has its own, and one that has too few is
    ranked without the goal: some setting must have enough.
    """
    from red_ray.calibration import check_goal
    from tune.space import confidences_of

    confidences = confidences_of(sweep)
    if inputs.calibration is None:
        confidence, n_train = min(confidences), _most_rows(inputs, settings)
    else:
        confidence, n_train = max(confidences), None
    for goal in sweep.goals:
        check_goal(goal, confidence, inputs.calibration, n_train=n_train)


def _most_rows(inputs: Inputs, settings: list[RunConfig]) -> int:
    """Training rows of the setting that has most; all, where settings are suggested."""
    draws = {(one.seed, one.samples_per_class): one for one in settings}
    drawn = (len(draw_samples(one, inputs).train) for one in draws.values())
    return max(drawn, default=len(inputs.train))


def _swept(
    output: Output,
    sweep: SweepConfig,
    inputs: Inputs,
    test: TestRows | None,
    place: Place,
    *,
    dashboard: bool,
) -> tuple[tuple[Row, ...], dict[str, Any]]:
    """The table of results, and the scorecard of the chosen setting's run."""
    from red_ray.actors.cluster import ray_session
    from tune.results import chosen_config
    from tune.sweep import run_sweep

    output.note(beginning())
    with redirect_stdout(sys.stderr), ray_session(dashboard=dashboard) as url:
        if url:
            output.note(f"Ray's dashboard: {url}")
        with _progress(output, sweep) as show:
            rows = run_sweep(sweep, inputs, place, on_step=show)
        done = _finished(place)
        if done is not None:
            return rows, done
        output.note("training the chosen setting; it alone meets the test rows")
        config = chosen_config(sweep, rows[0])
        place.give_ledger(RunFolder(place.chosen).ledger)
        card = run_training(
            output,
            config,
            replace(draw_samples(config, inputs), notes=()),
            replace(test, notes=()) if test else None,
            place.chosen,
            overwrite=True,
            dashboard=False,
        )
        return rows, card


def _finished(place: Place) -> dict[str, Any] | None:
    """What an earlier command ended with; the test rows are met once.

    Raises:
        GoalError: its calibration rows could not promise the goal.
    """
    from red_ray.bundle import MANIFEST, load_bundle

    run = RunFolder(place.chosen)
    if run.is_cut_short or not (run.bundle / MANIFEST).exists():
        return None

    model = load_bundle(run.bundle)
    if model.config.router.goal is not None and model.promise is None:
        raise GoalError(
            "the rows could not promise the goal of the chosen setting, which is trained and "
            f"stands in {str(run.path)!r} without thresholds: `red-ray thresholds` sets them"
        )
    scored = (place.chosen / "scorecard.json").exists()
    result = run.read_json("scorecard.json" if scored else "details.json")
    return {"run": str(place.chosen), "bundle": model.bundle_id, **result}


@contextmanager
def _progress(output: Output, sweep: SweepConfig) -> Iterator[Any]:
    """One line that is renewed on a terminal, a line for each setting elsewhere."""
    from tune.points import best_of
    from tune.results import in_words
    from tune.space import n_settings

    # Optuna may draw one twice.
    most = "at most " if sweep.search == "optuna" else ""

    def line(step: SweepStep) -> str:
        told = f"{step.n_done} of {most}{n_settings(step.n_total)}"
        if step.best is None or not step.best.points:
            return told
        best = best_of(step.best.points, sweep.objective)
        return (
            f"{told}; best so far {best.assumed_accuracy:.1%} at {best.escalated:.1%} escalated "
            f"({in_words(step.best.params, sweep.varied)}; {best.goal})"
        )

    if not output.err.is_terminal:
        yield lambda step: output.note(line(step))
        return
    with output.err.status("encoding") as status:
        yield lambda step: status.update(line(step))


def _show(
    output: Output, sweep: SweepConfig, rows: tuple[Row, ...], place: Place, card: dict[str, Any]
) -> None:
    from tune.results import as_json, meets

    chosen = rows[0]
    if not meets(chosen):
        output.note("no setting reaches the objective; the nearest one was chosen")
    if output.as_json:
        output.result(
            {
                "sweep": str(place.path),
                "n_settings": len({row.record.id for row in rows}),
                "assumed_judge_accuracy": sweep.assumed_judge_accuracy,
                "chosen": as_json(chosen),
                "front": [as_json(row) for row in rows if row.on_front],
                **card,
            }
        )
        return
    output.out.print(_table(sweep, rows))
    output.out.print(
        "estimates from cross-fitted training rows; * escalated texts are answered by a judge that "
        f"is assumed right {sweep.assumed_judge_accuracy:.0%} of the time",
        style="dim",
        highlight=False,
        soft_wrap=True,
    )
    _tell_of_the_rest(output, rows)
    output.out.print(
        f"\nall rows {place.results}   plot {place.path / 'pareto.svg'}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
    output.out.print("\n[bold]The chosen setting[/], trained again:\n")
    show_run(output, place.chosen, card)


def _table(sweep: SweepConfig, rows: tuple[Row, ...]) -> Table:
    from tune.results import shown

    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    table.add_column(", ".join(key.rpartition(".")[2] for key in sweep.varied))
    table.add_column("goal")
    with_calls = any(row.record.calls for row in rows)
    figures = ("escalated", "accuracy*", "alone", "caught", "precise")
    for header in (*figures, *(("calls",) if with_calls else ()), "s"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in [row for row in rows if row.counts][:N_SHOWN]:
        one, record = row.point, row.record
        if one is None:
            continue
        alone = record.points[0].assumed_accuracy
        shares = (one.escalated, one.assumed_accuracy, alone, one.catch, one.precision)
        setting = ", ".join(shown(record.params[key]) for key in sweep.varied)
        calls = [f"{record.calls:,}"] if with_calls else []
        cells = (setting, one.goal, *map(_percent, shares), *calls, f"{record.seconds:.0f}")
        table.add_row(*cells, style="bold" if row.chosen else "")
    return table


def _tell_of_the_rest(output: Output, rows: tuple[Row, ...]) -> None:
    from tune.space import n_settings

    stopped = {row.record.id for row in rows if row.record.state == "stopped"}
    unusable = {row.record.id: row.record.error for row in rows if row.record.state == "unusable"}
    refused = [row.point.refused for row in rows if row.point is not None and row.point.refused]
    if stopped:
        were = "was" if len(stopped) == 1 else "were"
        output.note(f"{n_settings(len(stopped))} {were} stopped early by the scheduler")
    if unusable:
        output.note(f"{n_settings(len(unusable))} cannot be used: {next(iter(unusable.values()))}")
    if refused:
        output.note(f"{len(refused)} rows have a goal that cannot be promised: {refused[0]}")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
