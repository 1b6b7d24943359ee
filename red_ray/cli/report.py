"""`red-ray report`: a run as one HTML file."""

from __future__ import annotations

from red_ray.cli.console import Output, guarded
from red_ray.cli.options import Json, RunPath
from red_ray.run_folder import RunFolder


def report(run: RunPath, as_json: Json = False) -> None:
    """Write the run's report again from what its folder holds."""
    output = Output(as_json=as_json)
    with guarded(output):
        folder = RunFolder.open(run)
        from red_ray.evaluation.report import write_report

        path = write_report(folder.path)
        output.result({"report": str(path)})
        if not as_json:
            output.out.print(str(path), soft_wrap=True, markup=False)
