"""What a reader of a matrix must be warned of, as data: each one sentence that stands alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from benchmarks.matrix.compare import Comparison, Held, held
from benchmarks.matrix.config import Column
from benchmarks.matrix.intervals import mean_interval, signed
from benchmarks.matrix.results import CellResult, Matrix
from benchmarks.matrix.tasks import Loaded, joined
from red_ray.core.text import text_key
from red_ray.errors import DataError

CONSTANT = ("majority", "prior")
CHOOSING = ("lasso", "fine_tune", "lora")
"""Methods that choose an epoch or a strength on rows held back."""

WORTH_SEEING = 0.05
"""Points of accuracy by which a user would choose; rows that show less are few."""

MOST_UNREADABLE, MOSTLY_UNREADABLE = 0.01, 0.5
ONE_SIDED, ONE_SIDED_GAP = 0.25, 0.5
"""A label answered on so much more of the rows than it is true of; or so large a balance gap."""

FASTER_ALONE = 10.0
"""A text alone is not so many times faster than in a batch; seconds told as ms are 1,000 times."""


@dataclass(frozen=True, slots=True)
class Caution:
    """A warning.

    Attributes:
        kind: one word, for those who filter.
        task: it is about, empty where it is about all.
        column: it is about, empty where it is about all.
        sentence: stands alone.
    """

    kind: str
    task: str
    column: str
    sentence: str


def cautions(matrix: Matrix, compared: Mapping[str, Comparison]) -> tuple[Caution, ...]:
    """All warnings of a matrix, by task."""
    found: list[Caution] = [*_holes(matrix), *_one_seed(matrix)]
    for task, comparison in compared.items():
        columns = _held(matrix, task, comparison)
        cells = [one for one in matrix.results if one.cell.task == task and not one.is_hole]
        found += _refused(task, comparison)
        found += _small_n(matrix, comparison, columns)
        found += _same_rows(matrix, task)
        found += _same_answers(matrix, task, columns)
        found += _reused(matrix, task, cells)
        found += _selection(task, cells)
        found += _measuring(task, cells)
        for column in columns:
            stated = matrix.config.column(column.column)
            found += _seeds(matrix, task, stated, column)
            found += _quality(task, stated, column)
            # A constant takes no longer for many texts than for one: nothing is wrong with that.
            found += [] if stated.method in CONSTANT else _units(task, column)
    return tuple(found)


class Side(NamedTuple):
    """How one-sided answers are, means over the seeds; an unreadable answer is no label's.

    Attributes:
        label: answered on most more of the rows than it is true of.
        surplus: by what share of the rows.
        gap: |recall - specificity|; None where there are not two labels.
    """

    label: str
    surplus: float
    gap: float | None

    @property
    def is_one_sided(self) -> bool:
        """Whether either is too much."""
        return self.surplus >= ONE_SIDED or (self.gap is not None and self.gap >= ONE_SIDED_GAP)


def side(column: Held) -> Side:
    """How one-sided a column's answers are."""
    labels = sorted(set(column.predictions[0].true) | _answered(column))
    surplus = [_surplus(column, label) for label in labels]
    at = int(np.argmax(surplus))
    found = [cell.figures["binary"] for cell in column.cells]
    gaps = [float(one["balance_gap"]) for one in found if one is not None]
    gap = float(np.mean(gaps)) if len(gaps) == len(found) else None
    return Side(labels[at], float(surplus[at]), gap)


def check_apart(loaded: Loaded) -> None:
    """See that nothing is learned from or chosen on what is reported on.

    Raises:
        DataError: a text of train or of the rows held back stands in the report, or a row held
            back in train; or nothing is reported on.
    """
    if not len(loaded.report):
        raise DataError(f"task {loaded.task.name!r} has no row to report on that has a known label")
    parts = {
        name: {text_key(joined(text, loaded.task.columns)) for text in rows.texts}
        for name, rows in (
            ("train", loaded.task.train),
            ("select", loaded.task.select),
            ("report", loaded.report),
        )
    }
    for one, other in (("select", "report"), ("train", "report"), ("train", "select")):
        shared = len(parts[one] & parts[other])
        if shared:
            raise DataError(
                f"task {loaded.task.name!r}: {shared!r} texts of {one!r} stand in {other!r} too; "
                "the rows that choose and those that report must be others"
            )


def _held(matrix: Matrix, task: str, comparison: Comparison) -> list[Held]:
    found = [held(matrix, task, name) for name in comparison.accuracy]
    return [one for one in found if one is not None]


def _holes(matrix: Matrix) -> Iterator[Caution]:
    seeds: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for cell, why in matrix.holes:
        seeds[cell.task, cell.column, why].append(cell.seed)
    for (task, column, why), found in seeds.items():
        kind = why.partition(":")[0]
        kind = kind if kind in ("mislabelled", "stale", "unusable") else "hole"
        told = f"seed{'' if len(found) == 1 else 's'} {', '.join(map(str, found))}"
        yield Caution(kind, task, column, f"{column} on {task} has no figures of {told}: {why}.")


