"""`red-ray resume`: goes on with a run that was cut short."""

from __future__ import annotations

from red_ray.cli.console import Output, guarded
from red_ray.cli.options import Dashboard, Json, RunPath, Set
from red_ray.cli.running import resume_training
from red_ray.cli.show import show_run
from red_ray.run_folder import RunFolder
from red_ray.working_copy import at_place


def resume(
    run: RunPath, assignments: Set = None, dashboard: Dashboard = False, as_json: Json = False
) -> None:
    """Go on with a run that was cut short; nothing that was paid for is paid for again.

    With --set also with one that its budget stopped: it takes limits of the judge, as
    judge.budget_calls=5000, and no key that decides the result.
    """
    output = Output(as_json=as_json)
    with guarded(output):
        with at_place(run) as place:
            folder = RunFolder(place)
            if folder.is_finished and not (assignments and folder.is_out_of_budget):
                output.result({"run": folder.name, "finished": True})
                output.note(f"{folder.name!r} is finished, {folder.what_is_left}")
                return
            result = resume_training(output, place, assignments, dashboard=dashboard)
        show_run(output, result["run"], result)
