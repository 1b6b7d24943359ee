"""What it costs to catch 95 % of the errors: by confidence, by the learned score, as promised.

The first figures read the threshold off the test rows (the curve's point, as R2R reports it); the
promised ones are what a user pays, who has cross-fitted training rows and no test rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.cells import Benchmark, Cell, Result, main, mean_interval
from benchmarks.data import SEEDS
from benchmarks.router_runs import RouterRun, router_run
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.risk import usage
from red_ray.core.thresholds import CATCH, answer_risk, derive, point
from red_ray.errors import GoalError

SETS = (("banking77", 30), ("banking77", 100), ("clinc150", 30), ("clinc150", 100))
RECALL, CONFIDENCE = 0.95, 0.9
WANTED = 0.37
R2R = (0.318, 0.124)
"""Share of calls that go to the large model in a reproduction of R2R, and in its paper."""

SCORES = ("plain confidence", "learned score", "chosen by `auto`")


def run(cell: Cell) -> Result:
    """One data set, rows per label and seed."""
    use_one_blas_thread()
    found = router_run(cell["data"], cell["per_label"], cell["seed"])
    none = found.config.router.none_threshold
    chosen = found.rows.label_risk
    result: Result = {"learned is chosen": float(found.model.risk is not None)}
    wrong = found.rows.wrong(none)
    for name, risk in zip(SCORES, (found.plain, found.learned, chosen), strict=True):
        result[f"label, {name}"] = usage(risk, ~found.rows.right, (RECALL,))
        of_answer = answer_risk(risk, found.rows.none, none)
        result[f"decision, {name}"] = usage(of_answer, wrong, (RECALL,))
    result["label errors"] = float((~found.rows.right).mean())
    result["decision errors"] = float(wrong.mean())
    return result | promised(found, none)


def promised(found: RouterRun, none: float) -> Result:
    """What the threshold from cross-fitted training rows does to the test rows."""
    rows = found.model.calibration
    known: Result = {"cross-fitted errors": int(rows.wrong(none).sum())}
    try:
        thresholds = derive(rows, {CATCH: RECALL}, CONFIDENCE, none)
    except GoalError as error:
        return known | {"refused": str(error)}
    escalate = np.inf if thresholds.escalate is None else thresholds.escalate
    of_test = point(found.rows.risk(none), found.rows.wrong(none), escalate, CONFIDENCE)
    return known | {"promised, escalated": of_test.escalated, "promised, recall": of_test.catch}


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Shares in %, mean over seeds and 95 % interval."""
    heads = " | ".join(f"{data} {per_label}" for data, per_label in SETS)
    lines = []
    for of, what in (
        ("label", "the best label is wrong"),
        ("decision", "the answer, a label or *none*, is wrong"),
    ):
        lines.append(f"| escalated for {RECALL:.0%} of the errors, %: {what} | {heads} | mean |")
        lines.append("|" + "---|" * (len(SETS) + 2))
        lines += [row(done, name, f"{of}, {name}") for name in SCORES]
        lines += [row(done, "share of errors among the texts", f"{of} errors"), ""]
    lines.append(f"| threshold promised from cross-fitted rows, % | {heads} | mean |")
    lines.append("|" + "---|" * (len(SETS) + 2))
    lines.append(row(done, "escalated", "promised, escalated"))
    lines.append(row(done, "errors of the answer that are caught", "promised, recall"))
    lines.append(row(done, "seeds whose `auto` takes the learned score", "learned is chosen"))
    refused = [(cell, result["refused"]) for cell, result in done if "refused" in result]
    lines += ["", *(f"- {cell}: {told}" for cell, told in refused)]
    chosen = mean_of(done, f"label, {SCORES[2]}")
    plain = mean_of(done, f"label, {SCORES[0]}")
    lines.append(
        f"Chosen score: {100 * chosen:.1f} % (wanted {100 * WANTED:.0f} at most; plain confidence "
        f"{100 * plain:.1f}). R2R: {100 * R2R[0]:.1f} % in a reproduction, {100 * R2R[1]:.1f} % in "
        "its paper, on other data and with another model."
    )
    return "\n".join(lines)


def row(done: Sequence[tuple[Cell, Result]], name: str, key: str) -> str:
    cells = []
    for one_set in SETS:
        values = [r[key] for r in of_set(done, one_set) if key in r]
        cells.append(mean_interval(values, digits=1) if values else "–")
    return f"| {name} | " + " | ".join(cells) + f" | {100 * mean_of(done, key):.1f} |"


def mean_of(done: Sequence[tuple[Cell, Result]], key: str) -> float:
    """Mean over the sets of the mean over seeds."""
    by_set = [[r[key] for r in of_set(done, one_set) if key in r] for one_set in SETS]
    return float(np.mean([np.mean(values) for values in by_set if values]))


def of_set(done: Sequence[tuple[Cell, Result]], one_set: tuple[str, int]) -> list[Result]:
    return [r for c, r in done if (c["data"], c["per_label"]) == one_set]


CELLS = [
    {"data": data, "per_label": per_label, "seed": seed}
    for data, per_label in SETS
    for seed in SEEDS
]

if __name__ == "__main__":
    main(Benchmark("router_usage", CELLS, run, table))
