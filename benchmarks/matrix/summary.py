"""The figures of a column on a task over its seeds, each a mean with its 95 % interval.

Those of quality have theirs as `intervals` says, over rows and seeds. Those that are measured
(times, memory, price) have Student's interval over the seeds; a latency's p95 in addition what the
few texts of each cell leave open. With one seed a measured figure has no interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from benchmarks.matrix.compare import Held
from benchmarks.matrix.config import MatrixConfig
from benchmarks.matrix.intervals import Estimate, interval_of, mean_interval, spread_of
from benchmarks.matrix.methods.base import UNREADABLE
from benchmarks.matrix.metrics import Counts, balance_gap, macro_f1, mcc
from red_ray.core.metrics import Interval

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]

N_RESAMPLES = 400
"""Of figures that are no mean over rows: fixes the ends to about a tenth of the width."""

OF_LABELS = ("macro_f1", "mcc")
OF_TWO = ("precision", "recall", "specificity", "f1", "balance_gap")
SHARES = ("accuracy", "macro_f1", *OF_TWO, "n_unreadable_share")
QUALITY = ("accuracy", *OF_LABELS, *OF_TWO, "n_unreadable_share")
MEASURED = (
    *("latency_p50_ms", "latency_p95_ms", "throughput_per_s", "fit_s", "peak_mb"),
    *("peak_gpu_mb", "usd_per_1000"),
)
FIGURES = (*QUALITY, *MEASURED)
WITHIN = {
    "latency_p50_ms": ("latency_ms", "p50"),
    "latency_p95_ms": ("latency_ms", "p95"),
    "throughput_per_s": ("throughput_per_s", "per_s"),
}
"""Where `results.json` has those that stand in a table of their own."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure over seeds; `interval` is None where one seed, or rows all alike, give none."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A column on a task.

    Attributes:
        column: its name.
        method: as stated.
        seeds: that are finished.
        figures: by name, of `FIGURES`; those that it has.
        device: of its cells; several where they differ.
        n_parameters, n_trained: of its first cell.
        notes: of all its cells, each once.
    """

    column: str
    method: str
    seeds: tuple[int, ...]
    figures: Mapping[str, Measured]
    device: str
    n_parameters: int
    n_trained: int
    notes: tuple[str, ...]


def summary(column: Held, config: MatrixConfig, accuracy: Estimate | None = None) -> Summary:
    """All figures of a column.

    Args:
        column: what it answered.
        config: for the price of the machine.
        accuracy: where it was compared already.
    """
    rng = np.random.default_rng(1)
    accuracy = accuracy or mean_interval(column.right, rng=rng)
    unreadable = mean_interval(column.unreadable, rng=rng)
    found = {
        "accuracy": Measured(accuracy.value, accuracy.interval),
        "n_unreadable_share": Measured(unreadable.value, unreadable.interval),
        **{name: _within(name, one, column) for name, one in of_counts([column])[0].items()},
        **measured(column, config),
    }
    first = column.cells[0].figures
    notes = [note for cell in column.cells for note in cell.figures["notes"]]
    return Summary(
        column=column.column,
        method=column.cells[0].method,
        seeds=column.seeds,
        figures={name: found[name] for name in FIGURES if name in found},
        device=" and ".join(sorted({cell.figures["device"] for cell in column.cells})),
        n_parameters=first["n_parameters"],
        n_trained=first["n_trained"],
        notes=tuple(dict.fromkeys(notes)),
    )


def _within(name: str, found: Estimate, column: Held) -> Measured:
    """An estimate within what it can be; where all resamples are alike, as the cells have it."""
    low, high = found.interval
    if low == high:
        if name not in ("precision", "recall", "specificity"):
            return Measured(found.value, None)
        ends = [cell.figures["binary"][f"{name}_ci"] for cell in column.cells]
        low, high = min(one[0] for one in ends), max(one[1] for one in ends)
    least = -1.0 if name == "mcc" else 0.0
    return Measured(found.value, (max(least, low), min(1.0, high)))


def of_counts(columns: Sequence[Held]) -> list[dict[str, Estimate]]:
    """Figures that are no mean over rows, of each column."""
    names, plain, drawn = _resampled(columns)
    return [
        {name: _over_seeds(values[:, at], resampled[:, :, at]) for at, name in enumerate(names)}
        for values, resampled in zip(plain, drawn, strict=True)
    ]


def difference(a: Held, b: Held, name: str) -> Measured | None:
    """A figure of `a` less that of `b` over the seeds that both have, paired.

    None without such a seed, or where the task's labels have no such figure.
    """
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    if not seeds:
        return None
    at_a, at_b = ([one.seeds.index(seed) for seed in seeds] for one in (a, b))
    if name in ("accuracy", "n_unreadable_share"):
        one, other = (
            (side.right if name == "accuracy" else side.unreadable)[at].astype(float)
            for side, at in ((a, at_a), (b, at_b))
        )
        found = mean_interval(one - other, rng=np.random.default_rng(1))
        return Measured(found.value, found.interval)
    names, plain, drawn = _resampled([a, b])
    if name not in names:
        return None
    at = names.index(name)
    found = _over_seeds(
        plain[0][at_a, at] - plain[1][at_b, at], drawn[0][:, at_a, at] - drawn[1][:, at_b, at]
    )
    low, high = found.interval
    return Measured(found.value, None if low == high else (low, high))


def measured(column: Held, config: MatrixConfig) -> dict[str, Measured]:
    """Times, memory and price: those that every seed has."""
    found = {}
    for name in MEASURED:
        values = by_seed(column, name, config)
        if len(values) == len(column.cells):
            ends = over_seeds(list(values.values()))
            # None of these can be below 0.
            told = None if ends is None else (max(0.0, ends[0]), ends[1])
            found[name] = Measured(float(np.mean(list(values.values()))), told)
    if "latency_p95_ms" in found:
        found["latency_p95_ms"] = _with_few_texts(found["latency_p95_ms"], column)
    return found


def measured_difference(a: Held, b: Held, name: str, config: MatrixConfig) -> Measured | None:
    """A measured figure of `a` less that of `b`, over the seeds that both have it of."""
    one, other = by_seed(a, name, config), by_seed(b, name, config)
    values = [one[seed] - other[seed] for seed in one if seed in other]
    return Measured(float(np.mean(values)), over_seeds(values)) if values else None


def by_seed(column: Held, name: str, config: MatrixConfig) -> dict[int, float]:
    """A measured figure of each seed that has it."""
    found = {
        cell.cell.seed: _measure(cell.figures, name, cell.method, config) for cell in column.cells
    }
    return {seed: float(value) for seed, value in found.items() if value is not None}


def over_seeds(values: Sequence[float]) -> Interval | None:
    """Student's 95 % interval of a mean; None of a single value."""
    n = len(values)
    if n < 2:
        return None
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    centre = float(np.mean(values))
    return (centre - half, centre + half)


