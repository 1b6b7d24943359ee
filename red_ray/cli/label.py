"""`red-ray label`: changes of a run's labels that touch only the experts concerned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from red_ray.cli.changing import ChangingRun, changing_run, refuse_bundle, telling_of_cut_off
from red_ray.cli.console import Output, guarded, notes
from red_ray.cli.escalating import asking, settings_of, telling, told_of
from red_ray.cli.options import Json, RunPath, Set, read_as, without_reading
from red_ray.cli.show_label import show_past, show_undo
from red_ray.core.text import text_key
from red_ray.data.prepare import HiddenLabels, LabelledRows, clean_labelled, clean_pool
from red_ray.data.tables import read_table
from red_ray.errors import ConfigError, DataError
from red_ray.history import FOLDER as HISTORY
from red_ray.run_folder import RunFolder
from red_ray.working_copy import at_place

if TYPE_CHECKING:
    from red_ray.config import RunConfig
    from red_ray.labels.asking import Asker, Found

label = typer.Typer(
    no_args_is_help=True,
    help="Change a run's labels; only the experts concerned are fitted anew.",
)

Description = Annotated[str | None, typer.Option(help="What a judge is told of the label.")]
WhomToAsk = Annotated[
    str | None,
    typer.Option(
        "--judge",
        help="Whom to ask in place of the run's judge: ollama:MODEL, openai:MODEL@BASE_URL, "
        "neighbours, or simulated:0.9 (for tests; needs the pool's true labels).",
        metavar="SPEC",
    ),
]


@label.command()
def add(
    run: RunPath,
    name: Annotated[str, typer.Option(help="Of the new label.")],
    examples: Annotated[
        Path | None, typer.Option(help="Table of its texts; every row counts.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="One of its texts; may repeat.", metavar="T")
    ] = None,
    description: Description = None,
    pool: Annotated[
        Path | None,
        typer.Option(help="Without examples: texts to ask the judge about.  [default: the run's]"),
    ] = None,
    judge: WhomToAsk = None,
    calls: Annotated[int, typer.Option(min=1, help="Questions to the judge at most.")] = 40,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Add a label: from examples, or from its name and texts that the judge says are of it."""
    output = Output(as_json=as_json)
    with guarded(output):
        given = bool(examples or text)
        reading, settings = without_reading(assignments)
        if given and (judge or pool or settings):
            raise ConfigError(
                "--judge, --pool and what --set says of a judge are for a label without examples: "
                "drop them, or --examples and --text"
            )
        with changing_run(output, run) as change:
            from red_ray.labels.checks import new_name

            about = description or ""
            name, cautions = new_name(change.run.model, name), list[str]()
            read = read_as(change.run.model.config, reading)
            if given:
                texts = _texts(change, read, name, examples, text or ())
            else:
                found = _proposed(
                    *(change, read, name, about),
                    file=pool,
                    judge=judge,
                    n_calls=calls,
                    settings=settings,
                )
                texts, cautions = found.texts, [found.caution] if found.caution else []
            _add(change, name, texts, about, judged=not given, cautions=cautions)


def _add(
    change: ChangingRun,
    name: str,
    texts: tuple[str, ...],
    description: str,
    *,
    judged: bool,
    cautions: Sequence[str],
) -> None:
    """Add a label from examples that are there, and keep it."""
    from red_ray import labels
    from red_ray.labels.rows import check_unseen, with_learned

    state = change.run
    check_unseen(state.folder, state.rows, texts)
    done = labels.add(
        state.model,
        state.crossfit,
        name,
        texts,
        description=description,
        judged=judged,
        known=state.rows.inputs.calibration,
        encoder=change.encoder,
    )
    done = replace(done, notes=(*cautions, *done.notes))
    rows = with_learned(
        state.rows,
        LabelledRows(texts, (name,) * len(texts)),
        judged=judged,
        descriptions={name: description} if description else None,
    )
    change.keep(done, rows, f"add {name!r}", frozenset(map(text_key, texts)))


