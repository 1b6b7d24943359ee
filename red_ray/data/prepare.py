"""From the rows of a file to rows that can be used, with a count of every row left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields

from red_ray.core.text import normalise, text_key
from red_ray.data.tables import Table
from red_ray.errors import DataError

_REASONS = {
    "missing": "no text (null, NaN, or a line that cannot be read)",
    "empty": "an empty text",
    "too_long": "a text longer than max_chars",
    "unlabelled": "no label",
    "repeated": "a text that stands there before",
    "conflicting": "a text that stands there before with another label; the first was kept",
    "known": "a text that is a training row",
}


Renaming = Callable[[str, str], str | None]
"""From a row's text and label to its label after a change; None where it has none any more."""


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Usable rows: no text twice, every text with its label; both in the order of the file."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Iterable[int]) -> LabelledRows:
        """The rows at these positions, in this order."""
        chosen = tuple(rows)
        return LabelledRows(
            tuple(self.texts[row] for row in chosen), tuple(self.labels[row] for row in chosen)
        )

    def joined(self, more: LabelledRows) -> LabelledRows:
        """With others behind them."""
        return LabelledRows((*self.texts, *more.texts), (*self.labels, *more.labels))

    def named(self, renaming: Renaming) -> LabelledRows:
        """The rows under other labels; those that get none leave."""
        pairs = zip(self.texts, self.labels, strict=True)
        renamed = [(text, renaming(text, label)) for text, label in pairs]
        kept = [(text, label) for text, label in renamed if label is not None]
        return LabelledRows(tuple(text for text, _ in kept), tuple(label for _, label in kept))

    def of(self, name: str) -> tuple[str, ...]:
        """The texts of a label."""
        pairs = zip(self.texts, self.labels, strict=True)
        return tuple(text for text, label in pairs if label == name)


@dataclass(frozen=True, slots=True)
class DropCounts:
    """How many rows were left out, by the first reason that held.

    `missing`: no text at all. `empty`: nothing but white space. `too_long`: over `max_chars`.
    `unlabelled`: a labelled row without a label. `repeated`: the text of an earlier row, and
    its label. `conflicting`: the text of an earlier row with another label. `known`: a pool
    row whose text is a training row.
    """

    missing: int = 0
    empty: int = 0
    too_long: int = 0
    unlabelled: int = 0
    repeated: int = 0
    conflicting: int = 0
    known: int = 0

    @property
    def total(self) -> int:
        """All rows left out."""
        return sum(getattr(self, field.name) for field in fields(self))

    def lines(self) -> list[str]:
        """One short line for each reason that held; no line shows a text."""
        counts = {field.name: getattr(self, field.name) for field in fields(self)}
        return [
            f"dropped {n} {'row' if n == 1 else 'rows'}: {_REASONS[name]}"
            for name, n in counts.items()
            if n
        ]


@dataclass(frozen=True, slots=True, init=False, repr=False)
class HiddenLabels:
    """The labels of pool rows, apart from their texts: only a simulated judge may look.

    Args:
        by_key: label by `text_key`.
    """

    _by_key: dict[str, str]

    def __init__(self, by_key: Mapping[str, str]) -> None:
        object.__setattr__(self, "_by_key", dict(by_key))

    def of(self, text: str) -> str | None:
        """The hidden label of `text`, None where it has none."""
        return self._by_key.get(text_key(text))

    @classmethod
    def of_texts(cls, pairs: Iterable[tuple[str, str]]) -> HiddenLabels:
        """From texts and their labels."""
        return cls({text_key(text): label for text, label in pairs})

    def joined(self, rows: LabelledRows) -> HiddenLabels:
        """With the labels of training rows, about which the judge is asked now and then."""
        known = zip(map(text_key, rows.texts), rows.labels, strict=True)
        return HiddenLabels({**self._by_key, **dict(known)})

    def renamed(self, names: Mapping[str, str | None]) -> HiddenLabels:
        """With other names for some labels; None where no label is true any more."""
        named = ((key, names.get(label, label)) for key, label in self._by_key.items())
        return HiddenLabels({key: label for key, label in named if label is not None})

    def __len__(self) -> int:
        return len(self._by_key)

    def __repr__(self) -> str:
        return f"HiddenLabels(n_texts={len(self)})"


