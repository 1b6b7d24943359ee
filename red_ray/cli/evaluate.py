"""`red-ray evaluate`: the scorecard of a run on test rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from red_ray.cli.console import Output, guarded, notes
from red_ray.cli.options import Json, RunPath
from red_ray.cli.running import score_rows
from red_ray.cli.show import show_run
from red_ray.data.inputs import read_test
from red_ray.run_folder import RunFolder


def evaluate(
    run: RunPath,
    test: Annotated[Path, typer.Option(help="Labelled rows that training never saw.")],
    oos: Annotated[Path | None, typer.Option(help="Test texts that fit no label.")] = None,
    as_json: Json = False,
) -> None:
    """Score a run on test rows, and renew its report."""
    output = Output(as_json=as_json)
    with guarded(output):
        folder = RunFolder.open(run)
        from red_ray.bundle import load_bundle
        from red_ray.encoding import open_encoder
        from red_ray.evaluation.report import write_report

        model = load_bundle(folder.bundle)
        labels = frozenset(model.labels)
        rows = read_test(model.config, folder.seen(), labels, test=test, out_of_scope=oos)
        notes(output, rows.notes)
        output.note(f"scoring {len(rows.rows)} test rows")
        encoder = open_encoder(model.encoder_config)
        model.check_encoder(encoder)
        card = score_rows(folder, model, rows, encoder)
        write_report(folder.path)
        show_run(output, run, {"run": str(run), "bundle": model.bundle_id, **card})
