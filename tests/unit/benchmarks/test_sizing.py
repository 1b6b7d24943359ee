"""The sizing table follows from unit costs by arithmetic that can be checked by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import sizing
from benchmarks.readme import with_block
from benchmarks.sizing import Assumptions, Case, Machine, Units

UNITS = Units(
    machine="a test",
    rows_per_label=20,
    fit_cpu_s_per_label_by_labels={100: 1.0, 1000: 2.0},
    fit_serial_s_by_labels={100: 10.0, 1000: 100.0},
    gate_cpu_s_by_labels={100: 0.0, 1000: 0.0},
    refit_cpu_s_per_label_by_labels={100: 0.1, 1000: 0.1},
    score_texts_per_cpu_s_by_labels={100: 1000.0, 1000: 100.0},
    score_serial_share_by_labels={100: 0.5, 1000: 0.5},
    select_s_per_row=1e-4,  # at 1,000 labels
    encode_texts_per_cpu_s=100.0,
    text_words=10.0,
    pool_bytes_per_row_by_labels={100: 1000.0, 1000: 1000.0},
    train_bytes_per_label=1e6,
    bundle_bytes_per_label=1e4,
    peak_bytes_fixed=2e9,
    start_s=20.0,
)
SMALL = Machine("small", 10, 16, 1.0)
LARGE = Machine("large", 10, 160, 10.0)
ASSUMED = Assumptions(
    machines=(SMALL, LARGE),
    head_usd_per_hour=0.5,
    judge_latency_s=2.0,
    judge_concurrency=20,
    judge_usd_per_call=0.01,
    wanted_hours=1.0,
)


@pytest.mark.parametrize(
    ("n_labels", "value"),
    [(100, 1.0), (1000, 2.0), (10_000, 4.0), (10, 0.5), (316.2277660168379, 2**0.5)],
)
def test_between_and_beyond_what_was_measured_a_power_law_holds(
    n_labels: int, value: float
) -> None:
    assert sizing.at(UNITS.fit_cpu_s_per_label_by_labels, n_labels) == pytest.approx(value)


def test_the_two_nearest_measurements_count() -> None:
    assert sizing.at({100: 1.0, 300: 1.0, 1000: 10.0}, 200) == pytest.approx(1.0)
    assert sizing.at({100: 1.0, 300: 1.0, 1000: 10.0}, 1000) == pytest.approx(10.0)


def test_a_cost_of_nothing_has_no_power_law() -> None:
    assert sizing.at({100: 0.0, 1000: 5.0}, 200) == 0.0
    assert sizing.at({100: 0.0, 1000: 5.0}, 900) == 5.0


def test_work_is_the_sum_of_its_parts() -> None:
    work = sizing.work_of(Case(100, 10_000, 1_000), UNITS, ASSUMED)
    # 10 iterations of 100 calls; the pool is scored before each and once at the end.
    assert work.spread_cpu_s == pytest.approx(
        {"encoding": 120.0, "experts": 2 * 100 * 1.0 + 10 * 100 * 0.1, "scoring": 55.0}
    )
    assert work.serial_s == pytest.approx(
        {
            "start": 20.0,
            "partition, router": 20.0,
            "gate": 0.0,
            "the router's part of scoring": 55.0,
            "selection": 1.0,
            "judge": 100.0,
        }
    )
    assert work.bytes_a_machine == pytest.approx(2e9 + 1e8 + 1e7)


def test_without_calls_there_is_no_loop() -> None:
    work = sizing.work_of(Case(100, 10_000, 0), UNITS, ASSUMED)
    assert work.serial_s["selection"] == work.serial_s["judge"] == 0
    assert work.spread_cpu_s["experts"] == pytest.approx(200.0)


def test_experts_spread_over_no_more_processors_than_there_are_experts() -> None:
    case = Case(16, 10_000, 0)  # two experts
    work = sizing.work_of(case, UNITS, ASSUMED)
    parts = sizing.parts_on(work, case, SMALL, 4)
    assert parts["experts"] == pytest.approx(work.spread_cpu_s["experts"] / 2)
    assert parts["encoding"] == pytest.approx(work.spread_cpu_s["encoding"] / 40)


def test_one_machine_where_it_is_done_in_time() -> None:
    size = sizing.size_of(Case(100, 10_000, 1_000), UNITS, ASSUMED)
    assert size is not None
    assert (size.machine, size.n_machines, size.most) == (SMALL, 1, "judge")
    hours = (20 + 20 + 55 + 1 + 100 + (120 + 300 + 55) / 10) / 3600
    assert size.hours == pytest.approx(hours)
    assert size.usd_machines == pytest.approx(hours * 1.5)
    assert size.usd_judge == pytest.approx(10.0)


def test_more_machines_where_that_is_what_it_takes() -> None:
    case = Case(1_000, 1_000_000, 0)
    one = sizing.size_of(case, UNITS, replace(ASSUMED, wanted_hours=100))
    two = sizing.size_of(case, UNITS, replace(ASSUMED, wanted_hours=1.9))
    assert one is not None
    assert two is not None
    assert (one.n_machines, two.n_machines) == (1, 2)
    assert two.hours < 0.9 * one.hours


def test_no_more_machines_where_they_gain_nothing() -> None:
    alone = replace(UNITS, score_serial_share_by_labels={100: 1.0, 1000: 1.0})
    size = sizing.size_of(Case(1_000, 3_000_000, 1_000), alone, ASSUMED)
    assert size is not None
    assert size.hours > ASSUMED.wanted_hours
    assert size.n_machines < sizing.MOST_MACHINES
    assert size.most == "the router's part of scoring"


def test_the_memory_decides_on_the_machine() -> None:
    size = sizing.size_of(Case(1_000, 50_000_000, 0), UNITS, ASSUMED)
    assert size is not None
    assert size.machine == LARGE
    assert sizing.size_of(Case(1_000, 500_000_000, 0), UNITS, ASSUMED) is None


def test_the_table_says_what_was_measured_and_what_is_assumed() -> None:
    cases = [Case(100, 10_000, 1_000), Case(1_000, 500_000_000, 0)]
    head, _, first, second, _, told = sizing.table(UNITS, cases, ASSUMED).split("\n")
    assert head.count("|") == first.count("|") == second.count("|")
    assert first.startswith("| 100 | 10,000 | 1,000 | 1 × small | 4 min | judge |")
    assert "fits none of these" in second
    assert "Measured on a test, texts of 10 words; a bundle takes 10 kB a label." in told
    assert "at 0.01 USD" in told


def test_units_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "units.json"
    path.write_text(json.dumps(asdict(UNITS)), "utf-8")
    assert sizing.read_units(path) == UNITS
    assert sizing.block(path).startswith("| labels |")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"start_seconds": 1}, "start_seconds"),
        ({"start_s": None}, "missing start_s"),
        ({"gate_cpu_s_by_labels": {"100": 1}}, "needs two numbers of labels"),
    ],
)
def test_units_of_another_make_are_refused(
    tmp_path: Path, change: dict[str, object], told: str
) -> None:
    values = {key: value for key, value in (asdict(UNITS) | change).items() if value is not None}
    path = tmp_path / "units.json"
    path.write_text(json.dumps(values), "utf-8")
    with pytest.raises(ValueError, match=told):
        sizing.read_units(path)


def test_the_document_holds_what_the_kept_unit_costs_give() -> None:
    text = sizing.DOCS.read_text("utf-8")
    assert "<!-- sizing -->" in text
    assert with_block(text, "sizing", sizing.block()) == text
