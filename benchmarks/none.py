"""Texts that fit no label: CLINC150's out-of-scope file, which no threshold has seen.

Thresholds of *none* come from cross-fitted training rows, or from the validation files, whose
out-of-scope rows alone can promise a recall.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cells import Benchmark, Cell, Result, main, mean_interval
from benchmarks.data import SEEDS, data_folder
from benchmarks.router_runs import RouterRun, router_run
from red_ray.calibration import calibration_rows
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.metrics import auroc, fpr_at_recall
from red_ray.core.thresholds import FALSE_ALARM, NONE_RECALL, CalibrationRows, derive
from red_ray.data.inputs import read_calibration

CONFIDENCE = 0.9
WANTED = 0.97
CASES = {
    "at most 5 % false alarms, cross-fitted rows": ("cross_fitted", {FALSE_ALARM: 0.05}),
    "at most 5 % false alarms, `val.csv`": ("rows", {FALSE_ALARM: 0.05}),
    "at least 90 % recall, `oos_val.csv`": ("rows", {NONE_RECALL: 0.9}),
    "at least 95 % recall, `oos_val.csv`": ("rows", {NONE_RECALL: 0.95}),
}


def run(cell: Cell) -> Result:
    """One seed: AUROC, and what each goal's threshold does to the test files."""
    use_one_blas_thread()
    found = router_run("clinc150", cell["per_label"], cell["seed"])
    strange, known = found.rows.none_out_of_scope, found.rows.none
    default = found.config.router.none_threshold
    result: Result = {
        "auroc": auroc(strange, known),
        "fpr at 95": fpr_at_recall(strange, known),
        "default": at(found.rows, default),
    }
    sources = {"cross_fitted": found.model.calibration, "rows": validation(found)}
    for name, (source, goals) in CASES.items():
        threshold = derive(sources[source], goals, CONFIDENCE, default).none
        result[name] = at(found.rows, threshold)
    return result


def validation(found: RouterRun) -> CalibrationRows:
    """The validation files as calibration rows."""
    folder = data_folder() / "clinc150"
    known, _ = read_calibration(
        found.config,
        found.inputs.seen_keys,
        frozenset(found.inputs.train.labels),
        calibration=folder / "val.csv",
        out_of_scope=folder / "oos_val.csv",
    )
    return calibration_rows(found.model, known, found.encoder)


def at(rows: CalibrationRows, threshold: float) -> Result:
    return {
        "threshold": threshold,
        "recall": float((rows.none_out_of_scope >= threshold).mean()),
        "false alarms": float((rows.none >= threshold).mean()),
    }


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Mean over seeds and 95 % interval."""
    results = [result for _, result in done]
    lines = [
        "CLINC150, 30 per label, `oos_test.csv` and `test.csv`: AUROC "
        f"{mean_interval([r['auroc'] for r in results], 1, 4)} (wanted {WANTED:g}), false alarms "
        f"at 95 % recall {mean_interval([r['fpr at 95'] for r in results], digits=1)} %.\n",
        "| goal, confidence 0.9 | threshold | recall on `oos_test.csv`, % "
        "| false alarms on `test.csv`, % |",
        "|---|---|---|---|",
    ]
    for name, key in (("none: threshold 0.5", "default"), *((name, name) for name in CASES)):
        found = [result[key] for result in results]
        cells = [mean_interval([one["threshold"] for one in found], 1, 3)]
        cells += [
            mean_interval([one[what] for one in found], digits=1)
            for what in ("recall", "false alarms")
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


CELLS = [{"per_label": 30, "seed": seed} for seed in SEEDS]

if __name__ == "__main__":
    main(Benchmark("none", CELLS, run, table))
