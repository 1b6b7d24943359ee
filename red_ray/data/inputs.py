"""The rows of a run, from its files: read, cleaned, kept apart, every dropped row counted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from red_ray.config import RunConfig
from red_ray.core.text import text_key
from red_ray.data.demo import DemoCorpus
from red_ray.data.prepare import (
    DropCounts,
    HiddenLabels,
    LabelledRows,
    check_trainable,
    clean_labelled,
    clean_pool,
    weak_labels,
)
from red_ray.data.splits import sample_per_class, without_leaks
from red_ray.data.tables import Table, read_table
from red_ray.errors import DataError

NO_ROWS = LabelledRows((), ())

N_SHOWN = 3
"""Labels that a line names before it counts the rest."""


@dataclass(frozen=True, slots=True)
class TestRows:
    """Rows that only the scorecard touches.

    Attributes:
        rows: in scope, none of which stands in training or pool.
        out_of_scope: texts that fit no label.
        n_dropped: rows left out because they stand in training or pool.
        notes: one line for each thing that a user should know.
    """

    __test__ = False  # no test class, whatever pytest thinks of the name

    rows: LabelledRows
    out_of_scope: tuple[str, ...]
    n_dropped: int
    notes: tuple[str, ...]

    @property
    def keys(self) -> frozenset[str]:
        """Keys of all their texts."""
        return frozenset(text_key(text) for text in (*self.rows.texts, *self.out_of_scope))

    def without(self, seen_keys: frozenset[str]) -> TestRows:
        """Without the rows of these keys, which count as dropped."""
        kept, n_dropped = without_leaks(self.rows.texts, seen_keys)
        strange = tuple(text for text in self.out_of_scope if text_key(text) not in seen_keys)
        rows = self.rows.take(kept)
        return TestRows(rows, strange, self.n_dropped + n_dropped, self.notes)


@dataclass(frozen=True, slots=True)
class KnownRows:
    """Rows whose truth is known and from which no model learns.

    Attributes:
        rows: in scope.
        out_of_scope: texts that fit no label.
    """

    rows: LabelledRows
    out_of_scope: tuple[str, ...]

    @property
    def keys(self) -> frozenset[str]:
        """Keys of all their texts."""
        return frozenset(text_key(text) for text in (*self.rows.texts, *self.out_of_scope))

    @property
    def data_hash(self) -> str:
        """SHA-256 over the texts and labels, in their order."""
        pairs = [*zip(self.rows.texts, self.rows.labels, strict=True)]
        content = json.dumps([pairs, self.out_of_scope])
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Inputs:
    """The rows of a run.

    Attributes:
        train: labelled rows.
        pool: texts without labels.
        hidden: what the pool's file says of its labels, for a simulated judge and the scorecard.
        descriptions: of labels, by name.
        notes: one line for each thing that a user should know.
        calibration: rows that set thresholds and nothing else, or None.
        labels: names of labels that need no row: the judge finds their first examples.
        judged: more rows that were trained on, labelled by a judge for an earlier run or when
            labels changed.
    """

    train: LabelledRows
    pool: tuple[str, ...]
    hidden: HiddenLabels
    descriptions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    calibration: KnownRows | None = None
    labels: tuple[str, ...] = ()
    judged: LabelledRows = NO_ROWS

    @property
    def label_set(self) -> frozenset[str]:
        """All labels that the run has."""
        return frozenset({*self.train.labels, *self.judged.labels, *self.labels})

    @property
    def unseen(self) -> tuple[str, ...]:
        """Labels without a row, sorted."""
        return tuple(sorted(self.label_set - {*self.train.labels, *self.judged.labels}))

    @property
    def seen_keys(self) -> frozenset[str]:
        """Keys of all texts that have a say in the model: no test row may be among them."""
        texts = (*self.train.texts, *self.judged.texts, *self.pool)
        known = frozenset() if self.calibration is None else self.calibration.keys
        return known.union(map(text_key, texts))


def read_inputs(
    config: RunConfig, train: Path, pool: Path | None, descriptions: Path | None
) -> Inputs:
    """Read the rows to train on.

    With `samples_per_class`, the training rows that were not drawn join the pool, their labels
    hidden.

    Args:
        config: columns, longest text, samples per class, seed.
        train: table of labelled rows.
        pool: table of texts; a label column in it is hidden from the model.
        descriptions: table with the label column and a column `description`.

    Raises:
        DataError: a file cannot be used.
    """
    rows, counts = clean_labelled(_read(config, train, labels=True), max_chars=config.max_chars)
    notes = _lines("train", counts)
    texts: tuple[str, ...] = ()
    hidden = HiddenLabels({})
    if pool is not None:
        known = frozenset(text_key(text) for text in rows.texts)
        table = _read(config, pool, labels=False)
        texts, hidden, counts = clean_pool(table, max_chars=config.max_chars, known=known)
        notes += _lines("pool", counts)
        if not texts:
            notes.append("pool: no usable text, so there is nothing to ask a judge about")
    described = _read_descriptions(config, descriptions) if descriptions else {}
    inputs = draw_samples(config, Inputs(rows, texts, hidden, described))
    check_trainable(inputs.train)
    return replace(inputs, notes=(*notes, *_weak(inputs.train)))


def read_cold(config: RunConfig, descriptions: Path | None, pool: Path | None) -> Inputs:
    """Read the labels of a run that begins without labelled rows, and its pool.

    Args:
        config: columns and longest text.
        descriptions: table with the label column and, if it has one, a column `description`; None
            for a run whose labels come from elsewhere.
        pool: table of texts; a label column in it is hidden from the model.

    Raises:
        DataError: a file cannot be used.
    """
    labels: tuple[str, ...] = ()
    described: dict[str, str] = {}
    if descriptions is not None:
        labels, described = _read_labels(config, descriptions)
    notes: list[str] = []
    texts: tuple[str, ...] = ()
    hidden = HiddenLabels({})
    if pool is not None:
        table = _read(config, pool, labels=False)
        texts, hidden, counts = clean_pool(table, max_chars=config.max_chars, known=frozenset())
        notes += _lines("pool", counts)
    return Inputs(LabelledRows((), ()), texts, hidden, described, tuple(notes), labels=labels)


def draw_samples(config: RunConfig, inputs: Inputs) -> Inputs:
    """Draw `samples_per_class` rows of every label; the others join the pool, unlabelled.

    Args:
        config: samples per class and seed.
        inputs: with all training rows.
    """
    if config.samples_per_class is None:
        return inputs
    rows = inputs.train
    rng = np.random.default_rng([config.seed, 3])
    drawn = sample_per_class(rows.labels, config.samples_per_class, rng)
    left = rows.take(np.setdiff1d(np.arange(len(rows)), drawn))
    hidden = inputs.hidden.joined(left)
    if inputs.pool and not inputs.hidden:
        hidden = HiddenLabels({})  # of a pool whose labels are known in part, none is counted on
    return replace(inputs, train=rows.take(drawn), pool=(*left.texts, *inputs.pool), hidden=hidden)


def read_calibration(
    config: RunConfig,
    seen_keys: frozenset[str],
    labels: frozenset[str],
    *,
    calibration: Path,
    out_of_scope: Path | None,
) -> tuple[KnownRows, tuple[str, ...]]:
    """Read the rows that set thresholds and nothing else; arguments as of `read_test`.

    Returns:
        The rows, and one line for each thing that a user should know.

    Raises:
        DataError: a file cannot be used, or no row is left.
    """
    found = read_test(
        config,
        seen_keys,
        labels,
        test=calibration,
        out_of_scope=out_of_scope,
        name="calibration",
    )
    notes = found.notes
    if found.n_dropped:
        rows = "1 row" if found.n_dropped == 1 else f"{found.n_dropped} rows"
        notes += (f"calibration: dropped {rows}, as training, pool or test holds the text",)
    return KnownRows(found.rows, found.out_of_scope), notes


def with_calibration(
    config: RunConfig,
    inputs: Inputs,
    test: TestRows | None,
    calibration: Path,
    out_of_scope: Path | None,
) -> Inputs:
    """Add calibration rows to the rows of a run; see `read_calibration`.

    One that is a test row is dropped: a test row sets no threshold.
    """
    labels = inputs.label_set
    seen = inputs.seen_keys | (test.keys if test is not None else frozenset())
    known, notes = read_calibration(
        config, seen, labels, calibration=calibration, out_of_scope=out_of_scope
    )
    return replace(inputs, calibration=known, notes=(*inputs.notes, *notes))


def read_test(
    config: RunConfig,
    seen_keys: frozenset[str],
    labels: frozenset[str],
    *,
    test: Path,
    out_of_scope: Path | None = None,
    name: str = "test",
) -> TestRows:
    """Read the rows that only the scorecard touches.

    Args:
        config: columns and longest text.
        seen_keys: keys of the texts that training saw; such rows are dropped and counted.
        labels: labels that the model knows.
        test: table of labelled rows.
        out_of_scope: table of texts that fit no label.
        name: what the rows are called in notes and errors.

    Raises:
        DataError: a file cannot be used, or no row is left.
    """
    table = _read(config, test, labels=True)
    rows, counts = clean_labelled(table, max_chars=config.max_chars, keep_repeats=True)
    notes = _lines(name, counts)
    kept, n_dropped = without_leaks(rows.texts, seen_keys)
    if not len(kept):
        others = "calibration" if name == "test" else "test"
        where = f"training, pool or {others}"
        raise DataError(f"all {len(rows)} {name} rows stand in {where}; give other rows")
    rows = rows.take(kept)
    unknown = sorted(set(rows.labels) - labels)
    if unknown:
        n_rows = sum(label in set(unknown) for label in rows.labels)
        words = "row carries a label" if n_rows == 1 else "rows carry labels"
        count = "counts as an error" if n_rows == 1 else "count as errors"
        notes.append(
            f"{name}: {n_rows} {words} without a training row, and {count}: {some_of(unknown)}"
        )
    if out_of_scope is None:
        return TestRows(rows, (), n_dropped, tuple(notes))
    table = read_table(out_of_scope, text_column=config.text_column)
    strange, _, counts = clean_pool(table, max_chars=config.max_chars, known=seen_keys)
    return TestRows(rows, strange, n_dropped, (*notes, *_lines("out of scope", counts)))


def demo_inputs(corpus: DemoCorpus) -> tuple[Inputs, TestRows]:
    """The shipped corpus as a run's rows."""
    inputs = Inputs(corpus.train, corpus.pool, corpus.hidden, corpus.descriptions)
    return inputs, TestRows(corpus.test, corpus.oos, 0, ())


