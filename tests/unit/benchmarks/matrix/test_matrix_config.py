"""A matrix's configuration: what it refuses, and the cells that follow from it."""

from __future__ import annotations

import pytest
import yaml

from benchmarks.matrix.config import load_matrix
from red_ray.errors import ConfigError

FLAT = {"name": "flat", "method": "flat"}
TASK = {"path": "somewhere"}


def written(tmp_path, **changes):
    content = {"name": "some", "seeds": [0, 1], "tasks": {"t": TASK}, "columns": [FLAT]} | changes
    path = tmp_path / "some.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"columns": [FLAT, FLAT]}, "a column's name stands once: 'flat'"),
        (
            {"columns": [FLAT | {"name": "a b"}, FLAT | {"name": "a_b"}]},
            "share the folder 't--a_b--0'",
        ),
        ({"seeds": [3, 3]}, "seed 3 stands twice"),
        ({"tasks": {"t": TASK | {"seeds": [4, 4]}}}, "seed 4 stands twice"),
        ({"columns": [FLAT | {"num_cpus": 0.5}]}, "num_cpus"),
        ({"columns": [FLAT | {"tasks": ["u"]}]}, r"names tasks that are not there: \['u'\]"),
        ({"columns": [FLAT | {"base": "other"}]}, "has no base 'other' beside it"),
        ({"against": "other"}, "no column 'other' to hold the others against"),
        ({"columns": [FLAT | {"method": "guess"}]}, "does not match any of the expected tags"),
        ({"columns": [FLAT | {"shots": 5}]}, "unknown configuration key 'columns.0.flat.shots'"),
        ({"columns": [{"name": "j", "method": "judge", "judge": "simulated:0.9"}]}, "looks the"),
        ({"tasks": {"t": {"path": "a", "hub": "b"}}}, "give `path` or `hub`, one of them"),
        ({"tasks": {"t": TASK | {"text": ["a", "b", "c"]}}}, "one column, or the two of a pair"),
        ({"tasks": {"t": TASK | {"per_label": 5, "n_train": 9}}}, "`per_label` or `n_train`"),
    ],
)
def test_what_no_matrix_has_is_refused_in_one_line(tmp_path, changes, told):
    with pytest.raises(ConfigError, match=told) as caught:
        load_matrix(written(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_one_text_column_need_not_be_a_list(tmp_path):
    assert load_matrix(written(tmp_path, tasks={"t": TASK | {"text": "body"}})).tasks["t"].text == (
        "body",
    )


def test_a_file_that_is_not_there_names_those_that_are_shipped(tmp_path):
    with pytest.raises(ConfigError, match="shipped ones: "):
        load_matrix(tmp_path / "none.yaml")


def test_cells_are_tasks_by_columns_by_seeds_where_a_column_says_nothing_else(tmp_path):
    columns = [FLAT, FLAT | {"name": "forest", "method": "random_forest", "tasks": ["u"]}]
    columns.append({"name": "a few", "method": "prior", "seeds": [7]})
    config = load_matrix(written(tmp_path, tasks={"t": TASK, "u": TASK}, columns=columns))
    names = [cell.name for cell in config.cells]
    assert names == [
        *("t--flat--0", "t--flat--1", "t--a_few--7"),
        *("u--flat--0", "u--flat--1", "u--forest--0", "u--forest--1", "u--a_few--7"),
    ]
    tasks = {"t": TASK, "u": TASK | {"seeds": [3]}}
    config = load_matrix(written(tmp_path, tasks=tasks, columns=columns))
    assert [cell.name for cell in config.cells][3:] == ["u--flat--3", "u--forest--3", "u--a_few--7"]
