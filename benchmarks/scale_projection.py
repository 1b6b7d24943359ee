"""On paper: 10,000 labels and 100 million rows on a cluster, from the measured unit costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

N_LABELS = 10_000
N_ROWS = 100_000_000
N_ITERATIONS = 10
N_CORES = 1_000


def beyond(by_labels: Mapping[str, float], n_labels: int) -> float:
    """A cost at more labels than were measured, by the power law of the last two."""
    (few, at_few), (many, at_many) = sorted((int(n), cost) for n, cost in by_labels.items())[-2:]
    power = math.log(at_many / at_few) / math.log(many / few)
    return float(at_many * (n_labels / many) ** power)


def projection(units: Mapping[str, Any]) -> str:
    """The arithmetic, with its assumptions, as text."""
    encode = N_ROWS / units["encode_texts_per_cpu_s"]
    fit = beyond(units["fit_cpu_s_per_label_by_labels"], N_LABELS) * N_LABELS
    serial = beyond(units["fit_serial_s_by_labels"], N_LABELS)
    refit = beyond(units["refit_cpu_s_per_label_by_labels"], N_LABELS) * N_LABELS
    rate = beyond(units["score_texts_per_cpu_s_by_labels"], N_LABELS)
    score = N_ROWS / rate
    select = units["select_s_per_row"] * N_ROWS * N_LABELS / 1_000
    memory = units["train_bytes_per_label"] * N_LABELS / 1e9
    vectors = N_ROWS * 384 * 4 / 1e9
    lines = [
        f"**On paper: {N_LABELS:,} labels × {units['rows_per_label']} rows, a pool of "
        f"{N_ROWS:,} rows, {N_CORES:,} cores.** Assumed: every cost goes on with the power of the "
        "two largest numbers of labels above; cores are as fast as these; the pool is cut into "
        "shares, one router over each, which this version does not do (one router weighs the "
        "pool of a run); no gate; a judge that is never waited for.",
        "",
        "| part | arithmetic | core-hours | hours on the cluster |",
        "|---|---|---|---|",
        _line(
            "encode, once", f"{N_ROWS:,} / {units['encode_texts_per_cpu_s']:,.0f} a CPU s", encode
        ),
        _line("full fit, twice", f"2 × {fit:,.0f} CPU s", 2 * fit, 2 * serial),
        _line(
            f"refit, {N_ITERATIONS} iterations", f"{refit:,.0f} CPU s each", N_ITERATIONS * refit
        ),
        _line("weigh the pool once", f"{N_ROWS:,} / {rate:,.0f} a CPU s", score),
        _line("choose from it once", "by rows and labels", select),
        _line(f"{N_ITERATIONS} iterations over all of it", "", N_ITERATIONS * (score + select)),
        "",
        f"Memory: embeddings {vectors:,.0f} GB over all nodes; what grows with the labels "
        f"{memory:,.0f} GB; bundle {units['bundle_bytes_per_label'] * N_LABELS / 1e9:,.1f} GB. "
        "What decides is weighing the whole pool in every iteration: the similarity of each text "
        "to every example. From here on an index of the examples (or a share of the pool an "
        "iteration) pays, and more cores do not.",
    ]
    return "\n".join(lines)


def _line(part: str, arithmetic: str, cpu_s: float, serial_s: float = 0.0) -> str:
    hours = (cpu_s / N_CORES + serial_s) / 3600
    return f"| {part} | {arithmetic} | {cpu_s / 3600:,.0f} | {hours:,.2f} |"
