"""The seed's table: which cells there are, what is shared, and how a part of it prints."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import red_table
from benchmarks.cells import cell_name
from red_ray.data.prepare import HiddenLabels
from red_ray.types import Iteration

INFORMATIVE, THEN_ALL = red_table.STOP_MODES


def cell(**over):
    base = next(c for c in red_table.CELLS if c["stop_mode"] == INFORMATIVE)
    return {**base, **over}


def iteration(number, n_labelled, n_none):
    counts = dict.fromkeys(("n_unreadable", "n_failed", "n_cached", "n_train", "n_pool"), 0)
    times = {f"{name}_s": 0.5 for name in ("fit", "score", "acquire", "judge", "recalibrate")}
    return Iteration(
        iteration=number,
        phase="informative",
        n_asked=n_labelled + n_none,
        n_labelled=n_labelled,
        n_none=n_none,
        n_requests=n_labelled + n_none,
        experts_refitted=(),
        mean_uncertainty=0.5,
        log_likelihood=None,
        estimated_accuracy=None,
        label_precision=None,
        **counts,
        **times,
    )


def result(accuracy=0.9, stopped="max_iterations", **over):
    return {
        **{key: 0.5 for _, key, *_ in red_table.BY_ORACLE + red_table.MORE + red_table.HONEST},
        "accuracy": accuracy,
        "stopped": stopped,
        "rows": {"train": 10, "pool": 5, "test": 4},
        "scorecard": {"leaks": {"train_test_dropped": 1}},
        "iterations": [red_table.history(iteration(1, 3, 1))],
        "subsets": [
            {
                "expert": "expert-00",
                "labels": ["a", "b"],
                "n_rows": 6,
                "n_noise": 4,
                "accuracy_inside": None,
                "accuracy": 0.75,
            }
        ],
        **over,
    }


class TestCells:
    def test_there_is_one_of_each_and_none_without_test_rows(self):
        names = [cell_name(one) for one in red_table.CELLS]
        assert len(set(names)) == len(names) == 84
        short = {one["per_label"] for one in red_table.CELLS if "short" in one["data"]}
        assert short == {30}

    def test_three_seeds_for_logistic_regression_at_thirty_and_one_for_the_rest(self):
        again = [one for one in red_table.CELLS if one["seed"]]
        assert {(one["per_label"], one["expert"], one["iterations"]) for one in again} == {
            (30, "logistic_regression", 10)
        }

    def test_the_forest_and_the_long_run_stand_once_for_each_data_set(self):
        for over in ({"expert": "random_forest"}, {"iterations": 50}):
            found = [one for one in red_table.CELLS if over.items() <= one.items()]
            assert [one["data"] for one in found] == list(red_table.SETS)
            assert {(one["judge"], one["stop_mode"]) for one in found} == {(0.9, INFORMATIVE)}


class TestSecondStopMode:
    @pytest.fixture
    def ran(self, monkeypatch):
        """The stop modes that were run; the informative texts run out as `stopped` says."""
        ran = []

        def one_run(**over):
            ran.append(over["stop_mode"])
            return result(stopped=self.stopped if over["stop_mode"] == INFORMATIVE else "plateau")

        monkeypatch.setattr(red_table, "one_run", one_run)
        return ran

    @pytest.mark.parametrize("stopped", ["max_iterations", "plateau"])
    def test_it_is_the_first_where_that_had_informative_texts_left(self, ran, stopped):
        self.stopped = stopped
        found = red_table.run(cell(stop_mode=THEN_ALL))
        assert (found["stopped"], found["same run as"]) == (stopped, INFORMATIVE)
        assert ran == [INFORMATIVE]

    def test_it_runs_where_they_ran_out(self, ran):
        self.stopped = "no_informative"
        found = red_table.run(cell(stop_mode=THEN_ALL))
        assert found["stopped"] == "plateau"
        assert "same run as" not in found
        assert ran == [INFORMATIVE, THEN_ALL]


def test_flat_told_the_subset_chooses_inside_it():
    """Its favourite, label 3, is of the other subset for the first two texts."""
    scores = np.array([[0.1, 0.0, 0.2, 0.9, 0.0], [0.1, 0.0, 0.2, 0.9, 0.0], [0.9, 0.5, 0, 0.1, 9]])
    model = SimpleNamespace(
        gate=SimpleNamespace(score=lambda vectors: scores), subsets=((0, 2), (1, 3))
    )
    chosen = red_table.flat_in_subset(model, np.zeros((3, 2)), np.array([0, 2, 1]))
    assert chosen.tolist() == [2, 2, 1]


def test_label_precision_is_of_the_rows_that_the_iteration_added():
    model = SimpleNamespace(
        n_seed=1,
        labels=("a", "b"),
        example_texts=("seed", "one", "two", "three"),
        example_labels=np.array([0, 0, 1, 1]),
    )
    rounds = (iteration(1, 2, 0), iteration(2, 0, 2), iteration(3, 1, 0))
    trained = SimpleNamespace(model=model, iterations=rounds)
    hidden = HiddenLabels.of_texts([("one", "a"), ("two", "a"), ("three", "b")])
    found = red_table.with_precision(trained, SimpleNamespace(hidden=hidden))
    assert [one.label_precision for one in found] == [0.5, None, 1.0]


def test_the_average_rate_is_the_mean_over_iterations():
    asked = red_table.asked([iteration(1, 90, 10), iteration(2, 1, 1)])
    assert (asked["validated"], asked["validation rate"]) == (91, pytest.approx(0.7))


class TestTables:
    @pytest.fixture
    def written(self, monkeypatch, tmp_path):
        monkeypatch.setattr(red_table, "RESULTS", tmp_path)
        return tmp_path / "red_table_short.md"

    def test_a_part_of_the_cells_prints_and_the_rest_is_a_dash(self, written):
        done = [(cell(judge=0.9), result(0.8125))]
        whole = red_table.tables(done)
        name = f"{done[0][0]['data']}, 30, simulated judge 90%, {INFORMATIVE}"
        assert f"| {name} | 81.25 | 0.5000 |" in whole
        assert whole.count(f"<summary>{name}</summary>") == 2
        assert "| 1 | informative | 4 | 3 | 75.0 | – | 2.50 | 0.8333 |" in whole
        assert "| expert-00 | a, b | 6 | 4 | – | 75.0 |" in whole
        assert "| clinc150, 100 | – | – |" in written.read_text()

    def test_rows_without_test_rows_say_so(self, written):
        whole = red_table.tables([(cell(), result())])
        for text in (whole, written.read_text()):
            rows = [line for line in text.splitlines() if line.startswith("| seed_short_text, 50")]
            assert rows
            assert all("| no honest test set | –" in line for line in rows)

    def test_seeds_become_a_mean_and_its_interval(self, written):
        done = [(cell(judge=0.9, seed=n), result(0.8 + n / 100)) for n in range(3)]
        assert "| 81.00 ± 2.48 |" in red_table.tables(done)
        assert "| 81.00 ± 2.48 |" in written.read_text()

    def test_a_shared_run_is_named_as_one(self, written):
        shared = result() | {"same run as": INFORMATIVE}
        whole = red_table.tables([(cell(stop_mode=THEN_ALL), shared)])
        assert f"max_iterations (the same run as {INFORMATIVE})" in whole
