"""`red-ray resume`: goes on with a run that was cut short."""

from __future__ import annotations

from red_ray.cli.console import Output, guarded
from red_ray.cli.options import Dashboard, Json, RunPath
from red_ray.cli.running import resume_training
from red_ray.cli.show import show_run
from red_ray.working_copy import at_place


def resume(run: RunPath, dashboard: Dashboard = False, as_json: Json = False) -> None:
    """Go on with a run that was cut short; nothing that was paid for is paid for again."""
    output = Output(as_json=as_json)
    with guarded(output):
        with at_place(run) as place:
            result = resume_training(output, place, dashboard=dashboard)
        show_run(output, result["run"], result)
