"""The rows of the seed's table: two published sets, and the seed's own short texts.

The seed publishes no test rows for its short texts: it scores on its unlabelled pool. But its
three train files are samples of one corpus, so that some texts of the pool of `train_30` have a
label in another file. Half of those are the pool here, the other half the test rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.data import data_folder
from red_ray.config import RunConfig, load_config
from red_ray.core.text import text_key
from red_ray.data.inputs import Inputs, TestRows, read_inputs, read_test
from red_ray.data.prepare import HiddenLabels, LabelledRows, clean_labelled, clean_pool
from red_ray.data.splits import assert_disjoint
from red_ray.data.tables import read_table

SEED_TEXTS = "seed_short_text"
N_SEED_TEXTS = 30
"""The only rows per class of the short texts that leave labelled texts to test on."""


def has_honest_test(name: str, per_label: int) -> bool:
    """Whether there are labelled rows that neither training nor pool holds."""
    return name != SEED_TEXTS or per_label == N_SEED_TEXTS


def load(
    name: str, per_label: int, seed: int, overrides: dict[str, object]
) -> tuple[RunConfig, Inputs, TestRows]:
    """Rows of a data set: so many per label, or all of a label that has fewer; pool and test.

    The pool is what is left of train; where CLINC150 leaves nothing, its `val.csv`.
    """
    folder = data_folder() / name
    settings: dict[str, object] = {"seed": seed, "samples_per_class": per_label}
    config = load_config(None, settings | overrides)
    if not has_honest_test(name, per_label):
        raise ValueError(f"{name} at {per_label} per label has no honest test set")
    if name == SEED_TEXTS:
        return config, *_seed_texts(config, folder)
    pool = folder / "val.csv" if (name, per_label) == ("clinc150", 100) else None
    inputs = read_inputs(config, folder / "train.csv", pool, None)
    labels = frozenset(inputs.train.labels)
    return config, inputs, read_test(config, inputs.seen_keys, labels, test=folder / "test.csv")


def labels_elsewhere(texts: Iterable[str], others: Sequence[LabelledRows]) -> LabelledRows:
    """Those of `texts` that other files label, left out where two files disagree."""
    found: dict[str, set[str]] = defaultdict(set)
    for rows in others:
        for text, label in zip(rows.texts, rows.labels, strict=True):
            found[text_key(text)].add(label)
    pairs = [(text, found[text_key(text)]) for text in texts if text_key(text) in found]
    agreed = [(text, *labels) for text, labels in pairs if len(labels) == 1]
    return LabelledRows(tuple(text for text, _ in agreed), tuple(label for _, label in agreed))


def halved(rows: LabelledRows) -> tuple[LabelledRows, LabelledRows]:
    """Pool and test, by the last bit of each text's hash: no order and no seed changes it."""
    odd = [int(text_key(text), 16) % 2 == 1 for text in rows.texts]
    pool = [row for row, is_odd in enumerate(odd) if not is_odd]
    return rows.take(pool), rows.take(row for row, is_odd in enumerate(odd) if is_odd)


def _seed_texts(config: RunConfig, folder: Path) -> tuple[Inputs, TestRows]:
    inputs = read_inputs(config, folder / f"train_{N_SEED_TEXTS}.csv", None, None)
    unlabelled = read_table(folder / f"unlabeled_{N_SEED_TEXTS}.csv", text_column="text")
    texts, _, _ = clean_pool(unlabelled, max_chars=config.max_chars, known=inputs.seen_keys)
    others = [_labelled(config, folder / f"train_{n}.csv") for n in (50, 100)]
    pool, test = halved(labels_elsewhere(texts, others))
    assert_disjoint({"train": inputs.train.texts, "pool": pool.texts, "test": test.texts})
    hidden = HiddenLabels.of_texts(zip(pool.texts, pool.labels, strict=True))
    return replace(inputs, pool=pool.texts, hidden=hidden), TestRows(test, (), 0, ())


def _labelled(config: RunConfig, path: Path) -> LabelledRows:
    table = read_table(path, text_column="text", label_column="label")
    return clean_labelled(table, max_chars=config.max_chars)[0]
