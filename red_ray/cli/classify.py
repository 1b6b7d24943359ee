"""`red-ray classify`: a table of texts to a table of decisions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from red_ray.address import is_address, shown
from red_ray.cli.classifying import Batch, Engine, classify_batch, opened
from red_ray.cli.console import Output, guarded
from red_ray.cli.escalating import asking, settings_of, telling, told_of
from red_ray.cli.lasting import check_lasting
from red_ray.cli.options import Json, RunPath, Set
from red_ray.errors import ConfigError, OutputError
from red_ray.run_folder import RunFolder
from red_ray.working_copy import ROWS, at_place

if TYPE_CHECKING:
    from red_ray.batch import BatchCounts
    from red_ray.config import RunConfig
    from red_ray.model import RedModel


def classify(
    run: RunPath,
    source: Annotated[
        Path,
        typer.Option("--input", help="csv, tsv, jsonl, parquet, xlsx or a folder of parquet."),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--output",
            help="The same formats, by its ending; without one a folder. Or its address: s3://….",
        ),
    ],
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
    engine: Annotated[
        Engine,
        typer.Option(
            help="local: this process; ray: the cluster that RAY_ADDRESS names, or one on this "
            "machine; auto: ray for a cluster, or for a large table on more than two processors."
        ),
    ] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what was cut short; else begin.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    as_json: Json = False,
) -> None:
    """Classify every row of a table; a row without a usable text gets an `error`."""
    output = Output(as_json=as_json)
    with guarded(output), at_place(run, but=ROWS) as place:
        check_lasting(target, "--output")
        folder = RunFolder.open(place)
        if not is_address(target):
            _refuse_to_replace(source, Path(target))
        if (judge or assignments) and not escalate:
            raise ConfigError("--judge and --set are about the judge: add --escalate to ask it")
        if escalate and engine == "ray":
            raise ConfigError("--escalate asks from this process: leave --engine ray out")
        from red_ray.bundle import load_bundle

        model = load_bundle(folder.bundle)
        config = _asking(folder, model, judge, assignments) if escalate else None
        start, facts = perf_counter(), None
        with opened(
            output, model, source, target, top_k=top_k, config=config, keep=(resume, overwrite)
        ) as batch:
            n_before = batch.parts.counts.rows
            if config is None:
                classify_batch(output, batch, engine)
            else:
                facts = _with_judge(output, folder, batch, config)
            counts = batch.parts.counts
        seconds = perf_counter() - start
        found = {"bundle": model.bundle_id, "seconds": round(seconds, 3), "escalation": facts}
        output.result(asdict(counts) | {"resumed_rows": n_before} | found)
        if not as_json:
            _print(output.out, counts, n_before, seconds, facts)
            output.out.print(
                f"written to {shown(target) if is_address(target) else Path(target)}",
                soft_wrap=True,
                markup=False,
            )


def _refuse_to_replace(source: Path, target: Path) -> None:
    """What is read must not be what is replaced, nor lie in it."""
    from red_ray.batch import parts_path

    read = source.resolve()
    for written in (target.resolve(), parts_path(target)):
        if written in (read, *read.parents):
            raise OutputError("the output is the input, or holds it; name another file")


def _asking(
    run: RunFolder, model: RedModel, judge: str | None, assignments: list[str] | None
) -> RunConfig:
    """The configuration under which the judge is asked.

    Raises:
        ConfigError: nothing is ever escalated, or nobody is named.
    """
    if model.thresholds.escalate is None:
        raise ConfigError(
            "the model has no goal, so it escalates nothing: set one first, as `red-ray "
            f"thresholds {run.name} --goal catch_errors=0.95`"
        )
    return settings_of(run, judge, assignments, f"red-ray classify {run.name} --escalate")


def _with_judge(output: Output, run: RunFolder, batch: Batch, config: RunConfig) -> dict[str, Any]:
    """Classify, and ask the judge; what it took.

    Raises:
        ConfigError: the judge is not to be asked like this.
    """
    from red_ray.escalation import judge_of, truth_of

    model = batch.model
    judge = judge_of(config, model, truth_of(batch.source, config, model))
    with (
        telling(output, "classifying") as (say, tell),
        asking(config, run, model, judge, tell) as asked,
    ):
        batch.classify_here(say, asked)
        counts = batch.parts.counts
        if counts.escalated and asked.pool.exhausted:
            output.note(
                f"the judge's budget is used up: {counts.escalated:,} texts were not asked about "
                "and say `escalate`; raise it, as --set judge.budget_calls=…, and run again"
            )
        return asked.facts()


def _print(
    console: Console,
    counts: BatchCounts,
    n_before: int,
    seconds: float,
    facts: dict[str, Any] | None,
) -> None:
    told = [f"{counts.accepted:,} with a label", f"{counts.none:,} that fit none"]
    if counts.escalated:
        told.append(f"{counts.escalated:,} that would ask the judge")
    if counts.abstained:
        told.append(f"{counts.abstained:,} on which the judge gave no result")
    told.append(f"{counts.errors:,} without a usable text")
    before = f" ({n_before:,} of them before)" if n_before else ""
    console.print(f"{counts.rows:,} rows{before} in {seconds:.1f} s: {', '.join(told)}")
    if facts is None:
        return
    answered = f"{counts.by_judge:,} by the judge"
    if counts.by_person:
        answered += f", {counts.by_person:,} by a person"
    line = f"answered {answered}; {told_of(facts)}"
    console.print(line, soft_wrap=True, markup=False, highlight=False)
