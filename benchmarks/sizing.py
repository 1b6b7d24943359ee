"""How many machines, hours and dollars a training takes, by the unit costs of benchmarks/scale.py.

`python -m benchmarks.sizing` writes the table into docs/cluster.md. The unit costs are measured;
what is assumed (machines, prices, the judge) stands in `Assumptions` and is printed with the table.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.cells import RESULTS, ROOT
from benchmarks.readme import with_block

UNITS = RESULTS / "scale" / "units.json"
DOCS = ROOT / "docs" / "cluster.md"
NOT_YET = (
    "*Not filled in: `python -m benchmarks.scale` measures the unit costs, "
    "`python -m benchmarks.sizing` makes the table of them.*"
)

FULL_FITS = 2
"""At the start of the loop and at its end; see the design, Expert."""

ITERATIONS, PER_ITERATION = 10, 100
"""`loop.max_iterations` and `loop.samples_per_iteration` as they are by default; with more calls
than both allow, an iteration asks more."""

SUBSET = 8
"""Labels of an expert: a fit spreads over no more processors than there are experts."""

MEMORY_SHARE = 0.7
"""Of a machine's memory; the rest is the system's, and room for spikes."""

MOST_MACHINES = 16

ByLabels = Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Units:
    """What things cost, as benchmarks/scale.py measured it.

    CPU seconds are summed over processes; `…_serial_s…` are wall seconds of what one process does
    however many machines there are; `…_by_labels` holds a value for each measured number of labels.

    Attributes:
        machine: where it was measured.
        rows_per_label: training rows of each label.
        fit_cpu_s_per_label_by_labels: one full fit of experts with cross-fitting, per label.
        fit_serial_s_by_labels: partition, router and calibration of that fit, whole.
        gate_cpu_s_by_labels: the gate's fit with cross-fitting, whole; in one process.
        refit_cpu_s_per_label_by_labels: what an iteration refits, per label.
        score_texts_per_cpu_s_by_labels: the whole model on given embeddings.
        score_serial_share_by_labels: of that, what one process does.
        select_s_per_row: acquisition from given scores, in one process; at the most labels that
            pools were measured with.
        encode_texts_per_cpu_s: the encoder.
        text_words: mean words of the texts that were encoded.
        pool_bytes_per_row_by_labels: peak memory that grows with the pool.
        train_bytes_per_label: peak memory that grows with the labels.
        bundle_bytes_per_label: on disk.
        peak_bytes_fixed: the rest of the peak.
        start_s: until all actors are there.
    """

    machine: str
    rows_per_label: float
    fit_cpu_s_per_label_by_labels: ByLabels
    fit_serial_s_by_labels: ByLabels
    gate_cpu_s_by_labels: ByLabels
    refit_cpu_s_per_label_by_labels: ByLabels
    score_texts_per_cpu_s_by_labels: ByLabels
    score_serial_share_by_labels: ByLabels
    select_s_per_row: float
    encode_texts_per_cpu_s: float
    text_words: float
    pool_bytes_per_row_by_labels: ByLabels
    train_bytes_per_label: float
    bundle_bytes_per_label: float
    peak_bytes_fixed: float
    start_s: float


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that can be rented; `cpu_speed` is against the processors of the measurement."""

    name: str
    n_cpus: int
    memory_gib: float
    usd_per_hour: float
    cpu_speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What was not measured here. Prices: AWS, on demand, us-west-2, in USD, as we know them."""

    machines: tuple[Machine, ...] = (
        Machine("m7i.4xlarge", 16, 64, 0.8064),
        Machine("r7i.4xlarge", 16, 128, 1.0584),
        Machine("r7i.16xlarge", 64, 512, 4.2336),
    )
    head_usd_per_hour: float = 0.2016  # m7i.xlarge
    judge_latency_s: float = 1.0
    judge_concurrency: int = 64
    judge_usd_per_call: float = 0.0003  # 1,000 tokens in, 25 out, at 0.25 and 2 USD a million
    wanted_hours: float = 1.0

    def in_words(self, units: Units) -> str:
        """One paragraph for below the table."""
        machines = ", ".join(
            f"{one.name} ({one.n_cpus} processors, {one.memory_gib:g} GiB) at "
            f"{one.usd_per_hour:.2f}"
            for one in self.machines
        )
        return (
            f"Measured on {units.machine}, texts of {units.text_words:.0f} words; a bundle takes "
            f"{units.bundle_bytes_per_label / 1e3:,.0f} kB a label. Assumed: a rented processor "
            f"does as much as one of those; {machines} USD an hour, the head at "
            f"{self.head_usd_per_hour:.2f}; a judge that takes {self.judge_latency_s:g} s a call, "
            f"{self.judge_concurrency} at a time, at {self.judge_usd_per_call:g} USD."
        )


@dataclass(frozen=True, slots=True)
class Case:
    """A training: labels, texts of the pool, calls of the judge."""

    n_labels: int
    n_pool: int
    n_calls: int


@dataclass(frozen=True, slots=True)
class Work:
    """What a training takes: seconds of one process after the other, and CPU seconds that spread.

    Attributes:
        serial_s: by part.
        spread_cpu_s: by part.
        bytes_a_machine: the pool is on each machine, since experts of each look at all of it.
    """

    serial_s: Mapping[str, float]
    spread_cpu_s: Mapping[str, float]
    bytes_a_machine: float


@dataclass(frozen=True, slots=True)
class Size:
    """How a case is run: machines, hours, and what takes most of them."""

    machine: Machine
    n_machines: int
    hours: float
    most: str
    usd_machines: float
    usd_judge: float


CASES = (
    Case(100, 10_000, 1_000),
    Case(100, 1_000_000, 1_000),
    Case(300, 100_000, 3_000),
    Case(1_000, 100_000, 5_000),
    Case(1_000, 1_000_000, 10_000),
    Case(1_000, 10_000_000, 10_000),
    Case(3_000, 1_000_000, 30_000),
    Case(3_000, 10_000_000, 30_000),
)


def read_units(path: Path) -> Units:
    """Read what benchmarks/scale.py wrote.

    Raises:
        ValueError: a key is unknown or missing, or a value is not what it should be.
    """
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    wanted = {one.name for one in fields(Units)}
    if wrong := sorted(wanted ^ set(found)):
        raise ValueError(f"{path.name}: unknown or missing {', '.join(wrong)}")
    values = {
        name: _by_labels(name, value) if name.endswith("_by_labels") else value
        for name, value in found.items()
    }
    return Units(**values)


def _by_labels(name: str, value: Mapping[str, float]) -> dict[int, float]:
    if len(value) < 2:
        raise ValueError(f"{name} needs two numbers of labels, has {sorted(value)!r}")
    return {int(labels): float(each) for labels, each in sorted(value.items(), key=_number)}


def _number(pair: tuple[str, float]) -> int:
    return int(pair[0])


def at(values: ByLabels, n_labels: int) -> float:
    """The value at a number of labels: by the power law of the two nearest measured ones.

    Where one of them is 0 there is no such law, and the nearer one counts.
    """
    known = sorted(values)
    upper = next((one for one in known[1:] if one >= n_labels), known[-1])
    lower = known[known.index(upper) - 1]
    low, high = values[lower], values[upper]
    if min(low, high) <= 0:
        return low if abs(n_labels - lower) < abs(n_labels - upper) else high
    exponent = math.log(high / low) / math.log(upper / lower)
    return float(low * (n_labels / lower) ** exponent)


def work_of(case: Case, units: Units, assumed: Assumptions) -> Work:
    """What a case takes, whatever it runs on."""
    n_labels, n_pool = case.n_labels, case.n_pool
    n_asked = min(ITERATIONS, math.ceil(case.n_calls / PER_ITERATION))
    score_s = (n_asked + 1) * n_pool / at(units.score_texts_per_cpu_s_by_labels, n_labels)
    alone = min(1.0, at(units.score_serial_share_by_labels, n_labels))
    fit_s = FULL_FITS * n_labels * at(units.fit_cpu_s_per_label_by_labels, n_labels)
    fit_s += n_asked * n_labels * at(units.refit_cpu_s_per_label_by_labels, n_labels)
    # Scores are read for every label of a row.
    select_s = n_pool * units.select_s_per_row * n_labels / max(units.pool_bytes_per_row_by_labels)
    return Work(
        serial_s={
            "start": units.start_s,
            "partition, router": FULL_FITS * at(units.fit_serial_s_by_labels, n_labels),
            "gate": FULL_FITS * at(units.gate_cpu_s_by_labels, n_labels),
            "the router's part of scoring": alone * score_s,
            "selection": n_asked * select_s,
            "judge": case.n_calls * assumed.judge_latency_s / assumed.judge_concurrency,
        },
        spread_cpu_s={
            "encoding": (n_pool + n_labels * units.rows_per_label) / units.encode_texts_per_cpu_s,
            "experts": fit_s,
            "scoring": (1 - alone) * score_s,
        },
        bytes_a_machine=units.peak_bytes_fixed
        + n_labels * units.train_bytes_per_label
        + n_pool * at(units.pool_bytes_per_row_by_labels, n_labels),
    )


def parts_on(work: Work, case: Case, machine: Machine, n_machines: int) -> dict[str, float]:
    """Wall seconds of each part on so many machines."""
    n_cpus = n_machines * machine.n_cpus
    n_experts = math.ceil(case.n_labels / SUBSET)
    parts = {
        part: cpu_s / min(n_cpus, n_cpus if part == "encoding" else n_experts) / machine.cpu_speed
        for part, cpu_s in work.spread_cpu_s.items()
    }
    return {**work.serial_s, **parts}


def size_of(case: Case, units: Units, assumed: Assumptions) -> Size | None:
    """The cheapest machine that holds it, and the fewest of them that are done in time.

    Where more machines gain less than a tenth, no more are taken. None: it fits none of them.
    """
    work = work_of(case, units, assumed)
    fits = [
        one
        for one in assumed.machines
        if work.bytes_a_machine <= MEMORY_SHARE * one.memory_gib * 2**30
    ]
    if not fits:
        return None
    machine, n_machines = fits[0], 1
    hours = _hours(work, case, machine, n_machines)
    while hours > assumed.wanted_hours and n_machines < MOST_MACHINES:
        more = _hours(work, case, machine, 2 * n_machines)
        if more > 0.9 * hours:
            break
        n_machines, hours = 2 * n_machines, more
    parts = parts_on(work, case, machine, n_machines)
    return Size(
        machine=machine,
        n_machines=n_machines,
        hours=hours,
        most=max(parts, key=parts.__getitem__),
        usd_machines=hours * (n_machines * machine.usd_per_hour + assumed.head_usd_per_hour),
        usd_judge=case.n_calls * assumed.judge_usd_per_call,
    )


def _hours(work: Work, case: Case, machine: Machine, n_machines: int) -> float:
    return sum(parts_on(work, case, machine, n_machines).values()) / 3600


def table(units: Units, cases: Sequence[Case], assumed: Assumptions) -> str:
    """The sizing table, with what was measured and what is assumed below it."""
    lines = [
        "| labels | pool texts | judge calls | machines | time | most of it | GB a machine "
        "| USD machines | USD judge |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        told = f"{case.n_labels:,} | {case.n_pool:,} | {case.n_calls:,}"
        gb = work_of(case, units, assumed).bytes_a_machine / 1e9
        size = size_of(case, units, assumed)
        if size is None:
            lines.append(f"| {told} | fits none of these | – | – | {gb:,.0f} | – | – |")
            continue
        lines.append(
            f"| {told} | {size.n_machines} × {size.machine.name} | {_in_words(size.hours)} "
            f"| {size.most} | {gb:,.1f} | {size.usd_machines:,.2f} | {size.usd_judge:,.2f} |"
        )
    return "\n".join([*lines, "", assumed.in_words(units)])


def _in_words(hours: float) -> str:
    minutes = hours * 60
    if minutes < 90:
        return f"{max(1, round(minutes))} min"
    return f"{hours:,.1f} h"


def block(path: Path = UNITS) -> str:
    """What stands in docs/cluster.md: the table, or that there are no unit costs yet."""
    if not path.exists():
        return NOT_YET
    return table(read_units(path), CASES, Assumptions())


def main() -> None:
    """Command line: print the table, and put it into the document."""
    parser = argparse.ArgumentParser(description="the sizing table of docs/cluster.md")
    parser.add_argument("--units", type=Path, default=UNITS, help="what benchmarks/scale.py wrote")
    found = block(parser.parse_args().units)
    print(found)
    DOCS.write_text(with_block(DOCS.read_text("utf-8"), "sizing", found), "utf-8")


if __name__ == "__main__":
    main()