def _refused(task: str, comparison: Comparison) -> Iterator[Caution]:
    for column, why in comparison.refused.items():
        yield Caution("denominator", task, column, f"{why}.")


def _small_n(matrix: Matrix, comparison: Comparison, columns: Sequence[Held]) -> Iterator[Caution]:
    """Of the columns that could be chosen: that a model without an answer is last ranks nothing."""
    names = {one.column for one in columns if _could_be_chosen(matrix, one)}
    seen = comparison.detectable(names)
    if seen is None:
        return
    pairs = [one for one in comparison.pairs if one.a in names and one.b in names]
    ranked = any(one.told_apart for one in pairs)
    if ranked and seen < WORTH_SEEING:
        return
    task, n = comparison.task, len(comparison.pairs)
    told = f"{comparison.n:,} report rows of {task} show a difference of {100 * seen:.1f} points"
    told += f" with a chance of 80 % (median pair, corrected for {n} comparisons)"
    rest = "smaller ones stay open"
    if not ranked:
        left = " (majority, prior, stand-ins and columns mostly without an answer left out)"
        rest = "they tell apart no two columns" + left * (len(names) < len(columns))
    yield Caution("small_n", task, "", f"{told}; {rest}.")


def _same_rows(matrix: Matrix, task: str) -> Iterator[Caution]:
    stated = matrix.config.tasks[task]
    several = len(stated.seeds or matrix.config.seeds) > 1
    if stated.per_label is None and stated.n_train is None and several:
        told = f"Every seed of {task} learns from all rows of train: seeds differ in the rows held "
        told += "back and in the start of a training, so that they say nothing of a method without "
        told += "either; `per_label` or `n_train` would draw rows for each."
        yield Caution("same_rows", task, "", told)


def _same_answers(matrix: Matrix, task: str, columns: Sequence[Held]) -> Iterator[Caution]:
    """Two columns that say the same of everything are one model, not two that agree."""
    stated = {one.column: matrix.config.column(one.column) for one in columns}
    own = [one for one in columns if stated[one.column].method not in CONSTANT]
    for a, b in combinations(own, 2):
        said_a, said_b = (
            {
                cell.cell.seed: said.answered
                for cell, said in zip(x.cells, x.predictions, strict=True)
            }
            for x in (a, b)
        )
        both = said_a.keys() & said_b.keys()
        readable = any(label for seed in both for label in said_a[seed])
        if readable and all(said_a[seed] == said_b[seed] for seed in both):
            told = f"{a.column} and {b.column} gave the same answer to every row of {task}"
            yield Caution("same_answers", task, "", f"{told}: here they are one model.")


def _could_be_chosen(matrix: Matrix, column: Held) -> bool:
    stated = matrix.config.column(column.column)
    return (
        stated.method not in CONSTANT
        and not stated.stand_in
        and float(column.unreadable.mean()) < MOSTLY_UNREADABLE
    )


def _reused(matrix: Matrix, task: str, cells: Sequence[CellResult]) -> Iterator[Caution]:
    for key in sorted({cell.figures["report_key"] for cell in cells}):
        uses = matrix.uses.get(key, 0)
        if uses > 1:
            yield Caution(
                "reused",
                task,
                "",
                f"The report rows of {task} were reported on by {uses} matrices, this one "
                "included: what was chosen after an earlier look is favoured by it.",
            )


def _selection(task: str, cells: Sequence[CellResult]) -> Iterator[Caution]:
    for cell in cells:
        figures, column = cell.figures, cell.cell.column
        where = f"{column} on {task}, seed {cell.cell.seed},"
        if figures["report_key"] == figures["train_key"]:
            told = f"{where} learned from the very rows that it reports on."
            yield Caution("selection", task, column, told)
        elif cell.method in CHOOSING and not figures.get("n_select"):
            told = f"{where} had no rows held back of train to choose by: on what was it chosen?"
            yield Caution("selection", task, column, told)


def _measuring(task: str, cells: Sequence[CellResult]) -> Iterator[Caution]:
    for what in ("device", "machine"):
        # Older cells do not tell their machine.
        found = _by_value([one for one in cells if what in one.figures], itemgetter(what))
        if len(found) > 1:
            told = "; ".join(f"{one}: {', '.join(names)}" for one, names in found.items())
            yield Caution(
                "devices",
                task,
                "",
                f"Latency, throughput and memory on {task} are of several {what}s and say nothing "
                f"of the methods alone: {told}.",
            )
    for name in sorted({name for cell in cells for name in cell.figures["versions"]}):
        found = _by_value(cells, lambda figures, name=name: figures["versions"].get(name))
        if len(found) > 1:
            told = "; ".join(f"{one}: {', '.join(names)}" for one, names in found.items())
            yield Caution("versions", task, "", f"{task} ran with several {name}: {told}.")
    batches = _by_value(
        cells,
        lambda figures: (
            f"{figures['latency_ms']['n']} texts one by one, "
            f"{figures['throughput_per_s']['texts']} in batches of "
            f"{figures['throughput_per_s']['batch_size']}"
        ),
    )
    if len(batches) > 1:
        told = "; ".join(f"{how}: {', '.join(names)}" for how, names in batches.items())
        yield Caution("unequal", task, "", f"Times on {task} were not measured alike: {told}.")


