"""The corpus that ships with the package: support messages of an invented shop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np

from red_ray.core.text import text_key
from red_ray.data.prepare import HiddenLabels, LabelledRows, clean_labelled
from red_ray.data.splits import assert_disjoint, sample_per_class
from red_ray.data.tables import Table, read_table

_TRAIN_PER_LABEL = 10  # few enough that the judge has something to add
_TEST_PER_LABEL = 12  # the demo's accuracy is then known to about 4 points
_MAX_CHARS = 10_000  # nothing here is near it


@dataclass(frozen=True, slots=True)
class DemoCorpus:
    """Rows for the whole loop; no text stands in two places.

    `train`, `test`: labelled rows. `pool`: texts without a label, some of which fit none.
    `hidden`: what a simulated judge knows of the pool; None for a text that fits no label.
    `oos`: texts that fit no label and are not in the pool. `descriptions`: a sentence per label.
    """

    train: LabelledRows
    pool: tuple[str, ...]
    hidden: HiddenLabels
    test: LabelledRows
    oos: tuple[str, ...]
    descriptions: Mapping[str, str]


def load_demo(seed: int) -> DemoCorpus:
    """Draw the demo's splits: 12 test and 10 train rows per label, the rest is the pool.

    Half of the texts that fit no label go into the pool, half are `oos`.

    Args:
        seed: decides every draw.

    Raises:
        DataError: the shipped files are damaged.
    """
    rng = np.random.default_rng(seed)
    rows, _ = clean_labelled(_table("messages.csv", "text", "label"), max_chars=_MAX_CHARS)
    test, rest = _draw(rows, _TEST_PER_LABEL, rng)
    train, left = _draw(rest, _TRAIN_PER_LABEL, rng)
    none = rng.permutation(_texts("none.csv"))
    n_pool = len(none) // 2
    pool = tuple(rng.permutation([*left.texts, *none[:n_pool]]).tolist())
    oos = tuple(none[n_pool:].tolist())
    assert_disjoint({"train": train.texts, "pool": pool, "test": test.texts, "oos": oos})
    hidden = {text_key(text): label for text, label in zip(left.texts, left.labels, strict=True)}
    return DemoCorpus(train, pool, HiddenLabels(hidden), test, oos, _descriptions())


def _draw(
    rows: LabelledRows, per_label: int, rng: np.random.Generator
) -> tuple[LabelledRows, LabelledRows]:
    drawn = sample_per_class(rows.labels, per_label, rng)
    left = np.setdiff1d(np.arange(len(rows)), drawn)
    return rows.take(drawn), rows.take(left)


def _descriptions() -> dict[str, str]:
    table = _table("labels.csv", "description", "label")
    pairs = zip(table.labels or (), table.texts, strict=True)
    return {label: text for label, text in pairs if label and text}


def _texts(name: str) -> list[str]:
    return [text for text in _table(name, "text").texts if text]


def _table(name: str, text_column: str, label_column: str | None = None) -> Table:
    with as_file(files("red_ray.data").joinpath("demo", name)) as path:
        return read_table(path, text_column=text_column, label_column=label_column)
