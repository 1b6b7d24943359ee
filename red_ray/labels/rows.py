"""A run's rows after a change of its labels: what it learned from and is measured by.

Its calibration rows are those that the change came to, `Change.known`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from red_ray.core.text import text_key
from red_ray.data.inputs import Inputs, KnownRows, TestRows
from red_ray.data.prepare import LabelledRows, Renaming
from red_ray.errors import DataError
from red_ray.run_folder import RunFolder
from red_ray.snapshot import Snapshot


def check_unseen(run: RunFolder, snapshot: Snapshot, texts: Sequence[str]) -> None:
    """Refuse examples that the run is measured by.

    Raises:
        DataError: one of them was tested or calibrated on.
    """
    kept = kept_apart(run, snapshot)
    n = sum(text_key(text) in kept for text in texts)
    if n:
        rows = "one example is a row" if n == 1 else f"{n} examples are rows"
        raise DataError(
            f"{rows} that the run was tested or calibrated on: what it is measured by it may not "
            "learn from; take them out"
        )


def kept_apart(run: RunFolder, snapshot: Snapshot) -> frozenset[str]:
    """Keys of the texts that the run was tested or calibrated on."""
    apart: list[str] = []
    known = snapshot.inputs.calibration
    if known is not None:
        apart += (*known.rows.texts, *known.out_of_scope)
    if snapshot.test is not None:
        apart += (*snapshot.test.rows.texts, *snapshot.test.out_of_scope)
    return run.tested() | frozenset(map(text_key, apart))


def with_learned(
    snapshot: Snapshot,
    rows: LabelledRows,
    *,
    judged: bool,
    descriptions: Mapping[str, str] | None = None,
) -> Snapshot:
    """With rows that the model learned from besides.

    Those that stand in the pool stay there, as in training: it tells what the traffic was like.

    Args:
        snapshot: before the change.
        rows: new ones, of any labels.
        judged: whether a judge labelled them, and not the user.
        descriptions: of labels that are new.
    """
    inputs = snapshot.inputs
    if judged:
        inputs = replace(inputs, judged=inputs.judged.joined(rows))
    else:
        inputs = replace(inputs, train=inputs.train.joined(rows))
    told = dict(inputs.descriptions) | dict(descriptions or {})
    return replace(snapshot, inputs=replace(inputs, descriptions=told))


def with_names(
    snapshot: Snapshot,
    names: Mapping[str, str],
    description: str | None,
    known: KnownRows | None,
) -> Snapshot:
    """With other names for some labels, everywhere.

    Args:
        snapshot: before the change.
        names: of the labels before, and what each is called now.
        description: of all of these; None keeps their own.
        known: calibration rows after the change.
    """
    changed = _named(snapshot, lambda _, label: names.get(label, label), known)
    inputs = changed.inputs
    told = {
        names.get(name, name): words for name, words in reversed(list(inputs.descriptions.items()))
    }
    if description is not None:
        told |= dict.fromkeys(names.values(), description)
    inputs = replace(
        inputs,
        descriptions=told,
        hidden=inputs.hidden.renamed(dict(names)),
        labels=_once(names.get(name, name) for name in inputs.labels),
    )
    return replace(changed, inputs=inputs)


def with_parts(
    snapshot: Snapshot,
    name: str,
    part_of: Mapping[str, str | None],
    descriptions: Mapping[str, str],
    *,
    known: KnownRows | None,
    judged: bool = False,
) -> Snapshot:
    """With the rows of a label under two others; those of no part leave.

    Args:
        snapshot: before the change.
        name: of the label.
        part_of: as of `labels.split`.
        descriptions: of the two, by name.
        known: calibration rows after the change.
        judged: whether a judge divided them: then they are the judge's, and no longer the user's.
    """
    changed = _named(
        snapshot,
        lambda text, label: part_of.get(text_key(text)) if label == name else label,
        known,
    )
    inputs = _with_judged(changed.inputs, descriptions) if judged else changed.inputs
    told = {one: words for one, words in inputs.descriptions.items() if one != name}
    told |= {one: words for one, words in descriptions.items() if words}
    # The rows of a part may all be the loop's, of which the ledger knows.
    others = (one for one in inputs.labels if one != name)
    inputs = replace(
        inputs,
        descriptions=told,
        hidden=inputs.hidden.renamed({name: None}),
        labels=_once((*others, *descriptions)),
    )
    return replace(changed, inputs=inputs)


def without_label(
    snapshot: Snapshot, name: str, *, keep_as_none: bool, known: KnownRows | None
) -> Snapshot:
    """Without the rows of a label; to be tested on as texts that fit none, if so.

    Args:
        snapshot: before the change.
        name: of the label.
        keep_as_none: whether its test rows count as out of scope.
        known: calibration rows after the change.
    """
    changed = _named(snapshot, lambda _, label: None if label == name else label, known)
    inputs, test = changed.inputs, changed.test
    inputs = replace(
        inputs,
        descriptions={one: words for one, words in inputs.descriptions.items() if one != name},
        hidden=inputs.hidden.renamed({name: None}),
        labels=tuple(one for one in inputs.labels if one != name),
    )
    if keep_as_none and test is not None and snapshot.test is not None:
        test = replace(test, out_of_scope=(*test.out_of_scope, *snapshot.test.rows.of(name)))
    return replace(changed, inputs=inputs, test=test)


def told_of_left(before: Snapshot, after: Snapshot, name: str) -> tuple[str, ...]:
    """One line where a split took rows by which the run is measured, as nobody said of which part
    they are; else none.
    """
    pairs = [
        (_n_tested(before) - _n_tested(after), "test row"),
        (_n_known(before) - _n_known(after), "calibration row"),
    ]
    left = [f"{n} {what}{'' if n == 1 else 's'}" for n, what in pairs if n]
    if not left:
        return ()
    return (
        f"{' and '.join(left)} of {name!r} left: nobody said of which part they are (a table, "
        "--rows, may name them)",
    )


def _n_tested(rows: Snapshot) -> int:
    return 0 if rows.test is None else len(rows.test.rows)


def _n_known(rows: Snapshot) -> int:
    return 0 if rows.inputs.calibration is None else len(rows.inputs.calibration.rows)


def _named(snapshot: Snapshot, named: Renaming, known: KnownRows | None) -> Snapshot:
    inputs, test = snapshot.inputs, snapshot.test
    if test is not None:
        test = TestRows(test.rows.named(named), test.out_of_scope, test.n_dropped, test.notes)
    train, judged = inputs.train.named(named), inputs.judged.named(named)
    return Snapshot(replace(inputs, train=train, judged=judged, calibration=known), test)


def _with_judged(inputs: Inputs, labels: Iterable[str]) -> Inputs:
    """With the user's rows of some labels as the judge's, before the others of the judge."""
    theirs, rows = set(labels), inputs.train
    moved = [at for at, label in enumerate(rows.labels) if label in theirs]
    left = [at for at, label in enumerate(rows.labels) if label not in theirs]
    judged = rows.take(moved).joined(inputs.judged)
    return replace(inputs, train=rows.take(left), judged=judged)


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
