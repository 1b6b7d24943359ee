"""Cost by the number of labels and by the size of the pool, and what follows for larger ones.

Rows as in `benchmarks.scale_data`: real labels while there are any, then made ones. 20 rows per
label, the gate off (timed apart), embeddings in the store. Each cell is a process of its own;
memory is of all processes together, shared pages counted once. One pool of 10,000 texts is gone
through whole at every number of labels; of larger ones some texts are scored, all are chosen from.
Unit costs for the sizing table of docs/cluster.md go to scale/units.json.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import scale_steps
from benchmarks.cells import ALGORITHM, RESULTS, Benchmark, Cell, Result, main
from benchmarks.scale_projection import projection
from benchmarks.watched import watched

LABELS = (100, 300, 1_000, 3_000)
GATE_LABELS = (100, 300, 1_000)
POOLS = (10_000, 100_000, 1_000_000)
CAPPED = 300
"""From so many labels on every expert has all the noise rows that it may have."""
N_REAL = 226
VECTOR_BYTES = 384 * 4
UNITS = RESULTS / "scale" / "units.json"
SOURCES = (*ALGORITHM, "actors/fleet.py", "actors/packing.py", "bundle.py")

STEPS = {
    "fit": scale_steps.fit,
    "ray": scale_steps.fit_on_ray,
    "gate": scale_steps.gate,
    "pool": scale_steps.pool,
    "encode": scale_steps.encode,
}

Found = Mapping[tuple[str, int, int], Result]


def run(cell: Cell) -> Result:
    """One cell, with the machine's load before it: a figure of a busy machine says so."""
    load = psutil.getloadavg()[0]
    phases, result = watched(STEPS[cell["what"]], cell)
    return {"phases": phases, "load before": load, **result}


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """What was measured, the unit costs, and the projection."""
    found = {(c["what"], c["labels"], c.get("pool", 0)): r for c, r in done}
    parts = [part for part in (_fit_table(found), _pool_table(found), _other(found)) if part]
    (RESULTS / "scale_short.md").write_text(
        "\n\n".join(parts) + "\n"
    )  # what docs/measured.md shows
    parts.insert(1, _use_table(found))
    units = unit_costs(found)
    if units is None:
        parts.append("Unit costs: not all cells are measured yet.")
    else:
        UNITS.write_text(json.dumps(units, indent=1) + "\n")
        parts += [_units_table(units), projection(units)]
    return "\n\n".join(part for part in parts if part)


def _phase(result: Result, name: str, key: str) -> float:
    return float(result["phases"].get(name, {}).get(key, 0.0))


def _peak(result: Result) -> float:
    return max(float(phase["peak_mb"]) for phase in result["phases"].values())


def _pool_peak(result: Result) -> float:
    """Without what made the pool."""
    return max(_phase(result, name, "peak_mb") for name in ("read", "weigh", "select"))


def _of(found: Found, what: str) -> dict[int, Result]:
    return {n: r for (kind, n, _), r in sorted(found.items()) if kind == what}


def exponent(by_labels: Mapping[int, float]) -> float | None:
    """The power of the labels with which a cost grows, by least squares of the logarithms."""
    if len(by_labels) < 2:
        return None
    labels, costs = np.log(list(by_labels)), np.log(list(by_labels.values()))
    return float(np.polyfit(labels, costs, 1)[0])


FIT: tuple[tuple[str, Callable[[Result], float], int], ...] = (
    ("partition s", lambda r: _phase(r, "partition", "s"), 1),
    ("experts, cross-fitting, router s", lambda r: _phase(r, "fit", "s"), 1),
    ("CPU s", lambda r: _phase(r, "fit", "cpu_s"), 1),
    ("of it router CPU s", lambda r: r["router s"], 1),
    ("peak MB", lambda r: max(_phase(r, n, "peak_mb") for n in ("partition", "fit")), 0),
)
USE: tuple[tuple[str, Callable[[Result], float], int], ...] = (
    ("one iteration s", lambda r: _phase(r, "iteration", "s"), 1),
    ("refit CPU s", lambda r: r["iteration"]["fit cpu s"], 1),
    ("recalibrate CPU s", lambda r: r["iteration"]["recalibrate cpu s"], 1),
    ("score pool CPU s", lambda r: r["iteration"]["score cpu s"], 2),
    ("acquire CPU s", lambda r: r["iteration"]["acquire cpu s"], 2),
    ("bundle MB", lambda r: r["bundle bytes"] / 1e6, 1),
    ("load s", lambda r: _phase(r, "load", "s"), 2),
    ("first text s", lambda r: _phase(r, "ready", "s"), 2),
    ("score texts/s", lambda r: r["n scored"] / r["score s"], 0),
    ("score MB", lambda r: _phase(r, "score", "peak_mb"), 0),
    ("encoder ms", lambda r: r["encode ms"], 1),
    ("after it ms", lambda r: r["after ms"], 1),
    ("after it CPU ms", lambda r: r["after cpu ms"], 1),
)


