"""What people said of texts, as rows to train on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from red_ray.core.text import text_key
from red_ray.data.inputs import Inputs
from red_ray.data.prepare import LabelledRows, check_trainable


def of_this_run(
    inputs: Inputs, said: Iterable[tuple[str, str | None]]
) -> Iterator[tuple[str, str | None]]:
    """Of what people said over a ledger that projects share: what concerns this run.

    That is what they said of its texts, and texts to which they gave one of its labels.

    Args:
        inputs: rows of the files.
        said: texts and labels, None where none fits.
    """
    keys, labels = inputs.seen_keys, inputs.label_set
    return ((text, word) for text, word in said if word in labels or text_key(text) in keys)


def with_people(inputs: Inputs, said: Iterable[tuple[str, str | None]]) -> Inputs:
    """Let people's words outrank the files: a training row takes the label that a person gave.

    A text of the pool becomes a training row, and so does a text that stands in neither; where a
    person said that no label fits, the row is left out.

    Args:
        inputs: rows of the files.
        said: texts and labels, None where none fits.

    Raises:
        DataError: fewer than two labels are left.
    """
    by_key = {text_key(text): (text, label) for text, label in said}
    if not by_key:
        return inputs
    said_of = set(by_key)
    rows = dict(zip(inputs.train.texts, inputs.train.labels, strict=True))
    kept: dict[str, str] = {}
    n_changed = 0
    for text, label in rows.items():
        _, word = by_key.pop(text_key(text), (text, label))
        n_changed += word != label
        if word is not None:
            kept[text] = word
    pool = tuple(text for text in inputs.pool if text_key(text) not in by_key)
    more = {text: label for _, (text, label) in sorted(by_key.items()) if label is not None}
    train = LabelledRows((*kept, *more), (*kept.values(), *more.values()))
    judged = inputs.judged
    outranked = {text_key(text) for text in judged.texts} & said_of
    judged = judged.take(
        at for at, text in enumerate(judged.texts) if text_key(text) not in outranked
    )
    if not inputs.labels:
        check_trainable(train)
    note = f"people: {n_changed} training rows changed, {len(more)} more labelled"
    return replace(inputs, train=train, judged=judged, pool=pool, notes=(*inputs.notes, note))