def clean_labelled(
    table: Table, *, max_chars: int, keep_repeats: bool = False
) -> tuple[LabelledRows, DropCounts]:
    """Keep the usable rows of a labelled table: train, test or calibration.

    A text counts as a repeat by `text_key`; of several the first is kept, even if their labels
    differ. Texts stay as written, labels are stripped.

    Args:
        table: texts and labels as read.
        max_chars: longest text that is kept, in characters.
        keep_repeats: whether repeats stay, as in test rows: a published test set is scored whole.

    Raises:
        DataError: the table has no labels, or no row is left.
    """
    if table.labels is None:
        raise DataError("the table has no labels; set label_column to its column of labels")
    drops: Counter[str] = Counter()
    kept: list[tuple[str, str]] = []
    label_of: dict[str, str] = {}
    for row, text, key in _usable(table.texts, max_chars, drops):
        label = _stripped(table.labels[row])
        if not label:
            drops["unlabelled"] += 1
        elif key in label_of and not keep_repeats:
            drops["repeated" if label_of[key] == label else "conflicting"] += 1
        else:
            label_of[key] = label
            kept.append((text, label))
    counts = DropCounts(**drops)
    if not kept:
        raise DataError(f"no usable row is left; {'; '.join(counts.lines()) or 'there was none'}")
    texts, labels = zip(*kept, strict=True)
    return LabelledRows(texts, labels), counts


def clean_pool(
    table: Table, *, max_chars: int, known: frozenset[str]
) -> tuple[tuple[str, ...], HiddenLabels, DropCounts]:
    """Keep the usable texts of a pool, and hide its labels where it has any.

    Args:
        table: texts as read, with or without labels; a row without a label is no fault here.
        max_chars: longest text that is kept, in characters.
        known: text keys of the training rows.

    Returns:
        The texts, possibly none; the labels of those that have one; what was left out.
    """
    drops: Counter[str] = Counter()
    kept: dict[str, str] = {}
    hidden: dict[str, str] = {}
    for row, text, key in _usable(table.texts, max_chars, drops):
        label = _stripped(table.labels[row]) if table.labels is not None else ""
        if key in known:
            drops["known"] += 1
        elif key in kept:
            drops["conflicting" if label and label != hidden.get(key, label) else "repeated"] += 1
        else:
            kept[key] = text
            if label:
                hidden[key] = label
    return tuple(kept.values()), HiddenLabels(hidden), DropCounts(**drops)


def check_trainable(rows: LabelledRows) -> None:
    """Refuse a training set that leaves nothing to tell apart.

    Raises:
        DataError: it holds fewer than two labels.
    """
    labels = sorted(set(rows.labels))
    if len(labels) < 2:
        found = f"only the label {labels[0]!r}" if labels else "no label"
        raise DataError(f"{len(rows)} training rows hold {found}; give rows of at least two labels")


def weak_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """The labels that have a single example, sorted; nothing can be held back from them."""
    return tuple(sorted(label for label, n in Counter(labels).items() if n == 1))


def _usable(
    texts: tuple[str | None, ...], max_chars: int, drops: Counter[str]
) -> Iterator[tuple[int, str, str]]:
    """Row number, text and key of the rows that have a usable text; the others are counted."""
    for row, text in enumerate(texts):
        if text is None:
            drops["missing"] += 1
        elif len(text) > max_chars:
            drops["too_long"] += 1
        elif not normalise(text):
            drops["empty"] += 1
        else:
            yield row, text, text_key(text)


def _stripped(label: str | None) -> str:
    return (label or "").strip()
