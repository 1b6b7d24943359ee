"""`red-ray drift`: whether recent texts are as those were that the run was made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from red_ray.cli.console import Output, guarded, notes
from red_ray.cli.options import Json, RunPath
from red_ray.cli.show_drift import show_drift
from red_ray.core.text import text_key
from red_ray.data.prepare import clean_pool
from red_ray.data.tables import read_table
from red_ray.errors import DataError
from red_ray.run_folder import RunFolder
from red_ray.working_copy import at_place

if TYPE_CHECKING:
    from red_ray.config import RunConfig


@dataclass(frozen=True, slots=True)
class Recent:
    """The usable texts of a file, each once.

    Attributes:
        texts: as written.
        labels: of those that have one, by `text_key`.
        notes: one line for each thing that a user should know.
    """

    texts: tuple[str, ...]
    labels: Mapping[str, str]
    notes: tuple[str, ...]


def drift(
    run: RunPath,
    recent: Annotated[
        Path,
        typer.Option(
            help="Recent texts: csv, tsv, jsonl, parquet, xlsx or a folder of parquet. Labels in "
            "it give the accuracy, too."
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Texts to hold them against.  [default: the run's pool, else its calibration and "
            "test rows, else its training rows, cross-fitted]"
        ),
    ] = None,
    level: Annotated[
        float, typer.Option(help="Chance of a false alarm in a whole report, at most.")
    ] = 0.01,
    min_ratio: Annotated[
        float, typer.Option(help="Factor that a share must grow or shrink by, to matter.")
    ] = 1.5,
    min_change: Annotated[
        float, typer.Option(help="Share of all texts that a change must come to, to matter.")
    ] = 0.002,
    as_json: Json = False,
) -> None:
    """Say whether recent texts have drifted, and which experts need a refit.

    Label shares, novelty, new topics, and what is escalated against what was promised.
    """
    output = Output(as_json=as_json)
    with guarded(output), at_place(run) as place:
        from red_ray.evaluation.drift_report import DriftSettings

        settings = DriftSettings(level=level, min_ratio=min_ratio, min_change=min_change)
        folder = RunFolder.open(place)
        from red_ray.bundle import load_bundle
        from red_ray.encoding import open_encoder
        from red_ray.evaluation.drift import find_drift
        from red_ray.evaluation.drift_run import reference_of, rows_of

        model = load_bundle(folder.bundle)
        found = read_recent(model.config, recent, "recent")
        held = read_recent(model.config, reference, "reference").texts if reference else None
        encoder = open_encoder(model.encoder_config)
        model.check_encoder(encoder)
        rows = rows_of(folder)
        words = f"scoring {len(found.texts):,} recent texts and what they are held against"
        with output.doing(words):
            report, _ = find_drift(
                model,
                found.texts,
                reference_of(model, rows, held, encoder),
                labels=found.labels,
                settings=settings,
                encoder=encoder,
            )
        notes(output, (*found.notes, *report.notes))
        result = {"run": folder.name, "bundle": model.bundle_id, **report.to_dict()}
        output.result(result)
        if not output.as_json:
            show_drift(output.out, folder.name, report)


def read_recent(config: RunConfig, path: Path, name: str) -> Recent:
    """The usable texts of a table.

    Raises:
        DataError: it cannot be read, or holds none.
    """
    table = read_table(
        path,
        text_column=config.text_column,
        label_column=config.label_column,
        label_required=False,
    )
    texts, labels, counts = clean_pool(table, max_chars=config.max_chars, known=frozenset())
    if not texts:
        raise DataError(f"{str(path)!r} holds no usable text: {'; '.join(counts.lines())}")
    pairs = ((text_key(text), labels.of(text)) for text in texts)
    return Recent(
        texts,
        {key: label for key, label in pairs if label is not None},
        tuple(f"{name}: {line}" for line in counts.lines()),
    )
