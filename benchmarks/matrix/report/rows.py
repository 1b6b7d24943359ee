"""A matrix as rows for a spreadsheet: one a cell, holes among them, and one a pair of columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from benchmarks.matrix.metrics import Figures
from benchmarks.matrix.overview import Overview
from benchmarks.matrix.results import CellResult, Matrix
from benchmarks.matrix.summary import OF_TWO, usd_per_1000

TEXT, WHOLE, NUMBER, TRUTH = pa.string(), pa.int64(), pa.float64(), pa.bool_()
WITH_ENDS = ("accuracy", "macro_f1", "mcc")
COUNTS = ("tp", "fp", "fn", "tn")


def _ended(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(f"{name}{end}", NUMBER) for name in names for end in ("", "_low", "_high")]


CELLS = pa.schema(
    [
        ("task", TEXT),
        ("column", TEXT),
        ("method", TEXT),
        ("seed", WHOLE),
        ("status", TEXT),
        ("error", TEXT),
        ("n", WHOLE),
        ("n_right", WHOLE),
        ("n_unreadable", WHOLE),
        *_ended(*WITH_ENDS),
        ("positive", TEXT),
        *((name, WHOLE) for name in COUNTS),
        *_ended(*OF_TWO),
        ("majority_label", TEXT),
        ("majority_share", NUMBER),
        ("latency_p50_ms", NUMBER),
        *_ended("latency_p95_ms"),
        ("latency_mean_ms", NUMBER),
        ("latency_n", WHOLE),
        ("throughput_per_s", NUMBER),
        ("throughput_texts", WHOLE),
        ("throughput_batch_size", WHOLE),
        ("fit_s", NUMBER),
        ("fit_cpu_s", NUMBER),
        ("peak_mb", NUMBER),
        ("peak_gpu_mb", NUMBER),
        ("n_parameters", WHOLE),
        ("n_trained", WHOLE),
        ("usd", NUMBER),
        ("usd_per_1000", NUMBER),
        ("device", TEXT),
        ("n_train", WHOLE),
        ("n_select", WHOLE),
        ("n_leaks", WHOLE),
        ("report_key", TEXT),
        ("train_key", TEXT),
        ("notes", TEXT),
        ("versions", TEXT),
    ]
)

PAIRS = pa.schema(
    [
        ("task", TEXT),
        ("a", TEXT),
        ("b", TEXT),
        ("seeds", TEXT),
        ("n", WHOLE),
        *_ended("difference"),
        ("p", NUMBER),
        ("p_corrected", NUMBER),
        ("told_apart", TRUTH),
        *_ended("both_right", "only_a_wrong", "only_b_wrong", "both_wrong"),
    ]
)


def cells(matrix: Matrix) -> pa.Table:
    """One row a cell, in the order of the matrix; a hole has its status and error, no figures."""
    tried = {one.cell: one for one in matrix.results}
    rows = []
    for cell in matrix.config.cells:
        column, found = matrix.config.column(cell.column), tried.get(cell)
        told = {
            "task": cell.task,
            "column": cell.column,
            "method": column.method,
            "seed": cell.seed,
            "status": "not run" if found is None else found.status,
            "error": "" if found is None else found.error,
        }
        done = found is not None and not found.is_hole
        rows.append(told | (_figures(found, matrix) if done and found is not None else {}))
    return pa.Table.from_pylist(rows, schema=CELLS)


def pairs(overview: Overview) -> pa.Table:
    """One row for every two columns of every task."""
    rows = []
    for task, compared in overview.compared.items():
        for one in compared.pairs:
            told: Figures = {
                "task": task,
                "a": one.a,
                "b": one.b,
                "seeds": " ".join(map(str, one.seeds)),
                "n": compared.n,
                "p": one.p,
                "p_corrected": one.p_corrected,
                "told_apart": one.told_apart,
            }
            parts = {"difference": one.difference} | {
                name: getattr(one.overlap, name)
                for name in ("both_right", "only_a_wrong", "only_b_wrong", "both_wrong")
            }
            for name, found in parts.items():
                told |= _with_ends(name, found.value, found.interval)
            rows.append(told)
    return pa.Table.from_pylist(rows, schema=PAIRS)


def _figures(found: CellResult, matrix: Matrix) -> Figures:
    figures = found.figures
    plain = {name: figures.get(name) for name in CELLS.names if name in figures}
    told = {name: value for name, value in plain.items() if not isinstance(value, dict | list)}
    told.pop("throughput_per_s", None)
    for name in WITH_ENDS:
        told |= _with_ends(name, figures[name], figures[f"{name}_ci"])
    told |= _two(figures.get("binary"))
    latency, batch = figures["latency_ms"], figures["throughput_per_s"]
    told |= _with_ends("latency_p95_ms", latency["p95"], latency["p95_ci"])
    return told | {
        "majority_label": figures["majority"]["label"],
        "majority_share": figures["majority"]["share"],
        "latency_p50_ms": latency["p50"],
        "latency_mean_ms": latency["mean"],
        "latency_n": latency["n"],
        "throughput_per_s": batch["per_s"],
        "throughput_texts": batch["texts"],
        "throughput_batch_size": batch["batch_size"],
        "usd_per_1000": usd_per_1000(figures, found.method, matrix.config),
        "notes": " | ".join(figures["notes"]),
        "versions": " ".join(f"{name}={one}" for name, one in figures["versions"].items()),
    }


def _two(binary: Mapping[str, Any] | None) -> Figures:
    if binary is None:
        return {}
    told = {name: binary[name] for name in ("positive", *COUNTS)}
    for name in OF_TWO:
        told |= _with_ends(name, binary[name], binary[f"{name}_ci"])
    return told


def _with_ends(name: str, value: float, ends: Any) -> Figures:
    low, high = ends or (None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}
