"""A run's rows after a change of its labels: what it learned from and is measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from red_ray.core.text import text_key
from red_ray.data.inputs import KnownRows, TestRows
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


def with_examples(
    snapshot: Snapshot, name: str, texts: Sequence[str], description: str = ""
) -> Snapshot:
    """With more training rows of a label; texts of the pool leave it."""
    inputs = snapshot.inputs
    keys = frozenset(map(text_key, texts))
    train = LabelledRows(
        (*inputs.train.texts, *texts), (*inputs.train.labels, *[name] * len(texts))
    )
    described = dict(inputs.descriptions) | ({name: description} if description else {})
    pool = tuple(text for text in inputs.pool if text_key(text) not in keys)
    return replace(snapshot, inputs=replace(inputs, train=train, pool=pool, descriptions=described))


def with_names(snapshot: Snapshot, names: Mapping[str, str], description: str | None) -> Snapshot:
    """With other names for some labels, everywhere."""
    changed = _named(snapshot, lambda _, label: names.get(label, label))
    inputs = changed.inputs
    told = {
        names.get(name, name): words for name, words in reversed(list(inputs.descriptions.items()))
    }
    if description is not None:
        told |= dict.fromkeys(names.values(), description)
    hidden = inputs.hidden.renamed(dict(names))
    return replace(changed, inputs=replace(inputs, descriptions=told, hidden=hidden))


def with_parts(
    snapshot: Snapshot,
    name: str,
    part_of: Mapping[str, str | None],
    descriptions: Mapping[str, str],
) -> Snapshot:
    """With the rows of a label under two others; those of no part leave."""
    changed = _named(
        snapshot, lambda text, label: part_of.get(text_key(text)) if label == name else label
    )
    inputs = changed.inputs
    told = {one: words for one, words in inputs.descriptions.items() if one != name}
    told |= {one: words for one, words in descriptions.items() if words}
    hidden = inputs.hidden.renamed({name: None})
    return replace(changed, inputs=replace(inputs, descriptions=told, hidden=hidden))


def without_label(snapshot: Snapshot, name: str, *, keep_as_none: bool) -> Snapshot:
    """Without the rows of a label; to be calibrated and tested on as texts that fit none, if so."""
    changed = _named(snapshot, lambda _, label: None if label == name else label)
    inputs, test = changed.inputs, changed.test
    told = {one: words for one, words in inputs.descriptions.items() if one != name}
    hidden = inputs.hidden.renamed({name: None})
    changed = replace(changed, inputs=replace(inputs, descriptions=told, hidden=hidden))
    if not keep_as_none:
        return changed
    known, before = changed.inputs.calibration, snapshot.inputs.calibration
    if known is not None and before is not None:
        strange = (*known.out_of_scope, *before.rows.of(name))
        known = replace(known, out_of_scope=strange)
    if test is not None and snapshot.test is not None:
        test = replace(test, out_of_scope=(*test.out_of_scope, *snapshot.test.rows.of(name)))
    return replace(changed, inputs=replace(changed.inputs, calibration=known), test=test)


def _named(snapshot: Snapshot, named: Renaming) -> Snapshot:
    inputs, test = snapshot.inputs, snapshot.test
    known = inputs.calibration
    if known is not None:
        known = KnownRows(known.rows.named(named), known.out_of_scope)
    if test is not None:
        test = TestRows(test.rows.named(named), test.out_of_scope, test.n_dropped, test.notes)
    train = inputs.train.named(named)
    return Snapshot(replace(inputs, train=train, calibration=known), test)
