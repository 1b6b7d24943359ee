"""`red-ray judge audit`: how good a judge is, on rows whose label is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from red_ray.cli.console import Output, guarded, kept_note, notes
from red_ray.cli.lasting import check_lasting
from red_ray.cli.options import ConfigFile, Json, Seed, Set, check_is_local, resolve
from red_ray.cli.show_audit import asking, show_audit
from red_ray.data.inputs import read_inputs

judge = typer.Typer(no_args_is_help=True, help="Measure a judge.")


@judge.callback()
def _verbs() -> None:
    """Keep `audit` a verb of its own: a Typer of one command would swallow its name."""


@judge.command()
def audit(
    train: Annotated[Path, typer.Option(help="Labelled rows: csv, tsv, jsonl, parquet or xlsx.")],
    specs: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            help="Whom to audit: ollama:MODEL, openai:MODEL@BASE_URL, neighbours or simulated:0.9; "
            "may repeat.",
            metavar="SPEC",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="The audit's folder.")] = Path("audit"),
    descriptions: Annotated[
        Path | None, typer.Option(help="Table of labels and a column `description`.")
    ] = None,
    seed: Seed = None,
    config: ConfigFile = None,
    assignments: Set = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an audit of other rows; its ledger stays.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask judges about labelled rows, and hold them against criteria declared before.

    Budgets and limits of the configuration hold for each judge. Run again, it asks only what is
    not answered yet.
    """
    output = Output(as_json=as_json)
    with guarded(output):
        check_is_local(out, "--out")
        check_lasting(out, "--out")
        settings = resolve(config, assignments, {"seed": seed})
        inputs = read_inputs(settings, train, None, descriptions)
        from red_ray.encoding import open_encoder
        from red_ray.evaluation.audit import AuditFolder, AuditJob, AuditRows, run_audit

        configured = (settings.judge.spec,) if settings.judge.spec else ()
        job = AuditJob(
            AuditRows.of(inputs.train, settings),
            inputs.descriptions,
            tuple(specs or configured),
            settings,
        )
        job.check()
        folder = AuditFolder(out)
        if not overwrite:
            folder.check_rows(job.source.rows)
        encoder = open_encoder(settings.encoder)
        notes(output, (*inputs.notes, f"encoding {len(inputs.train):,} rows"))
        vectors = encoder.encode(inputs.train.texts)
        with asking(output) as on_progress:
            report = run_audit(job, vectors, folder, on_progress)
        if folder.kept_answers is not None:
            output.note(kept_note(folder.kept_answers, folder.ledger))
        show_audit(output, out, report)
