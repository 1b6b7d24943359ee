"""Figures of a matrix as a reader meets them."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.matrix.intervals import Estimate, signed
from benchmarks.matrix.overview import Overview
from benchmarks.matrix.summary import SHARES, Measured, Summary
from red_ray.evaluation.report.figures import DASH, decimal, dollars, percent, seconds

HOLE = "hole: "
"""How the text of a cell without a figure begins; why follows."""

METHODS = {
    "majority": "always train's most frequent label",
    "prior": "drawn as train's shares are",
    "flat": "logistic regression on embeddings",
    "random_forest": "random forest on embeddings",
    "lasso": "L1 logistic regression on embeddings",
    "setfit": "SetFit, one model",
    "red_ray": "R.E.D., no judge",
    "fine_tune": "fine-tuned encoder",
    "zero_shot": "language model, asked",
    "few_shot": "language model, asked with examples",
    "lora": "language model, LoRA",
    "judge": "judge as a classifier",
}
NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mcc": "MCC",
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
    "f1": "F1",
    "balance_gap": "balance gap",
    "n_unreadable_share": "unreadable",
    "latency_p50_ms": "latency p50, ms",
    "latency_p95_ms": "latency p95, ms",
    "throughput_per_s": "texts/s in batches",
    "fit_s": "training",
    "peak_mb": "peak memory, MB",
    "peak_gpu_mb": "peak GPU memory, MB",
    "usd_per_1000": "USD per 1,000 texts",
}


def method_told(overview: Overview, column: str) -> str:
    """The method as the configuration states it, and its model."""
    stated = overview.matrix.config.column(column)
    parts: list[str] = [stated.method]
    for name in ("model", "mode", "judge"):
        value = getattr(stated, name, None)
        parts += [str(value)] if value else []
    if stated.method == "few_shot":
        parts.append(f"{stated.shots} examples")
    parts += ["a stand-in"] if stated.stand_in else []
    return ", ".join(parts)


def figure(name: str, found: Measured | Estimate | None) -> str:
    """A figure without its interval."""
    if found is None:
        return DASH
    return _value(name, found.value)


def interval(name: str, found: Measured | Estimate | None) -> str:
    """The interval of a figure; empty where there is none."""
    if found is None or found.interval is None:
        return ""
    low, high = found.interval
    if name in SHARES:
        return f"{100 * low:.1f} to {_value(name, high)}"
    return f"{_value(name, low)} to {_value(name, high)}"


def both(name: str, found: Measured | Estimate | None) -> str:
    """A figure and its interval in brackets; a measured one of one seed has none."""
    ends = interval(name, found)
    return f"{figure(name, found)} ({ends})" if ends else figure(name, found)


def points(found: Estimate) -> str:
    """A difference of shares: +2.1 points (+0.3 to +3.9)."""
    low, high = found.interval
    return f"{signed(found.value)} points ({signed(low)} to {signed(high)})"


def accuracy_cell(overview: Overview, task: str, column: str) -> str:
    """The accuracy of a column on a task, or the hole with why, or both where seeds are missing."""
    found = overview.summaries.get((task, column))
    if found is None:
        return hole(overview, task, column)
    return both("accuracy", found.figures["accuracy"]) + part_told(overview, task, column)


def against_told(overview: Overview, task: str, column: str) -> str:
    """The accuracy of a column less that of the one it is held against: +2.1 (+0.3 to +3.9).

    A star where the corrected comparison tells the two apart.
    """
    against = overview.matrix.config.against
    pair = overview.compared[task].pair(column, against) if against else None
    if pair is None:
        return DASH
    low, high = pair.difference.interval
    told = f"{signed(pair.difference.value)} ({signed(low)} to {signed(high)})"
    return f"{told} *" if pair.told_apart else told


def table_notes(overview: Overview) -> Iterator[str]:
    """What a difference is, where the columns are held against one; seeds, where tasks differ."""
    config = overview.matrix.config
    seeds = {task: len(stated.seeds or config.seeds) for task, stated in config.tasks.items()}
    if len(set(seeds.values())) > 1:
        yield f"Seeds: {', '.join(f'{task} {n}' for task, n in seeds.items())}."
    against = config.against
    if against is not None:
        yield (
            f"A difference is in points less `{against}`, on the same rows and "
            "seeds, with its paired 95 % interval; * told apart after Holm's correction."
        )


def part_told(overview: Overview, task: str, column: str) -> str:
    """Which seeds are missing, and why; and whether nothing is compared with the column."""
    refused = overview.compared[task].refused.get(column)
    holes = overview.missing_seeds(task, column)
    told = [f"{HOLE}seed {seed}: {why}" for seed, why in holes]
    told += [f"not compared: {refused}"] if refused else []
    return "".join(f"; {one}" for one in told)


def hole(overview: Overview, task: str, column: str) -> str:
    """Why there is no figure."""
    why = overview.reason(task, column)
    return why if why == "not asked for" else f"{HOLE}{why}"


def place_told(overview: Overview, task: str, column: str) -> str:
    """The places that a column may have: 2, or 2 to 5."""
    best, worst = overview.ranks[task].places.get(column, (0, 0))
    if not best:
        return DASH
    return str(best) if best == worst else f"{best} to {worst}"


def ranking_told(overview: Overview, task: str) -> str:
    """What the comparisons allow to say of an order, as sentences."""
    found, compared = overview.ranks[task], overview.compared[task]
    if len(compared.accuracy) < 2:
        return "There are no two columns to compare."
    alone = " Where there is one seed, of these trainings alone." if compared.n_of_one_seed else ""
    if found.is_ranking:
        groups = " > ".join(", ".join(name for name in group) for group in found.groups)
        return f"Ranking: {groups}. Within a group the order is not known.{alone}"
    told = sum(one.told_apart for one in compared.pairs)
    if not told:
        return "No ranking: no two columns are told apart."
    return (
        f"No ranking: {told} of {len(compared.pairs)} pairs are told apart, which nowhere parts "
        "all columns above from all below. The places that each may have stand in its "
        f"table.{alone}"
    )


def parameters(found: Summary) -> str:
    """Trained ones of all."""
    return (
        f"{found.n_trained:,} of {found.n_parameters:,}"
        if found.n_parameters
        else (f"{found.n_trained:,}" if found.n_trained else DASH)
    )


def _value(name: str, value: float) -> str:
    if name in SHARES:
        return percent(value)
    if name == "mcc":
        return decimal(value)
    if name == "fit_s":
        return seconds(value)
    if name == "usd_per_1000":
        return dollars(value)
    if name in ("peak_mb", "peak_gpu_mb"):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if value >= 0.1 else f"{value:.3g}"