@label.command()
def merge(
    run: RunPath,
    names: Annotated[list[str], typer.Argument(help="Labels, at least two.", metavar="LABEL…")],
    into: Annotated[str, typer.Option(help="What they become; may be one of them.")],
    description: Description = None,
    as_json: Json = False,
) -> None:
    """Make several labels one."""
    output = Output(as_json=as_json)
    with guarded(output), changing_run(output, run) as change:
        from red_ray import labels
        from red_ray.labels.rows import with_names

        state = change.run
        done = labels.merge(
            state.model,
            state.crossfit,
            names,
            into,
            description=description,
            known=state.rows.inputs.calibration,
            encoder=change.encoder,
        )
        into = into.strip()
        rows = with_names(state.rows, dict.fromkeys(names, into), description, done.known)
        told = " and ".join(repr(name) for name in names)
        change.keep(done, rows, f"merge {told} into {into!r}")


@label.command()
def split(
    run: RunPath,
    name: Annotated[str, typer.Argument(help="The label.", metavar="LABEL")],
    into: Annotated[list[str], typer.Option(help="One of the two that it becomes; give it twice.")],
    rows: Annotated[
        Path | None, typer.Option(help="Table of the label's texts with their new labels.")
    ] = None,
    description: Annotated[
        list[str] | None,
        typer.Option(help="What a judge is told of the two, in the order of --into."),
    ] = None,
    judge: WhomToAsk = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Make one label two: by a table that says which row is which, or by the judge."""
    output = Output(as_json=as_json)
    with guarded(output):
        if len(into) != 2 or into[0].strip() == into[1].strip():
            raise ConfigError("a split makes two labels: give --into twice, with two names")
        reading, settings = without_reading(assignments)
        if rows is not None and (judge or settings):
            raise ConfigError("--rows says which row is which: drop --judge and --set, or --rows")
        first, second = (one.strip() for one in into)
        words = (*(description or ()), "", "")[:2]
        with changing_run(output, run) as change:
            from red_ray import labels
            from red_ray.labels.rows import told_of_left, with_parts

            state = change.run
            if rows is not None:
                read = read_as(state.model.config, reading)
                part_of = _parts(change, read, rows, (first, second))
            else:
                part_of = _judged_parts(
                    change, name, (first, second), words, judge=judge, assignments=settings
                )
            done = labels.split(
                state.model,
                state.crossfit,
                name,
                (first, second),
                part_of,
                descriptions=words,
                judged=rows is None,
                known=state.rows.inputs.calibration,
                encoder=change.encoder,
            )
            after = with_parts(
                state.rows,
                name,
                part_of,
                {first: words[0], second: words[1]},
                known=done.known,
                judged=rows is None,
            )
            told = told_of_left(state.rows, after, name)
            done = replace(done, notes=(*done.notes, *told))
            change.keep(done, after, f"split {name!r} into {first!r} and {second!r}")


@label.command()
def rename(
    run: RunPath,
    old: Annotated[str, typer.Argument(help="The label.", metavar="OLD")],
    new: Annotated[str, typer.Argument(help="Its new name.", metavar="NEW")],
    description: Description = None,
    as_json: Json = False,
) -> None:
    """Give a label another name; nothing is fitted, and no answer changes but for the name."""
    output = Output(as_json=as_json)
    with guarded(output), changing_run(output, run) as change:
        from red_ray import labels
        from red_ray.labels.rows import with_names

        state = change.run
        known = state.rows.inputs.calibration
        done = labels.rename(
            state.model, state.crossfit, old, new, description=description, known=known
        )
        rows = with_names(state.rows, {old: new.strip()}, description, done.known)
        change.keep(done, rows, f"rename {old!r} to {new.strip()!r}")


@label.command()
def retire(
    run: RunPath,
    name: Annotated[str, typer.Argument(help="The label.", metavar="LABEL")],
    keep_as_none: Annotated[
        bool,
        typer.Option("--keep-as-none", help="Its rows stay, as texts that fit no label."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Remove a label with its rows."""
    output = Output(as_json=as_json)
    with guarded(output), changing_run(output, run) as change:
        from red_ray import labels
        from red_ray.labels.rows import without_label

        state = change.run
        done = labels.retire(
            state.model,
            state.crossfit,
            name,
            keep_as_none=keep_as_none,
            known=state.rows.inputs.calibration,
            encoder=change.encoder,
        )
        rows = without_label(state.rows, name, keep_as_none=keep_as_none, known=done.known)
        change.keep(done, rows, f"retire {name!r}")


@label.command()
def undo(run: RunPath, as_json: Json = False) -> None:
    """Bring back the run as it was before the last change of its labels, bundle and all."""
    output = Output(as_json=as_json)
    with guarded(output), at_place(run) as place:
        from red_ray.labels.of_run import undo as put_back

        refuse_bundle(place)
        with telling_of_cut_off(output, place):
            folder = RunFolder.settled(place)
        if not (folder.path / HISTORY).is_dir():  # else also a damaged bundle is gone back from
            RunFolder.open(place)
        with folder.changing():
            left, (entry, n_left) = _goals(folder), put_back(folder)
        folder.save()
        show_undo(output, folder.name, entry, n_left, goals=(left, _goals(folder)))


@label.command()
def history(run: RunPath, as_json: Json = False) -> None:
    """List the changes that `undo` would take back, the last first."""
    output = Output(as_json=as_json)
    with guarded(output), at_place(run) as place:
        from red_ray.labels.past import past_of

        refuse_bundle(place)
        with telling_of_cut_off(output, place):
            folder = RunFolder.open(place)
        show_past(output, folder.name, past_of(folder))


def _goals(folder: RunFolder) -> dict[str, float]:
    """What the run's thresholds must keep; nothing where there are none, or nothing can be read."""
    with suppress(DataError):
        return dict((folder.read_json("details.json").get("thresholds") or {}).get("goals", {}))
    return {}


def _texts(
    change: ChangingRun, config: RunConfig, name: str, file: Path | None, given: Sequence[str]
) -> tuple[str, ...]:
    """The examples of a table and of the command line, cleaned as training rows are.

    Raises:
        DataError: the table cannot be read, or says of a text that it is of another label.
    """
    from red_ray.data.tables import Table

    read: tuple[str | None, ...] = ()
    if file is not None:
        found = read_table(
            file,
            text_column=config.text_column,
            label_column=config.label_column,
            label_required=False,
        )
        _refuse_others(file, config.label_column, name, found.labels or ())
        read = found.texts
    table = Table(texts=(*read, *given), labels=None)
    texts, _, counts = clean_pool(table, max_chars=config.max_chars, known=frozenset())
    notes(change.output, [f"examples: {line}" for line in counts.lines()])
    return texts


def _refuse_others(file: Path, column: str, name: str, labels: Sequence[str | None]) -> None:
    said = [(label or "").strip() for label in labels]
    others = [label for label in said if label not in ("", name)]
    if others:
        rows = "1 row is" if len(others) == 1 else f"{len(others)} rows are"
        raise DataError(
            f"by the column {column!r} of {str(file)!r} {rows} of another label than {name!r}, the "
            f"first of {others[0]!r}, and each would become an example of it: take them out, or "
            "the column"
        )


def _proposed(
    change: ChangingRun,
    read: RunConfig,
    name: str,
    description: str,
    *,
    file: Path | None,
    judge: str | None,
    n_calls: int,
    settings: list[str],
) -> Found:
    """Pool texts that the judge says are of the label."""
    from red_ray.labels.asking import from_pool
    from red_ray.labels.rows import kept_apart

    state = change.run
    known = kept_apart(state.folder, state.rows)
    known |= frozenset(map(text_key, state.model.example_texts))
    pool, hidden = state.rows.inputs.pool, state.rows.inputs.hidden
    if file is not None:
        table = read_table(
            file,
            text_column=read.text_column,
            label_column=read.label_column,
            label_required=False,
        )
        pool, hidden, _ = clean_pool(table, max_chars=read.max_chars, known=known)
    pool = tuple(one for one in pool if text_key(one) not in known)
    command = f"red-ray label add {state.folder.name} --name {name}"
    otherwise = "; or give examples: --examples F or --text T"
    with _asker(change, command, judge, settings, hidden, otherwise) as asker:
        found = from_pool(
            state.model,
            name,
            description,
            pool,
            asker,
            n_calls=n_calls,
            encoder=change.encoder,
        )
    if found.n_unasked:
        change.output.note(asker.unasked(found.n_unasked))
    change.output.note(f"the judge gave {len(found.texts)} of {found.n_asked} texts the label")
    return found


def _parts(
    change: ChangingRun, config: RunConfig, file: Path, into: tuple[str, str]
) -> dict[str, str | None]:
    """Which text is of which of two labels, by a table; other texts and labels are refused."""
    table = read_table(
        file,
        text_column=config.text_column,
        label_column=config.label_column,
        label_required=True,
        rows_required=True,
    )
    rows, counts = clean_labelled(table, max_chars=config.max_chars)
    notes(change.output, [f"rows: {line}" for line in counts.lines()])
    strange = sorted(set(rows.labels) - set(into))
    if strange:
        raise DataError(
            f"{str(file)!r} names the label {strange[0]!r}, and the split makes {into[0]!r} and "
            f"{into[1]!r}"
        )
    return dict(zip(map(text_key, rows.texts), rows.labels, strict=True))


def _judged_parts(
    change: ChangingRun,
    name: str,
    into: tuple[str, str],
    words: Sequence[str],
    *,
    judge: str | None,
    assignments: list[str] | None,
) -> dict[str, str | None]:
    """The same by the judge."""
    from red_ray.labels.asking import parts_of
    from red_ray.labels.checks import split_names

    state = change.run
    at, into = split_names(state.model, name, into)
    pairs = zip(state.model.example_texts, state.model.example_labels, strict=True)
    texts = [text for text, row in pairs if row == at]
    command = f"red-ray label split {state.folder.name} {name} --into … --into …"
    otherwise = "; or say which row is which: --rows F"
    with _asker(change, command, judge, assignments, None, otherwise) as asker:
        part_of, n_none = parts_of(texts, into, words, asker)
    if n_none:
        change.output.note(f"the judge gave {n_none} of {len(texts)} rows neither label")
    return part_of


@contextmanager
def _asker(
    change: ChangingRun,
    command: str,
    judge: str | None,
    assignments: list[str] | None,
    hidden: HiddenLabels | None,
    otherwise: str = "",
) -> Iterator[Asker]:
    """The run's judge or another one, over the run's ledger: nothing is paid twice.

    Raises:
        ConfigError: nobody is named to be asked, or one that cannot know a new label.
    """
    from red_ray.escalation import judge_of
    from red_ray.labels.asking import Asker

    state = change.run
    config = settings_of(state.folder, judge, assignments, command, otherwise)
    if config.judge.spec == "neighbours":
        raise ConfigError(
            "judge 'neighbours' votes with the rows of a label, and a new one has none yet: ask "
            f"another judge (--judge ollama:MODEL){otherwise}"
        )
    asked = judge_of(config, state.model, hidden or None)
    with (
        telling(change.output, "asking the judge") as (_, tell),
        asking(config, state.folder, state.model, asked, tell) as opened,
    ):
        name = f"labels:{config.judge.max_answer_tokens}"
        yield Asker(
            ask=lambda some: opened.loop.submit(opened.pool.validate(some, asked_in=name)).result(),
            judge_name=asked.name,
            top_k=config.judge.top_k,
            n_examples=config.judge.examples_per_candidate,
            unasked=opened.unasked,
        )
        change.output.note(f"asked {told_of(opened.facts())}")
