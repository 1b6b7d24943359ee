"""`red-ray classify`: a table of texts to a table of decisions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from red_ray.cli.console import Output, guarded
from red_ray.cli.escalating import (
    Asking,
    asking,
    judge_of,
    settings_of,
    telling,
    told_of,
    truth_of,
)
from red_ray.cli.options import Json, RunPath, Set
from red_ray.errors import ConfigError, JudgeError, OutputError
from red_ray.run_folder import RunFolder

if TYPE_CHECKING:
    from red_ray.batch import BatchCounts
    from red_ray.model import RedModel


def classify(
    run: RunPath,
    source: Annotated[
        Path,
        typer.Option("--input", help="csv, tsv, jsonl, parquet, xlsx or a folder of parquet."),
    ],
    target: Annotated[Path, typer.Option("--output", help="The same formats, by its ending.")],
    top_k: Annotated[
        int, typer.Option(min=1, help="Labels to name: the decision's and its alternatives.")
    ] = 3,
    escalate: Annotated[
        bool, typer.Option("--escalate", help="Ask the judge about what the model escalates.")
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Whom to ask in place of the run's judge: ollama:MODEL, openai:MODEL@BASE_URL, "
            "neighbours, or simulated:0.9 (for tests; needs a column of labels).",
            metavar="SPEC",
        ),
    ] = None,
    assignments: Set = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    as_json: Json = False,
) -> None:
    """Classify every row of a table; a row without a usable text gets an `error`."""
    output = Output(as_json=as_json)
    with guarded(output):
        folder = RunFolder.open(run)
        if target.is_file() and not overwrite:
            raise OutputError(f"{str(target)!r} is there already; add --overwrite to replace it")
        if target.is_file() and target.samefile(source):
            raise OutputError("the output is the input; name another file")
        if (judge or assignments) and not escalate:
            raise ConfigError("--judge and --set are about the judge: add --escalate to ask it")
        from red_ray.bundle import load_bundle

        model = load_bundle(folder.bundle)
        start = perf_counter()
        if escalate:
            counts, facts = _with_judge(
                output, folder, model, source, target, top_k, (judge, assignments)
            )
        else:
            with output.err.status("classifying") as status:
                counts, facts = _classified(model, source, target, top_k, status.update), None
        seconds = perf_counter() - start
        found = {"bundle": model.bundle_id, "seconds": round(seconds, 3), "escalation": facts}
        output.result(asdict(counts) | found)
        if not as_json:
            _print(output.out, counts, seconds, facts)
            output.out.print(f"written to {target}", soft_wrap=True, markup=False)


def _with_judge(
    output: Output,
    run: RunFolder,
    model: RedModel,
    source: Path,
    target: Path,
    top_k: int,
    given: tuple[str | None, list[str] | None],
) -> tuple[BatchCounts, dict[str, Any]]:
    """Classify, and ask the judge; the counts, and what it took.

    Raises:
        ConfigError: nothing is ever escalated, or the judge is not to be asked like this.
    """
    if model.thresholds.escalate is None:
        raise ConfigError(
            "the model has no goal, so it escalates nothing: set one first, as `red-ray "
            f"thresholds {run.path} --goal catch_errors=0.95`"
        )
    config = settings_of(run, *given, command=f"red-ray classify {run.path} --escalate")
    judge = judge_of(config, model, truth_of(source, config, model))
    doing = "classifying"
    with (
        telling(output, doing) as (status, tell),
        asking(config, run, model, judge, tell) as asked,
    ):
        try:
            counts = _classified(model, source, target, top_k, status.update, asked)
        except JudgeError:
            output.note("what the judge answered is in the ledger: run the same command again")
            raise
        if counts.escalated and asked.pool.exhausted:
            output.note(
                f"the judge's budget is used up: {counts.escalated:,} texts were not asked about "
                "and say `escalate`; raise it, as --set judge.budget_calls=…, and run again"
            )
        return counts, asked.facts()


def _classified(
    model: RedModel,
    source: Path,
    target: Path,
    top_k: int,
    tell: Callable[[str], None],
    asked: Asking | None = None,
) -> BatchCounts:
    from red_ray.batch import BatchCounts, classify_table

    start, counts = perf_counter(), BatchCounts(0, 0, 0, 0)
    escalate = asked.begin if asked is not None else None
    done = classify_table(model, source, target, top_k=top_k, escalate=escalate)
    with closing(done):  # at once, where an error ends it: no half of a table is left
        for counts in done:
            if asked is not None:
                asked.check_is_of_use()
            tell(f"{counts.rows:,} rows, {counts.rows / (perf_counter() - start):,.0f} a second")
    return counts


def _print(
    console: Console, counts: BatchCounts, seconds: float, facts: dict[str, Any] | None
) -> None:
    told = [f"{counts.accepted:,} with a label", f"{counts.none:,} that fit none"]
    if counts.escalated:
        told.append(f"{counts.escalated:,} that would ask the judge")
    if counts.abstained:
        told.append(f"{counts.abstained:,} on which the judge gave no result")
    told.append(f"{counts.errors:,} without a usable text")
    console.print(f"{counts.rows:,} rows in {seconds:.1f} s: {', '.join(told)}")
    if facts is None:
        return
    answered = f"{counts.by_judge:,} by the judge"
    if counts.by_person:
        answered += f", {counts.by_person:,} by a person"
    line = f"answered {answered}; {told_of(facts)}"
    console.print(line, soft_wrap=True, markup=False, highlight=False)