def _rows(
    first: str, columns: Sequence[tuple[str, Callable[[Result], float], int]], of: dict[int, Result]
) -> str:
    lines = [f"| {first} | " + " | ".join(name for name, *_ in columns) + " |"]
    lines.append("|" + "---|" * (len(columns) + 1))
    for n, result in of.items():
        cells = " | ".join(f"{value(result):,.{digits}f}" for _, value, digits in columns)
        lines.append(f"| {n:,} | {cells} |")
    return "\n".join(lines)


def _fit_table(found: Found) -> str:
    fits = _of(found, "fit")
    if not fits:
        return ""
    text = _rows("labels × 20 rows, in one process", FIT, fits)
    power = exponent({n: _phase(r, "fit", "cpu_s") for n, r in fits.items()})
    if power is not None:
        text += f"\n\nFit cost grows with the labels to the power {power:.2f} (CPU)"
        capped = exponent({n: _phase(r, "fit", "cpu_s") for n, r in fits.items() if n >= CAPPED})
        told = "" if capped is None else f", from {CAPPED} labels on to {capped:.2f}"
        text += f"{told}: below that the cap of 4,000 noise rows is not reached."
    busy = max(result["load before"] for result in found.values())
    text += f" Highest load of the machine before a cell: {busy:.1f}."
    made = max(0, max(fits) - N_REAL)
    return f"{text} {N_REAL} labels are real, up to {made:,} made from them."


def _use_table(found: Found) -> str:
    fits = _of(found, "fit")
    return _rows("labels, pool of 10,000", USE, fits) if fits else ""


def _pool_table(found: Found) -> str:
    lines = [
        "| labels | pool | read s | read MB above the embeddings | weighed texts/CPU s | select s |"
        " select CPU s | select MB above the embeddings |",
        "|" + "---|" * 8,
    ]
    for (what, n, size), result in sorted(found.items()):
        if what == "pool":
            kept = size * VECTOR_BYTES / 1e6
            spent = result["score cpu s"] + result["weigh cpu s"]
            cells = (
                f"{_phase(result, 'read', 's'):,.1f}",
                f"{_phase(result, 'read', 'peak_mb') - kept:,.0f}",
                "kept" if result["at once"] == size else f"{result['n weighed'] / spent:,.0f}",
                f"{result['select s']:,.1f}",
                f"{result['select cpu s']:,.1f}",
                f"{_phase(result, 'select', 'peak_mb') - kept:,.0f}",
            )
            lines.append(f"| {n:,} | {size:,} | " + " | ".join(cells) + " |")
    if len(lines) == 2:
        return ""
    kept = "Kept: its similarities are worked out once, when it is read, and go on from there."
    return "\n".join(lines) + f"\n\n{kept}"


def _other(found: Found) -> str:
    lines = []
    for n, result in _of(found, "ray").items():
        spent = sum(_phase(result, name, "s") for name in ("partition", "fit"))
        lines.append(
            f"On Ray, {n:,} labels: {spent:.1f} s from the embeddings to the router, actors "
            f"starting ({_phase(result, 'fit', 's'):.1f} s of it experts, cross-fitting, router), "
            f"peak {_peak(result):,.0f} MB over all processes.  "
        )
    for n, result in _of(found, "gate").items():
        lines.append(
            f"The gate at {n:,} labels, which is the flat model: {_phase(result, 'fit', 's'):.1f} "
            f"s, cross-fitting it {_phase(result, 'crossfit', 's'):.1f} s.  "
        )
    for result in _of(found, "encode").values():
        rate = result["n encoded"] / _phase(result, "encode", "s")
        lines.append(f"The encoder on these texts: {rate:,.0f} texts/s.")
    return "\n".join(lines)


