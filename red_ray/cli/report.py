"""`red-ray report`: a run as one HTML file."""

from __future__ import annotations

from red_ray.cli.console import Output, guarded
from red_ray.cli.options import Json, RunPath
from red_ray.run_folder import RunFolder
from red_ray.working_copy import ROWS, at_place


def report(run: RunPath, as_json: Json = False) -> None:
    """Write the run's report again from what its folder holds."""
    output = Output(as_json=as_json)
    with guarded(output):
        from red_ray.evaluation.report import write_report

        with at_place(run, but=ROWS) as place:
            folder = RunFolder.open(place)
            path = folder.shown(write_report(folder.path))
        output.result({"report": path})
        if not as_json:
            output.out.print(path, soft_wrap=True, markup=False)
