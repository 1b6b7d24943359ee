"""`red-ray demo`: the whole loop on the shipped corpus, with a simulated judge."""

from __future__ import annotations

from red_ray.cli.console import Output, guarded
from red_ray.cli.lasting import check_lasting
from red_ray.cli.options import (
    ConfigFile,
    Dashboard,
    Json,
    Judge,
    OutPath,
    Overwrite,
    Seed,
    Set,
    resolve,
)
from red_ray.cli.running import check_ledger, run_training
from red_ray.cli.show import show_run
from red_ray.data.demo import load_demo
from red_ray.data.inputs import demo_inputs
from red_ray.working_copy import at_place

DEMO_OUT = "runs/demo"
DEMO_JUDGE = "simulated:0.9"
DEMO_SAMPLES = 40
"""Texts per iteration: the shipped pool is small, and ten rounds should not empty it."""


def demo(
    out: OutPath = DEMO_OUT,
    judge: Judge = None,
    seed: Seed = None,
    config: ConfigFile = None,
    assignments: Set = None,
    overwrite: Overwrite = False,
    dashboard: Dashboard = False,
    as_json: Json = False,
) -> None:
    """Train on the shipped corpus with a simulated judge, and show the scorecard."""
    output = Output(as_json=as_json)
    with guarded(output):
        check_lasting(out, "--out")
        given = {
            "seed": seed,
            "judge.spec": judge or DEMO_JUDGE,
            "loop.samples_per_iteration": DEMO_SAMPLES,
        }
        settings = resolve(config, assignments, given)
        check_ledger(settings, out)
        inputs, test = demo_inputs(load_demo(settings.seed))
        with at_place(out) as place:
            result = run_training(
                output,
                settings,
                inputs,
                test,
                place,
                # Any other folder may hold a run of the user's.
                overwrite=overwrite or out == DEMO_OUT,
                dashboard=dashboard,
            )
        show_run(output, result["run"], result)
