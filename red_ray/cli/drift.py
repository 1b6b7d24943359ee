"""`red-ray drift`: whether recent texts are as those were that the run was made for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from red_ray.cli.changing import ChangingRun, changing_run
from red_ray.cli.console import Output, guarded, notes
from red_ray.cli.options import Json, RunPath, Set, read_as, without_reading
from red_ray.cli.show_drift import show_drift
from red_ray.core.text import text_key
from red_ray.data.prepare import HiddenLabels, clean_pool
from red_ray.data.tables import read_table
from red_ray.errors import ConfigError, DataError
from red_ray.run_folder import RunFolder
from red_ray.working_copy import at_place

if TYPE_CHECKING:
    from red_ray.config import RunConfig
    from red_ray.evaluation.drift_report import DriftReport, DriftSettings
    from red_ray.evaluation.drift_rows import DriftRows
    from red_ray.evaluation.drift_run import RunRows
    from red_ray.judges import Judge
    from red_ray.model import RedModel, TextEncoder


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


@dataclass(frozen=True, slots=True)
class Refit:
    """How the experts to refit are taught: by the file's labels, or by a judge.

    Attributes:
        judge: whom to ask; None takes the file's labels.
        n_calls: questions at most.
        assignments: of judge settings.
    """

    judge: str | None
    n_calls: int
    assignments: list[str] | None

    @property
    def asks(self) -> bool:
        """Whether a judge is asked."""
        return self.judge is not None


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
    refit: Annotated[
        bool,
        typer.Option(
            "--refit", help="Refit the experts named, on labels of the file or of --judge."
        ),
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            help="With --refit: whom to ask about the most doubtful texts near these experts: "
            "ollama:MODEL, openai:MODEL@BASE_URL, neighbours, or simulated:0.9 (for tests; needs "
            "a column of labels).",
            metavar="SPEC",
        ),
    ] = None,
    calls: Annotated[int, typer.Option(min=1, help="Questions to the judge at most.")] = 100,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Say whether recent texts have drifted, and which experts need a refit.

    Label shares, novelty, new topics, and what is escalated against what was promised.
    """
    output = Output(as_json=as_json)
    with guarded(output):
        from red_ray.evaluation.drift_report import DriftSettings

        settings = DriftSettings(level=level, min_ratio=min_ratio, min_change=min_change)
        reading, of_judge = without_reading(assignments)
        if not refit and (judge or of_judge):
            raise ConfigError("--judge and --set are for a refit: add --refit, or drop them")
        how = Refit(judge, calls, of_judge) if refit else None
        if how is not None and of_judge and not how.asks:
            raise ConfigError("--set is about a judge: add --judge SPEC")
        with _opened(output, run, how) as opened:
            read = read_as(opened.model.config, reading)
            _drift(output, opened, read, (recent, reference), settings, how)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A run, and what changes it where that is wanted."""

    folder: RunFolder
    model: RedModel
    rows: RunRows
    encoder: TextEncoder
    change: ChangingRun | None = None


@contextmanager
def _opened(output: Output, run: str, how: Refit | None) -> Iterator[_Opened]:
    from red_ray.evaluation.drift_run import rows_of

    if how is not None:
        with changing_run(output, run) as change:
            folder, model = change.run.folder, change.run.model
            yield _Opened(folder, model, rows_of(folder, model), change.encoder, change)
        return
    with at_place(run) as place:
        folder = RunFolder.open(place)
        from red_ray.bundle import load_bundle

        model = load_bundle(folder.bundle)
        yield _Opened(folder, model, rows_of(folder, model), model.open_encoder())


def _drift(
    output: Output,
    opened: _Opened,
    read: RunConfig,
    files: tuple[Path, Path | None],
    settings: DriftSettings,
    how: Refit | None,
) -> None:
    from red_ray.evaluation.drift import find_drift
    from red_ray.evaluation.drift_run import reference_of

    model, name = opened.model, opened.folder.name
    found = read_recent(read, files[0], "recent")
    judge = _teacher(opened, read, how, found, files[0])
    held = read_recent(read, files[1], "reference").texts if files[1] else None
    words = f"scoring {len(found.texts):,} recent texts and what they are held against"
    with output.doing(words):
        beside = reference_of(model, opened.rows, held, opened.encoder)
        report, scored = find_drift(
            model,
            found.texts,
            beside,
            labels=found.labels,
            settings=settings,
            encoder=opened.encoder,
        )
    notes(output, (*found.notes, *report.notes))
    result: dict[str, Any] = {"run": name, "bundle": model.bundle_id, **report.to_dict()}
    if not output.as_json:
        show_drift(output.out, name, report)
    if how is not None and opened.change is not None:
        result["refit"] = _refitted(output, opened.change, how, judge, found, report, scored)
    output.result(result)


def _teacher(
    opened: _Opened, read: RunConfig, how: Refit | None, found: Recent, path: Path
) -> tuple[RunConfig, Judge] | None:
    """The judge that labels texts for a refit, before anything is scored; None where none does.

    Raises:
        ConfigError: a refit has nothing to learn from, or the judge cannot be asked.
    """
    if how is None or opened.change is None:
        return None
    if how.judge is not None:
        from red_ray.cli.refitting import judge_for

        return judge_for(opened.change, how.judge, how.assignments, HiddenLabels(found.labels))
    if not found.labels:
        raise ConfigError(
            f"--refit needs labels: give {str(path)!r} a column "
            f"{read.label_column!r}, for some of its texts at least, or say whom to ask (--judge "
            "ollama:MODEL --calls 100)"
        )
    return None


def _refitted(
    output: Output,
    change: ChangingRun,
    how: Refit,
    judge: tuple[RunConfig, Judge] | None,
    found: Recent,
    report: DriftReport,
    scored: DriftRows,
) -> dict[str, Any] | None:
    """Refit the experts of a report; None where it names none."""
    from red_ray.cli.refitting import ask_about, put_lessons
    from red_ray.evaluation.drift_refit import expert_positions, lessons, most_doubtful
    from red_ray.labels.rows import kept_apart

    state = change.run
    positions = expert_positions(state.model, report)
    if not positions:
        output.note("no expert needs a refit, and nothing was changed")
        return None
    apart = kept_apart(state.folder, state.rows)
    apart |= frozenset(map(text_key, state.model.example_texts))  # these it has learned
    labels: Mapping[str, str | None] = found.labels
    of_use = [text_key(text) for text in found.texts]
    n_apart = sum(key in apart and (how.asks or key in labels) for key in of_use)
    if judge is not None:
        rows = most_doubtful(state.model, positions, scored, apart, how.n_calls)
        labels = ask_about(change, judge, scored.take(rows)) if len(rows) else {}
    texts = [text for text in scored.texts if text_key(text) not in apart]
    taught = lessons(state.model, positions, texts, labels)
    return put_lessons(output, change, positions, taught, judged=how.asks, n_apart=n_apart)


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
