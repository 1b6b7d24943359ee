"""`red-ray evaluate`: the scorecard of a run on test rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from red_ray.cli.console import Output, guarded, notes
from red_ray.cli.escalating import Asking, asking, settings_of, show_curve, telling
from red_ray.cli.options import Json, RunPath, Set
from red_ray.cli.running import keep_card, score_rows
from red_ray.cli.show import show_run
from red_ray.config import RunConfig
from red_ray.core.text import text_key
from red_ray.data.inputs import TestRows, read_test
from red_ray.data.prepare import HiddenLabels
from red_ray.errors import ConfigError, JudgeError
from red_ray.run_folder import RunFolder
from red_ray.working_copy import ROWS, at_place

if TYPE_CHECKING:
    from red_ray.evaluation.escalation import EscalatedRows
    from red_ray.judges import Judge
    from red_ray.model import RedModel, TextEncoder


def evaluate(
    run: RunPath,
    test: Annotated[Path, typer.Option(help="Labelled rows that training never saw.")],
    oos: Annotated[Path | None, typer.Option(help="Test texts that fit no label.")] = None,
    escalate_share: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Ask the judge about this share of the rows, the riskiest ones."
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Whom to ask in place of the run's judge: ollama:MODEL, openai:MODEL@BASE_URL, "
            "neighbours, or simulated:0.9 (for tests: it is told the test labels).",
            metavar="SPEC",
        ),
    ] = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Score a run on test rows, and renew its report."""
    output = Output(as_json=as_json)
    with guarded(output):
        if (judge or assignments) and escalate_share is None:
            raise ConfigError("--judge and --set are about the judge: add --escalate-share 0.2")
        with at_place(run, but=ROWS) as place:
            folder = RunFolder.open(place)
            with folder.changing():
                card = _evaluate(
                    output,
                    folder,
                    (test, oos),
                    share=escalate_share,
                    judge=judge,
                    assignments=assignments,
                )
        show_run(output, card["run"], card)
        if escalate_share is not None:
            show_curve(output, card["escalation"])


def _evaluate(
    output: Output,
    folder: RunFolder,
    files: tuple[Path, Path | None],
    *,
    share: float | None,
    judge: str | None,
    assignments: list[str] | None,
) -> dict[str, Any]:
    """The scorecard; it and the bundle are of one model, as the run is held meanwhile."""
    from red_ray.bundle import load_bundle
    from red_ray.evaluation.report import write_report

    model = load_bundle(folder.bundle)
    labels = frozenset(model.labels)
    test, oos = files
    rows = read_test(model.config, folder.seen(), labels, test=test, out_of_scope=oos)
    asked = None
    if share is not None:
        asked = _judge(folder, model, rows, judge, assignments)
    notes(output, rows.notes)
    output.note(f"scoring {len(rows.rows)} test rows")
    encoder = model.open_encoder()
    folder.claim()
    # Before a figure is seen: from now on they set no threshold.
    folder.add_tested(map(text_key, rows.rows.texts + rows.out_of_scope))
    folder.save()
    card = score_rows(folder, model, rows, encoder)
    write_report(folder.path)
    folder.save()  # whatever becomes of the judge
    if asked is not None and share is not None:
        # After the plain figures are fixed: they know nothing of a judge.
        found = _escalated(output, folder, model, rows, encoder, asked, share)
        card = card | {"escalation": found}
        keep_card(folder, card)
        write_report(folder.path)
    return {"run": folder.name, "bundle": model.bundle_id, **card}


def _judge(
    run: RunFolder,
    model: RedModel,
    rows: TestRows,
    judge: str | None,
    assignments: list[str] | None,
) -> tuple[RunConfig, Judge]:
    from red_ray.escalation import judge_of

    command = f"red-ray evaluate {run.name} --escalate-share 0.2"
    config = settings_of(run, judge, assignments, command)
    pairs = zip(rows.rows.texts, rows.rows.labels, strict=True)
    # Only a simulated judge is told them.
    return config, judge_of(config, model, HiddenLabels.of_texts(pairs))


def _escalated(
    output: Output,
    run: RunFolder,
    model: RedModel,
    rows: TestRows,
    encoder: TextEncoder,
    asked: tuple[RunConfig, Judge],
    share: float,
) -> dict[str, Any]:
    """The scorecard's section on escalation."""
    from red_ray.evaluation.escalation import curve, shares_up_to, summary

    output.note(f"asking the judge about {share:.0%} of the test rows")
    with (
        telling(output, "asking the judge") as (_, tell),
        asking(asked[0], run, model, asked[1], tell) as open_judge,
    ):
        try:
            done = _asked(open_judge, model, rows, encoder, share)
        except JudgeError:
            output.note("what the judge answered is in the ledger: run the same command again")
            raise
        open_judge.check_is_of_use()
        n_unasked = done.verdicts.count(None)
        if n_unasked:
            output.note(
                f"the judge's budget is used up: {n_unasked:,} test rows were not asked about; "
                "raise it, as --set judge.budget_calls=…, and run again"
            )
        found = curve(done, shares_up_to(share))
        return open_judge.facts() | summary(done) | {"curve": found}


def _asked(
    asked: Asking, model: RedModel, rows: TestRows, encoder: TextEncoder, share: float
) -> EscalatedRows:
    from red_ray.evaluation.escalation import escalate_riskiest

    texts, labels = rows.rows.texts, rows.rows.labels
    vectors = encoder.encode(texts)
    assessment = model.assess(texts, vectors)
    return asked.loop.submit(
        escalate_riskiest(model, asked.escalator, texts, labels, vectors, assessment, share)
    ).result()
