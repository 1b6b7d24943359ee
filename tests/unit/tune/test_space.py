"""A sweep's file: what it may hold, what is refused in one line, and the settings it makes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from red_ray.errors import ConfigError
from tune.space import Range, base_config, known_settings, load_sweep, setting_of

SHIPPED = Path(__file__).parents[3] / "tune"
RANGES = {
    "noise.factor": {"loguniform": [0.5, 8]},
    "loop.diversity": {"uniform": [0, 1]},
    "partition.subset_size": {"randint": [2, 4]},
}


def written(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


GOOD = """
data: {train: rows/train.csv}
space: {partition.subset_size: [4, 8]}
"""


def test_paths_are_relative_to_the_file_and_variables_are_filled_in(tmp_path, monkeypatch):
    monkeypatch.setenv("ROWS", "/data")
    text = "data: {train: rows/train.csv, pool: '${ROWS}/pool.csv'}\nspace: {seed: [1, 2]}\n"
    data = load_sweep(written(tmp_path, text)).data
    assert data.train == tmp_path / "rows" / "train.csv"
    assert data.pool == Path("/data/pool.csv")


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("serch: grid", "unknown configuration key 'serch'; did you mean 'search'"),
        ("search: random", "'random' needs n_trials"),
        ("n_trials: 3", "drop n_trials"),
        ("goals: [{catch_eror: 0.9}]", "did you mean 'goals.0.catch_errors'"),
        ("goals: [{catch_errors: 1.5}]", "goals.0.catch_errors: .*less than 1, got 1.5"),
        ("goals: [{none_recall: 0.9}]", "none_recall needs texts that fit no label"),
        ("objective: {}", "one of escalated_at_most and accuracy_at_least"),
        ("scheduler: asha", "without a judge there are none"),
        ("config: {judge: {paraphrases: 9}}", "what a judge writes is none of them; set it to 0"),
        ("config: {partition: {subset_sise: 4}}", "did you mean 'partition.subset_size'"),
        ("config: {router: {goal: {precision: 0.9}}}", "from the key `goals`"),
        ("search: grid\nsearch: grid", "the key 'search' twice"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_the_remedy(tmp_path, added, message):
    with pytest.raises(ConfigError, match=message) as found:
        load_sweep(written(tmp_path, f"{GOOD}{added}\n"))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("partition.subset_sise: [4]", "did you mean 'partition.subset_size'"),
        ("partition: [4]", "unknown configuration key 'partition'"),
        ("partition.subset_size: [4, 1]", "greater than or equal to 2, got 1"),
        ("partition.subset_size: {randint: [1, 8]}", "greater than or equal to 2, got 1"),
        ("partition.subset_size: 4", "give a list of values, or one of uniform"),
        ("noise.factor: {loguniform: [0, 1]}", "0 < low < high"),
        ("noise.factor: {uniform: [1, 2]}", "a grid takes lists, and 'noise.factor' is a range"),
        ("encoder.model: [a, b]", "rows are read and encoded once"),
        ("router.goal: [null]", "goals are swept by `goals`"),
        ("judge.budget_calls: [5, 6]", "belongs to the judge whom all ask"),
        ("judge.spec: ['ollama:a', 'ollama:b']", "make a sweep for each judge"),
    ],
)
def test_a_space_holds_only_what_settings_may_differ_in(tmp_path, space, message):
    is_range = "randint" in space
    search = "search: random\nn_trials: 2\n" if is_range else ""
    text = f"data: {{train: t.csv}}\n{search}space:\n  {space}\n"
    with pytest.raises(ConfigError, match=message):
        load_sweep(written(tmp_path, text))


def test_a_variable_that_is_not_set_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    text = "data: {train: $NOWHERE/t.csv}\nspace: {seed: [1]}\n"
    with pytest.raises(ConfigError, match=r"data.train: a variable in '\$NOWHERE/t.csv'"):
        load_sweep(written(tmp_path, text))


def test_a_grid_tries_everything_once(sweep):
    space = {"partition.subset_size": [4, 8, 4], "noise.factor": [2, None]}
    settings = known_settings(sweep(space=space))
    tried = [tuple(one.params.values()) for one in settings]
    assert tried == list(itertools.product([4, 8], [2, None]))
    assert [one.config.noise.factor for one in settings] == [2, None, 2, None]


def test_what_a_setting_does_not_name_comes_from_the_config(sweep):
    one = setting_of(sweep(), {"partition.strategy": "random"})
    assert one.config.partition.strategy == "random"
    assert one.config.partition.subset_size == base_config(sweep()).partition.subset_size == 4


def test_an_id_is_that_of_the_configuration_alone(sweep):
    assert setting_of(sweep(), {"seed": 3}).id == setting_of(sweep(seed=7), {"seed": 3}).id
    assert setting_of(sweep(), {"seed": 3}).id != setting_of(sweep(), {"seed": 4}).id


def test_random_settings_are_drawn_by_the_seed_and_differ(sweep):
    drawn = known_settings(sweep(space=RANGES, search="random", n_trials=8))
    again = known_settings(sweep(space=RANGES, search="random", n_trials=8))
    other = known_settings(sweep(space=RANGES, search="random", n_trials=8, seed=1))
    assert [one.id for one in drawn] == [one.id for one in again]
    assert len({one.id for one in drawn}) == 8
    assert {one.id for one in drawn}.isdisjoint(one.id for one in other)
    sizes = {one.config.partition.subset_size for one in drawn}
    assert sizes <= {2, 3, 4}


def test_a_range_reaches_both_ends_and_no_further():
    import numpy as np

    rng = np.random.default_rng(0)
    whole = {Range("randint", 2, 4).draw(rng) for _ in range(60)}
    assert whole == {2, 3, 4}
    spread = [Range("loguniform", 0.01, 100).draw(rng) for _ in range(400)]
    assert min(spread) >= 0.01
    assert max(spread) <= 100
    assert sum(value < 1 for value in spread) == pytest.approx(200, abs=50)


def test_a_small_space_gives_fewer_settings_than_asked_for(sweep):
    space = {"partition.subset_size": [4, 8]}
    assert len(known_settings(sweep(space=space, search="random", n_trials=9))) == 2


@pytest.mark.parametrize(
    ("name", "n_settings"),
    [("example.yaml", 20), ("banking77.yaml", 24), ("banking77_judge.yaml", 16)],
)
def test_the_shipped_files_can_be_read(name, n_settings, monkeypatch):
    monkeypatch.setenv("RED_RAY_DATA", "/data")
    found = load_sweep(SHIPPED / name)
    assert len(known_settings(found)) == n_settings