def unit_costs(found: Found) -> dict[str, Any] | None:
    """What the sizing table multiplies; None until every one of them is measured."""
    fits, rays, gates = _of(found, "fit"), _of(found, "ray"), _of(found, "gate")
    encoders = list(_of(found, "encode").values())
    pools = {(n, size): r for (what, n, size), r in found.items() if what == "pool"}
    sizes = sorted(n for n, size in pools if size == max(POOLS) and (n, min(POOLS)) in pools)
    if len(fits) < 2 or len(gates) < 2 or len(sizes) < 2 or not rays or not encoders:
        return None
    (ray_labels, ray), encoder = max(rays.items()), encoders[0]
    fewer, more = sorted(fits)[-2:]
    per_label = (_peak(fits[more]) - _peak(fits[fewer])) * 1e6 / (more - fewer)
    size_per_label = (fits[more]["bundle bytes"] - fits[fewer]["bundle bytes"]) / (more - fewer)
    whole = pools[sizes[-1], max(POOLS)]
    start_s = sum(_phase(ray, name, "s") for name in ("session", "encode", "partition"))
    return {
        "machine": f"{_processor()}, {psutil.cpu_count()} cores",
        "rows_per_label": scale_steps.PER_LABEL,
        "fit_cpu_s_per_label_by_labels": _by(fits, lambda n, r: _phase(r, "fit", "cpu_s") / n),
        "fit_serial_s_by_labels": _by(
            fits, lambda _, r: _phase(r, "partition", "s") + r["router s"]
        ),
        "gate_cpu_s_by_labels": _by(
            gates, lambda _, r: _phase(r, "fit", "cpu_s") + _phase(r, "crossfit", "cpu_s")
        ),
        "refit_cpu_s_per_label_by_labels": _by(fits, lambda n, r: _refit(r) / n),
        "score_texts_per_cpu_s_by_labels": _by(fits, lambda _, r: r["n scored"] / r["score cpu s"]),
        "score_serial_share_by_labels": {
            str(n): pools[n, max(POOLS)]["weigh cpu s"]
            / (pools[n, max(POOLS)]["weigh cpu s"] + pools[n, max(POOLS)]["score cpu s"])
            for n in sizes
        },
        "select_s_per_row": whole["select s"] / max(POOLS),
        "encode_texts_per_cpu_s": encoder["n encoded"] / _phase(encoder, "encode", "cpu_s"),
        "text_words": encoder["words"],
        "pool_bytes_per_row_by_labels": {
            str(n): (_pool_peak(pools[n, max(POOLS)]) - _pool_peak(pools[n, min(POOLS)]))
            * 1e6
            / (max(POOLS) - min(POOLS))
            for n in sizes
        },
        "train_bytes_per_label": per_label,
        "bundle_bytes_per_label": size_per_label,
        "peak_bytes_fixed": max(0.0, _peak(ray) * 1e6 - ray_labels * per_label),
        "start_s": max(0.0, start_s - _phase(fits[ray_labels], "partition", "s"))
        if ray_labels in fits
        else start_s,
    }


def _refit(result: Result) -> float:
    return float(result["iteration"]["fit cpu s"] + result["iteration"]["recalibrate cpu s"])


def _by(of: dict[int, Result], value: Callable[[int, Result], float]) -> dict[str, float]:
    return {str(n): value(n, result) for n, result in of.items()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def _units_table(units: Mapping[str, Any]) -> str:
    lines = ["| unit cost | measured |", "|---|---|"]
    for name, value in units.items():
        told = value
        if isinstance(value, Mapping):
            told = ", ".join(f"{int(n):,}: {one:.3g}" for n, one in value.items())
        elif isinstance(value, float):
            told = f"{value:.4g}"
        lines.append(f"| {name} | {told} |")
    return "\n".join(lines)


CELLS = [
    *({"what": "fit", "labels": n} for n in LABELS),
    {"what": "ray", "labels": 1_000},
    *({"what": "gate", "labels": n} for n in GATE_LABELS),
    {"what": "encode", "labels": 1_000},
    *({"what": "pool", "labels": n, "pool": size} for n in (100, 1_000) for size in POOLS),
]

if __name__ == "__main__":
    main(Benchmark("scale", CELLS, run, table, SOURCES))
