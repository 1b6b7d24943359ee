"""The rows of a task: what is learned from, what chooses, and what is reported on, kept apart."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.matrix.config import TaskConfig
from red_ray.core.text import text_key
from red_ray.data.splits import sample_per_class, stratified_split
from red_ray.data.tables import iter_tables
from red_ray.errors import DataError

Ints = NDArray[np.int64]
Text = tuple[str, ...]
"""A single text, or the two of a pair."""

DRAW = 20_000
"""Rows of a table read at a time."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts and the indices of their labels, shape (n_rows,)."""

    texts: tuple[Text, ...]
    labels: Ints

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, positions: Sequence[int] | Ints) -> Rows:
        """Some of them, in the order given."""
        return Rows(tuple(self.texts[at] for at in positions), self.labels[np.asarray(positions)])


@dataclass(frozen=True, slots=True)
class Task:
    """What a method may see.

    Attributes:
        name: of the task.
        labels: their names, sorted, or in the order that the configuration gives.
        words: what a language model may answer for each, shape (n_labels,).
        instruction: what it is told to do.
        columns: names of the text columns: one, or two of a pair.
        train: rows to learn from.
        select: rows to choose by, held back of train; a method that chooses nothing learns from
            `everything`.
    """

    name: str
    labels: tuple[str, ...]
    words: tuple[str, ...]
    instruction: str
    columns: tuple[str, ...]
    train: Rows
    select: Rows

    @property
    def everything(self) -> Rows:
        """Train and the rows held back of it."""
        return Rows(
            (*self.train.texts, *self.select.texts),
            np.concatenate([self.train.labels, self.select.labels]),
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """A task with the rows that it is reported on.

    Attributes:
        task: what a method may see.
        report: the rows of the figures.
        positive: of two labels the index of the one that is sought; None with more labels.
        n_leaks: report rows left out, as they stand in the train table too.
        report_key: SHA-256 of texts and labels of `report`, by which its uses are counted.
        train_key: the same of train and select.
    """

    task: Task
    report: Rows
    positive: int | None
    n_leaks: int
    report_key: str
    train_key: str


def joined(text: Text, columns: Sequence[str] = ()) -> str:
    """A text as one string; a pair with the names of its columns before each."""
    if len(text) == 1:
        return text[0]
    return "\n".join(f"{name}: {part}" for name, part in zip(columns, text, strict=True))


def load_task(name: str, config: TaskConfig, seed: int) -> Loaded:
    """Read a task and draw its rows; those of the report are the same for every seed.

    Raises:
        DataError: there is no such data, or too little of it.
    """
    train, report = _read(config, config.train), _read(config, config.report)
    labels = config.labels or tuple(sorted({label for _, label in train}))
    strange = sorted({label for _, label in report} - set(labels))
    if strange or len(labels) < 2:
        raise DataError(
            f"task {name!r}: {config.report} has labels that {config.train} lacks: {strange}"
            if strange
            else f"task {name!r}: {config.train} has one label, {labels[0]!r}"
        )
    known = {_key(text) for text, _ in train}
    kept = [row for row in report if _key(row[0]) not in known]
    train = list({_key(text): (text, label) for text, label in reversed(train)}.values())[::-1]
    shown = _drawn(_rows(kept, labels), config.n_report, np.random.default_rng(0))
    rng = np.random.default_rng([seed, 7])
    rows = _sampled(_rows(train, labels), labels, config, rng)
    rest, held = stratified_split([labels[at] for at in rows.labels], config.select_fraction, rng)
    task = Task(
        name=name,
        labels=labels,
        words=tuple(config.words.get(label, label) for label in labels),
        instruction=config.instruction,
        columns=config.text,
        train=rows.take(rest),
        select=rows.take(held),
    )
    return Loaded(
        task=task,
        report=shown,
        positive=_positive(config, labels),
        n_leaks=len(report) - len(kept),
        report_key=_digest(shown, labels),
        train_key=_digest(task.everything, labels),
    )


def _positive(config: TaskConfig, labels: tuple[str, ...]) -> int | None:
    if len(labels) != 2:
        return None
    if config.positive is not None and config.positive not in labels:
        raise DataError(f"positive: {config.positive!r} is no label; labels: {labels}")
    return labels.index(config.positive) if config.positive is not None else 1


def _sampled(
    rows: Rows, labels: tuple[str, ...], config: TaskConfig, rng: np.random.Generator
) -> Rows:
    if config.per_label is not None:
        names = [labels[at] for at in rows.labels]
        return rows.take(sample_per_class(names, config.per_label, rng))
    return _drawn(rows, config.n_train, rng)


def _drawn(rows: Rows, n: int | None, rng: np.random.Generator) -> Rows:
    """So many rows, each label's share kept; all where there are no more."""
    if n is None or n >= len(rows):
        return rows
    _, held = stratified_split(list(map(str, rows.labels)), n / len(rows), rng)
    return rows.take(held)


def _rows(pairs: Sequence[tuple[Text, str]], labels: tuple[str, ...]) -> Rows:
    index = {label: at for at, label in enumerate(labels)}
    found = [(text, index[label]) for text, label in pairs if label in index]
    return Rows(tuple(text for text, _ in found), np.array([at for _, at in found], np.int64))


def _key(text: Text) -> str:
    return text_key("\x1f".join(text))


def _digest(rows: Rows, labels: tuple[str, ...]) -> str:
    named = [[*text, labels[at]] for text, at in zip(rows.texts, rows.labels, strict=True)]
    return hashlib.sha256(json.dumps(named, ensure_ascii=False).encode()).hexdigest()


def _read(config: TaskConfig, part: str) -> list[tuple[Text, str]]:
    """The rows of a table or of a hub's split that have texts and a label."""
    columns = [*config.text, config.label]
    if config.hub is not None:
        found = _from_hub(config.hub, part)
    else:
        path = _folder(config.path or "") / part
        try:
            read = list(iter_tables(path, text_column=config.text[0], chunk_rows=DRAW))
        except OSError as error:
            raise DataError(f"no table at {str(path)!r}: {error}") from error
        found = pa.concat_tables(read).to_pylist()
    if found and not set(columns) <= set(found[0]):
        lacking = sorted(set(columns) - set(found[0]))
        raise DataError(f"{part} lacks the columns {lacking}; it has {sorted(found[0])}")
    rows = [(tuple(row[name] for name in config.text), row[config.label]) for row in found]
    return [
        (tuple(map(str, text)), _name(label, config.labels))
        for text, label in rows
        if all(text) and label not in (None, "", -1)  # -1: a hub's test split without labels
    ]


def _name(label: object, names: tuple[str, ...]) -> str:
    if isinstance(label, int) and 0 <= label < len(names):
        return names[label]
    return str(label)


def _folder(path: str) -> Path:
    """Below RED_RAY_DATA, where it is not absolute."""
    from benchmarks.data import data_folder

    return Path(path) if os.path.isabs(path) else data_folder() / path


def _from_hub(name: str, split: str) -> list[dict[str, object]]:
    from datasets import load_dataset

    data, _, configuration = name.partition(":")
    try:
        return list(load_dataset(data, configuration or None, split=split))
    except Exception as error:
        raise DataError(f"no split {split!r} of {name!r} from a hub: {error}") from error
