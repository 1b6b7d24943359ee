"""The published data sets through our readers: their known traps are found and counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from red_ray.config import load_config
from red_ray.data.inputs import read_inputs, read_test

pytestmark = pytest.mark.data


@pytest.fixture
def folder():
    default = Path(__file__).resolve().parents[4] / "shared" / "data"
    place = Path(os.environ.get("RED_RAY_DATA", default))
    if not place.is_dir():
        pytest.skip(f"no data sets at {place}: set RED_RAY_DATA to where they are")
    return place


@pytest.mark.parametrize(
    ("name", "n_labels", "n_test", "n_leaks"),
    [("banking77", 77, 3080, 7), ("clinc150", 150, 4500, 2)],
)
def test_test_rows_that_stand_in_train_are_dropped_and_counted(
    folder, name, n_labels, n_test, n_leaks
):
    """Defect 3: no test row is one that training or pool held."""
    config = load_config(overrides={"samples_per_class": 10})
    inputs = read_inputs(config, folder / name / "train.csv", None, None)
    labels = frozenset(inputs.train.labels)
    test = read_test(config, inputs.seen_keys, labels, test=folder / name / "test.csv")
    assert len(labels) == n_labels
    assert len(inputs.train) == 10 * n_labels
    assert (len(test.rows), test.n_dropped) == (n_test - n_leaks, n_leaks)


def test_out_of_scope_rows_are_read_and_never_a_label(folder):
    config = load_config(overrides={"samples_per_class": 10})
    place = folder / "clinc150"
    inputs = read_inputs(config, place / "train.csv", None, None)
    labels = frozenset(inputs.train.labels)
    oos = place / "oos_test.csv"
    test = read_test(config, inputs.seen_keys, labels, test=place / "test.csv", out_of_scope=oos)
    assert len(test.out_of_scope) == 1000
    assert "oos" not in labels