def _with_few_texts(found: Measured, column: Held) -> Measured:
    """The wider end of each: of the seeds, and of the few texts in each cell."""
    told = np.array([cell.figures["latency_ms"]["p95_ci"] for cell in column.cells])
    low, high = (float(end) for end in told.mean(axis=0))
    ends = found.interval or (low, high)
    return Measured(found.value, (min(low, ends[0]), max(high, ends[1])))


def _measure(
    figures: Mapping[str, Any], name: str, method: str, config: MatrixConfig
) -> float | None:
    if name == "usd_per_1000":
        return usd_per_1000(figures, method, config)
    table, key = WITHIN.get(name, (None, name))
    found = figures if table is None else figures[table]
    return None if found[key] is None else float(found[key])


def usd_per_1000(figures: Mapping[str, Any], method: str, config: MatrixConfig) -> float | None:
    """Price of answering 1,000 texts; None where none is known.

    Of a judge what its calls for the report rows cost, by the row. Of a model, and of a judge whose
    calls cost nothing, the machine's time at the throughput in batches, where the machine has a
    price; its training is not in it.
    """
    if method == "judge" and figures["usd"] != 0:
        usd = figures["usd"]
        return None if usd is None else 1000 * float(usd) / float(figures["n"])
    if config.usd_per_hour is None:
        return None
    per_s = float(figures["throughput_per_s"]["per_s"])
    return 1000 / per_s / 3600 * config.usd_per_hour


def _over_seeds(plain: Doubles, resampled: Doubles) -> Estimate:
    """The mean of a figure of some seeds, of which (n_resamples, n_seeds) are resampled."""
    value = float(plain.mean())
    return Estimate(value, interval_of(value, resampled, spread_of(resampled, plain)))


def _resampled(
    columns: Sequence[Held],
) -> tuple[tuple[str, ...], list[Doubles], list[Doubles]]:
    """Names, then of each column the figures (n_seeds, n_figures), and the same over resampled
    rows, the same for all columns (n_resamples, n_seeds, n_figures)."""
    figures = columns[0].cells[0].figures
    labels, binary = tuple(figures["by_label"]), figures.get("binary")
    positive = None if binary is None else labels.index(binary["positive"])
    rows = [_indices(column, labels) for column in columns]
    rng, n = np.random.default_rng(3), columns[0].right.shape[1]
    draws = rng.integers(0, n, size=(N_RESAMPLES, n))
    names = OF_LABELS if positive is None else (*OF_LABELS, *OF_TWO)

    def of(true: Ints, answers: list[Ints]) -> Doubles:
        found = [_values(Counts.of(true, one, len(labels)), positive) for one in answers]
        return np.stack(found, axis=-2)

    plain = [of(true, answers) for true, answers in rows]
    drawn = [of(true[draws], [one[draws] for one in answers]) for true, answers in rows]
    return names, plain, drawn


def _values(counts: Counts, positive: int | None) -> Doubles:
    """Of each draw of rows, the last axis in the order of the names."""
    found = [macro_f1(counts), mcc(counts)]
    if positive is not None:
        own, other = counts.recall[..., positive], counts.recall[..., 1 - positive]
        found += [counts.precision[..., positive], own, other, counts.f1[..., positive]]
        found.append(balance_gap(counts))
    return np.stack(found, axis=-1)


def _indices(column: Held, labels: Sequence[str]) -> tuple[Ints, list[Ints]]:
    at = {label: index for index, label in enumerate(labels)} | {"": UNREADABLE}
    true = np.array([at[label] for label in column.predictions[0].true], np.int64)
    answers = [np.array([at[s] for s in one.answered], np.int64) for one in column.predictions]
    return true, answers
