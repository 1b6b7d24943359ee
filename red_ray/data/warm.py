"""The examples of a trained model as rows of another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from red_ray.core.text import text_key
from red_ray.data.inputs import Inputs, some_of
from red_ray.data.prepare import LabelledRows


@dataclass(frozen=True, slots=True)
class KnownExamples:
    """What a bundle knows.

    Attributes:
        name: where it is, for messages.
        labels: names of its labels.
        descriptions: of labels, by name.
        by_user: rows that the user labelled.
        by_judge: rows that a judge labelled.
    """

    name: str
    labels: tuple[str, ...]
    descriptions: Mapping[str, str]
    by_user: LabelledRows
    by_judge: LabelledRows


def warm_started(inputs: Inputs, known: KnownExamples) -> Inputs:
    """Let the examples of a model join the rows of a run, where it has their labels.

    A text that a file labels keeps that label; one of the pool is no longer asked about. A run
    that names no labels has those of the model.

    Args:
        inputs: rows of the files.
        known: of the model.
    """
    labels = inputs.label_set or frozenset(known.labels)
    own = {text_key(text) for text in inputs.train.texts}
    by_user, by_judge = (_joining(rows, labels, own) for rows in (known.by_user, known.by_judge))
    joined = {text_key(text) for text in (*by_user.texts, *by_judge.texts)}
    pool = tuple(text for text in inputs.pool if text_key(text) not in joined)
    described = {name: text for name, text in known.descriptions.items() if name in labels}
    return replace(
        inputs,
        train=inputs.train.joined(by_user),
        judged=inputs.judged.joined(by_judge),
        pool=pool,
        labels=tuple(sorted({*inputs.labels, *(() if inputs.label_set else labels)})),
        descriptions=described | dict(inputs.descriptions),
        notes=(
            *inputs.notes,
            *_told(known, labels, (by_user, by_judge)),
            *_told_of_own(inputs.train, known, labels),
        ),
    )


def _joining(rows: LabelledRows, labels: frozenset[str], own: set[str]) -> LabelledRows:
    pairs = enumerate(zip(rows.texts, rows.labels, strict=True))
    return rows.take(
        at for at, (text, label) in pairs if label in labels and text_key(text) not in own
    )


def _told_of_own(
    train: LabelledRows, known: KnownExamples, labels: frozenset[str]
) -> tuple[str, ...]:
    """A line where examples stand in the files already."""
    own = dict(zip(map(text_key, train.texts), train.labels, strict=True))
    rows = known.by_user.joined(known.by_judge)
    pairs = zip(map(text_key, rows.texts), rows.labels, strict=True)
    there = [own[key] == label for key, label in pairs if label in labels and key in own]
    if not there:
        return ()
    n_other = there.count(False)
    other = f", {n_other} of them under another label, which stays" if n_other else ""
    n = "1 example" if len(there) == 1 else f"{len(there)} examples"
    return (f"warm start: {n} not taken over, as the run's own rows have these texts{other}",)


def _told(
    known: KnownExamples, labels: frozenset[str], taken: Sequence[LabelledRows]
) -> tuple[str, ...]:
    """What was taken over, and what not."""
    by_user, by_judge = (len(rows) for rows in taken)
    names = {label for rows in taken for label in rows.labels}
    told = [
        f"warm start from {known.name!r}: {by_user + by_judge} examples of {len(names)} labels "
        f"joined ({by_user} labelled by the user, {by_judge} by a judge)"
    ]
    strange = sorted(set(known.labels) - labels)
    if strange:
        shown = some_of(strange)
        told.append(f"warm start: not taken over, as this run has no such label: {shown}")
    return tuple(told)
