"""The scale benchmark: growth, unit costs for the sizing table, and what is projected from them."""

from __future__ import annotations

import pytest

from benchmarks import scale
from benchmarks.scale_projection import beyond, projection

KEYS = {
    "machine",
    "rows_per_label",
    "fit_cpu_s_per_label_by_labels",
    "fit_serial_s_by_labels",
    "gate_cpu_s_by_labels",
    "refit_cpu_s_per_label_by_labels",
    "score_texts_per_cpu_s_by_labels",
    "score_serial_share_by_labels",
    "select_s_per_row",
    "encode_texts_per_cpu_s",
    "text_words",
    "pool_bytes_per_row_by_labels",
    "train_bytes_per_label",
    "bundle_bytes_per_label",
    "peak_bytes_fixed",
    "start_s",
}


def phases(cpu_s, peak_mb, *names):
    return {name: {"s": cpu_s / 2, "cpu_s": cpu_s, "peak_mb": peak_mb} for name in names}


def fitted(n):
    """0.1 CPU s and 1 MB for a label beside 500 MB."""
    iteration = {"fit cpu s": 2.0, "recalibrate cpu s": 4.0, "score cpu s": 1.0}
    return {
        "phases": phases(
            0.1 * n, 500 + n, "partition", "fit", "iteration", "load", "ready", "score"
        ),
        "router s": 1.0,
        "iteration": iteration | {"acquire cpu s": 1.0},
        "n scored": 4000,
        "score s": 2.0,
        "score cpu s": 4.0,
        "bundle bytes": 2_000_000 + 30_000 * n,
        "encode ms": 5.0,
        "after ms": 2.0,
        "after cpu ms": 2.0,
        "load before": 0.1,
    }


def chosen(size):
    """2 KB for a row of the pool beside 700 MB."""
    return {
        "phases": phases(8.0, 700 + size * 2000 / 1e6, "read", "weigh", "select"),
        "score cpu s": 1.0,
        "weigh cpu s": 3.0,
        "n weighed": 4000,
        "select s": 20.0,
        "select cpu s": 20.0,
        "at once": 2000,
        "load before": 0.2,
    }


@pytest.fixture
def found():
    one = {"load before": 0.1}
    return {
        **{("fit", n, 0): fitted(n) for n in (100, 1000)},
        ("ray", 1000, 0): one | {"phases": phases(3.0, 2500, "session", "encode", "partition")},
        **{("gate", n, 0): one | {"phases": phases(9.0, 1, "fit", "crossfit")} for n in (100, 300)},
        ("encode", 1000, 0): one
        | {"phases": phases(4.0, 1, "encode"), "n encoded": 2000, "words": 9.0},
        **{("pool", n, size): chosen(size) for n in (100, 1000) for size in (10_000, 1_000_000)},
    }


def test_unit_costs_are_what_the_sizing_table_reads(found):
    units = scale.unit_costs(found)
    assert set(units) == KEYS
    assert units["fit_cpu_s_per_label_by_labels"] == pytest.approx({"100": 0.1, "1000": 0.1})
    assert units["train_bytes_per_label"] == pytest.approx(1e6)
    assert units["peak_bytes_fixed"] == pytest.approx(1.5e9)
    assert units["bundle_bytes_per_label"] == pytest.approx(30_000)
    assert units["pool_bytes_per_row_by_labels"] == pytest.approx({"100": 2000, "1000": 2000})
    assert units["score_serial_share_by_labels"] == pytest.approx({"100": 0.75, "1000": 0.75})
    assert units["select_s_per_row"] == pytest.approx(2e-5)
    assert units["encode_texts_per_cpu_s"] == pytest.approx(500)


@pytest.mark.parametrize("missing", ["fit", "ray", "gate", "encode", "pool"])
def test_there_are_none_before_everything_is_measured(found, missing):
    left = {cell: result for cell, result in found.items() if cell[0] != missing}
    assert scale.unit_costs(left) is None


def test_the_exponent_is_that_of_a_power_law():
    assert scale.exponent({n: 3 * n**1.2 for n in (100, 300, 1000)}) == pytest.approx(1.2)
    assert scale.exponent({100: 1.0}) is None


def test_a_cost_goes_on_with_the_power_of_the_last_two_points():
    assert beyond({"10": 99.0, "100": 2.0, "1000": 20.0}, 10_000) == pytest.approx(200.0)


def test_the_projection_shows_its_arithmetic(found):
    text = projection(scale.unit_costs(found))
    assert "| encode, once | 100,000,000 / 500 a CPU s | 56 | 0.06 |" in text
    assert "Assumed:" in text


def test_a_partial_table_says_what_it_lacks(found, tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "RESULTS", tmp_path)
    cells = [({"what": "fit", "labels": n}, fitted(n)) for n in (100, 1000)]
    text = scale.table(cells)
    assert "power 1.00" in text
    assert "not all cells are measured yet" in text
    assert "power 1.00" in (tmp_path / "scale_short.md").read_text()
