"""`red-ray train`: rows to a model; with a pool and a judge also the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from red_ray.calibration import check_goal
from red_ray.cli.console import Output, guarded
from red_ray.cli.lasting import check_lasting
from red_ray.cli.options import (
    Calibration,
    CalibrationOos,
    ConfigFile,
    Dashboard,
    Goals,
    Json,
    Judge,
    OutPath,
    Overwrite,
    Seed,
    Set,
    goal_of,
    resolve,
)
from red_ray.cli.reading import read_rows
from red_ray.cli.running import check_judge, check_ledger, listen_to_people, run_training
from red_ray.cli.show import show_run
from red_ray.cli.show_plan import show_plan
from red_ray.data.holdout import hold_out
from red_ray.data.inputs import read_test, with_calibration
from red_ray.errors import ConfigError
from red_ray.working_copy import at_place


def train(
    out: OutPath,
    train_file: Annotated[
        Path | None,
        typer.Option(
            "--train",
            help="Labelled rows: csv, tsv, jsonl, parquet or xlsx. Without them the judge finds "
            "the first examples of the labels in --descriptions.",
        ),
    ] = None,
    pool: Annotated[
        Path | None, typer.Option(help="Unlabelled rows; labels in it are hidden from the model.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Rows that only the scorecard sees.")] = None,
    test_fraction: Annotated[
        float | None, typer.Option(help="Without --test: hold back this share of every label.")
    ] = None,
    oos: Annotated[Path | None, typer.Option(help="Test texts that fit no label.")] = None,
    calibration: Calibration = None,
    calibration_oos: CalibrationOos = None,
    goal: Goals = None,
    descriptions: Annotated[
        Path | None,
        typer.Option(
            help="Table of labels and a column `description`; without --train the labels."
        ),
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(
            help="A run or a bundle whose examples join the training rows, where labels agree.",
            metavar="RUN",
        ),
    ] = None,
    judge: Judge = None,
    mode: Annotated[
        str | None, typer.Option(help="speed, balanced or accuracy; `red-ray modes` says more.")
    ] = None,
    samples_per_class: Annotated[
        int | None, typer.Option(help="Draw so many rows per label; the rest joins the pool.")
    ] = None,
    seed: Seed = None,
    config: ConfigFile = None,
    assignments: Set = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Ask nobody; say what would be asked, and its cost."),
    ] = False,
    overwrite: Overwrite = False,
    dashboard: Dashboard = False,
    as_json: Json = False,
) -> None:
    """Train a classifier; with a pool and a judge, let the judge label what is unsure."""
    output = Output(as_json=as_json)
    with guarded(output):
        check_lasting(out, "--out")
        given = {
            "mode": mode,
            "seed": seed,
            "samples_per_class": samples_per_class,
            "judge.spec": judge,
            "router.goal": goal_of(goal),
        }
        settings = resolve(config, assignments, given)
        if test is not None and test_fraction is not None:
            raise ConfigError("--test-fraction makes test rows where there are none; drop --test")
        if oos is not None and test is None:
            raise ConfigError("--oos says which test texts fit no label; give --test too")
        if calibration_oos is not None and calibration is None:
            raise ConfigError(
                "--calibration-oos goes with rows that fit a label: give --calibration"
            )
        inputs = read_rows(settings, train_file, pool, descriptions, warm_start)
        if not dry_run:
            check_judge(settings, inputs)
        check_ledger(settings, out)
        with at_place(out) as place:
            inputs = listen_to_people(settings, inputs, place)
            asks = inputs.pool or settings.judge.paraphrases
            if settings.judge.spec and not asks and not dry_run:
                output.note("no pool: the judge has nothing to be asked about")
            labels = inputs.label_set
            rows = (
                read_test(settings, inputs.seen_keys, labels, test=test, out_of_scope=oos)
                if test
                else None
            )
            if test_fraction is not None:
                inputs, rows = hold_out(inputs, test_fraction, settings.seed)
            if calibration is not None:
                inputs = with_calibration(settings, inputs, rows, calibration, calibration_oos)
            if settings.router.goal is not None:
                check_goal(
                    settings.router.goal,
                    settings.router.confidence,
                    inputs.calibration,
                    n_train=len(inputs.train) or None,
                )
            if dry_run:
                show_plan(output, settings, inputs, place)
                return
            result = run_training(
                output, settings, inputs, rows, place, overwrite=overwrite, dashboard=dashboard
            )
        show_run(output, result["run"], result)