def _by_value(cells: Sequence[CellResult], of: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for cell in cells:
        names = found.setdefault(str(of(cell.figures)), [])
        names += [] if cell.cell.column in names else [cell.cell.column]
    return found


def _one_seed(matrix: Matrix) -> Iterator[Caution]:
    n_seeds = Counter((cell.task, cell.column) for cell in matrix.config.cells)
    alone = [f"{column} on {task}" for (task, column), n in n_seeds.items() if n == 1]
    if alone:
        who = "all columns" if len(alone) == len(n_seeds) else ", ".join(alone)
        told = f"One seed was asked for of {who}: the intervals hold for these trainings alone."
        yield Caution("seeds", "", "", told)


def _seeds(matrix: Matrix, task: str, stated: Column, column: Held) -> Iterator[Caution]:
    asked, got = matrix.config.seeds_of(task, stated), column.seeds
    if len(got) < len(asked):
        told = f"{column.column} on {task} stands on {len(got)} of the {len(asked)} seeds asked for"
        yield Caution("seeds", task, column.column, f"{told}.")


def _quality(task: str, stated: Column, column: Held) -> Iterator[Caution]:
    if stated.method not in CONSTANT:
        yield from _majority(task, column)
        yield from _sided(task, column)
    yield from _unreadable(task, column)


def _majority(task: str, column: Held) -> Iterator[Caution]:
    """Paired with "always train's most frequent label" on the same rows."""
    true = np.array(column.predictions[0].true)
    always = np.stack([true == cell.figures["majority"]["label"] for cell in column.cells])
    rng = np.random.default_rng(0)
    gain = mean_interval(column.right.astype(float) - always.astype(float), rng=rng)
    low, high = gain.interval
    if low > 0:
        return
    told = "is below" if high < 0 else "is not shown to be above"
    yield Caution(
        "majority",
        task,
        column.column,
        f"{column.column} on {task} {told} always saying train's most frequent label, which is "
        f"right on {100 * always.mean():.1f} %: {signed(gain.value)} points "
        f"({signed(low)} to {signed(high)}).",
    )


def _sided(task: str, column: Held) -> Iterator[Caution]:
    found = side(column)
    if not found.is_one_sided:
        return
    label, surplus, gap = found
    told = f"{column.column} on {task} answers one-sidedly: {label!r} on {100 * surplus:.0f} points"
    told += " more of the rows than it is true of"
    told += "" if gap is None else f" (balance gap {gap:.2f})"
    yield Caution("one_sided", task, column.column, f"{told}.")


def _unreadable(task: str, column: Held) -> Iterator[Caution]:
    share = column.unreadable.mean()
    if share <= MOST_UNREADABLE:
        return
    low, high = mean_interval(column.unreadable, rng=np.random.default_rng(0)).interval
    yield Caution(
        "unreadable",
        task,
        column.column,
        f"{column.column} on {task} gave no readable answer to {100 * share:.1f} % of the rows "
        f"({100 * low:.1f} to {100 * high:.1f} %); they count as wrong.",
    )


def _units(task: str, column: Held) -> Iterator[Caution]:
    """Whether latency and throughput can both be in their units; see `FASTER_ALONE`."""
    for cell in column.cells:
        alone = 1000 / max(cell.figures["latency_ms"]["mean"], 1e-9)
        batch = cell.figures["throughput_per_s"]
        where = f"{column.column} on {task}, seed {cell.cell.seed}:"
        if alone > FASTER_ALONE * batch["per_s"]:
            told = (
                f"{where} its latency would be {alone:,.0f} texts a second one by one, "
                f"{batch['per_s']:,.0f} in batches: one of the two is of another unit."
            )
            yield Caution("unit", task, column.column, told)
        elif batch["per_s"] > 0.97 * batch["batch_size"] * alone:
            told = (
                f"{where} a batch of {batch['batch_size']} takes no longer than one text: its "
                "latency may be a batch's."
            )
            yield Caution("unit", task, column.column, told)


def _surplus(column: Held, label: str) -> float:
    share = np.mean([[said == label for said in one.answered] for one in column.predictions])
    return float(share) - float(np.mean([said == label for said in column.predictions[0].true]))


def _answered(column: Held) -> set[str]:
    return {label for one in column.predictions for label in one.answered if label}