def _read(config: RunConfig, path: Path, *, labels: bool) -> Table:
    return read_table(
        path,
        text_column=config.text_column,
        label_column=config.label_column,
        label_required=labels,
        rows_required=labels,
    )


def _weak(rows: LabelledRows) -> list[str]:
    weak = weak_labels(rows.labels)
    if len(weak) == len(set(rows.labels)):
        raise DataError(
            f"each of the {len(weak)} labels has a single training row, so nothing can be held "
            "back to fit the router; give a label a second row, or raise samples_per_class"
        )
    if not weak:
        return []
    one = len(weak) == 1
    words = "label has a single row and stays" if one else "labels have a single row and stay"
    return [f"train: {len(weak)} {words} weak: {some_of(weak)}"]


def _read_descriptions(config: RunConfig, path: Path) -> dict[str, str]:
    table = read_table(
        path, text_column="description", label_column=config.label_column, text_setting=None
    )
    return _descriptions(path, zip(table.labels or (), table.texts, strict=True))


def _read_labels(config: RunConfig, path: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """The labels of a table, sorted, and the descriptions of those that have one."""
    table = read_table(
        path,
        text_column=config.label_column,
        label_column="description",
        label_required=False,
        text_setting="label_column",
    )
    told = table.labels or ("",) * len(table.texts)
    labels = tuple(sorted({(label or "").strip() for label in table.texts} - {""}))
    if len(labels) < 2:
        raise DataError(f"{str(path)!r} names fewer than two labels; give at least two")
    return labels, _descriptions(path, zip(table.texts, told, strict=True))


def _descriptions(path: Path, pairs: Iterable[tuple[str | None, str | None]]) -> dict[str, str]:
    """The description of each label that has one.

    Raises:
        DataError: a label has two.
    """
    described: dict[str, str] = {}
    for label, text in pairs:
        name = (label or "").strip()
        if name and text and described.setdefault(name, text) != text:
            raise DataError(f"{str(path)!r} describes the label {name!r} twice; leave one of them")
    return described


def _lines(where: str, counts: DropCounts) -> list[str]:
    return [f"{where}: {line}" for line in counts.lines()]


def some_of(labels: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    shown = ", ".join(labels[:N_SHOWN])
    more = len(labels) - N_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
