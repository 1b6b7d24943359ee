"""Does the promise hold: thresholds from 30 % of a test file, held against the other 70 %.

Each data set's official test file is resampled 200 times into calibration and test rows, and
each goal is derived alone at confidence 0.9. No accuracy is reported here: this benchmark alone
may take thresholds from test rows. A resampling whose calibration rows cannot promise a goal is
counted apart, and is neither kept nor broken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.cells import Benchmark, Cell, Result, main
from benchmarks.data import SEEDS
from benchmarks.router_runs import router_run
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.thresholds import (
    AT_MOST,
    CATCH,
    ESCALATE,
    PRECISION,
    CalibrationRows,
    derive,
    point,
)
from red_ray.errors import GoalError

SETS = (("banking77", 30), ("clinc150", 30), ("banking77", 10), ("clinc150", 10))
GOALS = (
    *((CATCH, share) for share in (0.8, 0.9, 0.95)),
    *((PRECISION, share) for share in (0.95, 0.97, 0.99)),
    *((ESCALATE, share) for share in (0.1, 0.2)),
)
N_RESAMPLES = 200
CALIBRATION_SHARE = 0.3
CONFIDENCE = 0.9
LEAST_CELL, LEAST_MEAN = 0.85, 0.88
"""What must be kept: less than the confidence, since the test part is finite too."""


def run(cell: Cell) -> Result:
    """One model, every goal on the same resamplings."""
    use_one_blas_thread()
    found = router_run(cell["data"], cell["per_label"], cell["seed"])
    none = found.config.router.none_threshold
    tried = {goal: [] for goal in GOALS}
    rng = np.random.default_rng(cell["seed"])
    for _ in range(N_RESAMPLES):
        calibration, test = halves(found.rows, rng)
        for goal in GOALS:
            tried[goal].append(reached(calibration, test, goal, none))
    return {key(goal): summary(goal, values) for goal, values in tried.items()}


def halves(
    rows: CalibrationRows, rng: np.random.Generator
) -> tuple[CalibrationRows, CalibrationRows]:
    order = rng.permutation(len(rows.right))
    n_calibration = round(CALIBRATION_SHARE * len(order))
    return take(rows, order[:n_calibration]), take(rows, order[n_calibration:])


def take(rows: CalibrationRows, at: np.ndarray) -> CalibrationRows:
    return CalibrationRows(
        rows.label_risk[at], rows.right[at], rows.offered[at], rows.none[at], np.zeros(0)
    )


def reached(
    calibration: CalibrationRows, test: CalibrationRows, goal: tuple[str, float], none: float
) -> tuple[float, float] | None:
    """What the goal's figure comes to on the test rows and the share escalated, if promised."""
    name, share = goal
    try:
        found = derive(calibration, {name: share}, CONFIDENCE, none)
    except GoalError:
        return None
    threshold = np.inf if found.escalate is None else found.escalate
    got = point(test.risk(found.none), test.wrong(found.none), threshold, CONFIDENCE)
    value = {CATCH: got.catch, PRECISION: got.precision, ESCALATE: got.escalated}[name]
    return (1.0 if value is None else value), got.escalated


def summary(goal: tuple[str, float], values: Sequence[tuple[float, float] | None]) -> Result:
    name, share = goal
    found = [value for value in values if value is not None]
    kept = [value <= share if name in AT_MOST else value >= share for value, _ in found]
    return {
        "promised": len(found),
        "kept": int(sum(kept)),
        "value": float(np.mean([value for value, _ in found])) if found else None,
        "escalated": float(np.mean([escalated for _, escalated in found])) if found else None,
    }


def key(goal: tuple[str, float]) -> str:
    return f"{goal[0]} {goal[1]:g}"


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Share of the promises that the test rows keep; figures over seeds."""
    lines = [
        f"Kept by the test rows, % of the promises made ({N_RESAMPLES} resamplings of each of "
        f"{len(SEEDS)} models), lowest of the models in brackets; then the share of the "
        "resamplings in which the rows were too few or too wrong to promise; then what is "
        "reached and what is escalated, mean.\n"
    ]
    for data, per_label in SETS:
        results = [r for c, r in done if (c["data"], c["per_label"]) == (data, per_label)]
        if results:
            lines += [*part(f"{data}, {per_label} per label", results), ""]
    return "\n".join([*lines, *verdicts(done)])


def part(title: str, results: Sequence[Result]) -> list[str]:
    heads = ("goal", "kept, %", "not promised, %", "reached, %", "escalated, %")
    lines = [f"**{title}**\n", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in map(key, GOALS):
        found = [result[name] for result in results]
        promised = sum(one["promised"] for one in found)
        refused = 1 - promised / (N_RESAMPLES * len(found))
        cells = [name, kept_of(found), f"{100 * refused:.1f}"]
        cells += [weighted(found, value) for value in ("value", "escalated")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def kept_of(found: Sequence[Result]) -> str:
    rates = [one["kept"] / one["promised"] for one in found if one["promised"]]
    if not rates:
        return "–"
    whole = sum(one["kept"] for one in found) / sum(one["promised"] for one in found)
    return f"{100 * whole:.1f} ({100 * min(rates):.1f})"


def weighted(found: Sequence[Result], name: str) -> str:
    promised = [one for one in found if one["promised"]]
    if not promised:
        return "–"
    weights = [one["promised"] for one in promised]
    return f"{100 * np.average([one[name] for one in promised], weights=weights):.1f}"


def verdicts(done: Sequence[tuple[Cell, Result]]) -> list[str]:
    """The acceptance: every cell (set, rows per label, goal), and the mean of each kind.

    A goal that most resamplings rightly refuse stands apart: of the few promises made there most
    are the unlucky draws, and what the confidence bounds is their share of all draws.
    """
    lines, apart = [], []
    for name in (CATCH, PRECISION, ESCALATE):
        rates, alone = [], []
        for goal in (key(goal) for goal in GOALS if goal[0] == name):
            for one_set in SETS:
                found = [r[goal] for c, r in done if (c["data"], c["per_label"]) == one_set]
                n_promised, n = sum(one["promised"] for one in found), N_RESAMPLES * len(found)
                n_kept = sum(one["kept"] for one in found)
                if n_promised >= n / 2 > 0:
                    rates.append(n_kept / n_promised)
                    alone += [one["kept"] / one["promised"] for one in found if one["promised"]]
                elif n_promised:
                    apart.append(
                        f"- apart: {goal} on {one_set[0]} at {one_set[1]} per label is promised in "
                        f"{n_promised} of {n} resamplings; of these {n_kept} keep it, so that "
                        f"{100 * (n_promised - n_kept) / n:.1f} % of all break a promise"
                    )
        if rates:
            wanted = f" (wanted {100 * LEAST_CELL:.0f})", f" (wanted {100 * LEAST_MEAN:.0f})"
            least, mean = ("", "") if name == ESCALATE else wanted
            lines.append(
                f"- {name}: least cell {100 * min(rates):.1f} %{least}, mean "
                f"{100 * np.mean(rates):.1f} %{mean}; least single model {100 * min(alone):.1f} %"
            )
    return [*lines, *apart]


CELLS = [
    {"data": data, "per_label": per_label, "seed": seed}
    for data, per_label in SETS
    for seed in SEEDS
]

if __name__ == "__main__":
    main(Benchmark("promise", CELLS, run, table))
