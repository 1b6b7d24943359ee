"""`red-ray classify`: a table of texts to a table of decisions."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from red_ray.cli.console import Output, guarded
from red_ray.cli.options import Json, RunPath
from red_ray.errors import OutputError
from red_ray.run_folder import RunFolder


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
        from red_ray.batch import BatchCounts, classify_table
        from red_ray.bundle import load_bundle

        model = load_bundle(folder.bundle)
        start = perf_counter()
        counts = BatchCounts(0, 0, 0, 0)
        with output.err.status("classifying") as status:
            for counts in classify_table(model, source, target, top_k=top_k):
                rate = counts.rows / (perf_counter() - start)
                status.update(f"{counts.rows:,} rows, {rate:,.0f} a second")
        seconds = perf_counter() - start
        output.result(asdict(counts) | {"bundle": model.bundle_id, "seconds": round(seconds, 3)})
        if not as_json:
            output.out.print(
                f"{counts.rows:,} rows in {seconds:.1f} s: {counts.accepted:,} with a label, "
                f"{counts.none:,} that fit none, {counts.errors:,} without a usable text"
            )
            output.out.print(f"written to {target}", soft_wrap=True, markup=False)
