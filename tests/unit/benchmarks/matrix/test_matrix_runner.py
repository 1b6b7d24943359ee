"""A cell in a process of its own: its files, its limits, and what makes it another cell."""

from __future__ import annotations

import csv
import json
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
import yaml

import red_ray
from benchmarks.matrix.config import ClassicalColumn, Column, ConstantColumn, load_matrix
from benchmarks.matrix.methods import METHODS, sources_of
from benchmarks.matrix.process import run_cell
from benchmarks.matrix.results import read_matrix, read_predictions
from benchmarks.matrix.runner import _keep, _mark, _works, digest_of, run_matrix
from benchmarks.matrix.tasks import load_task
from red_ray.errors import OutputError, RedRayError


@pytest.fixture
def matrix(tmp_path):
    for name, n in (("train.csv", 30), ("test.csv", 20)):
        with (tmp_path / name).open("w", newline="") as file:
            rows = [(f"{name} {i}", "yes" if i % 3 else "no") for i in range(n)]
            csv.writer(file).writerows([("text", "label"), *rows])
    content = {
        "name": "some",
        "seeds": [0],
        "tasks": {"t": {"path": str(tmp_path)}},
        "columns": [
            {"name": "majority", "method": "majority"},
            {"name": "nowhere", "method": "flat", "model": "/no/such/model"},
            {"name": "slow", "method": "prior", "time_s": 0.01},
            {"name": "large", "method": "prior", "memory_mb": 1},
        ],
    }
    path = tmp_path / "matrix.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_matrix(path)


def ended(matrix, out, column):
    work = next(one for one in _works(matrix, out, column, again=False))
    return work, run_cell(work)


def test_a_cell_gives_its_files(matrix, tmp_path):
    out = tmp_path / "out"
    work, files = ended(matrix, out, "majority")
    assert {*files} == {
        *("cell.json", "results.json", "history.json", "predictions.parquet"),
        *("confusion.svg", "errors.csv"),
    }
    _keep(out, work, files)
    figures = json.loads(files["results.json"])
    assert (figures["n"], figures["n_right"], figures["n_unreadable"]) == (20, 13, 0)
    assert figures["majority"] == {"label": "yes", "share": 0.65}
    assert figures["peak_mb"] > 10
    said = read_predictions(out / work.order.cell.name / "predictions.parquet")
    assert said.right.sum() == 13
    errors = (out / work.order.cell.name / "errors.csv").read_text().splitlines()
    assert len(errors) == 1 + 7
    # It is finished: only the others are left.
    left = [one.order.cell.column for one in _works(matrix, out, "", again=False)]
    assert left == ["nowhere", "slow", "large"]


@pytest.mark.parametrize(
    ("column", "status", "told"),
    [
        ("nowhere", "failed", "/no/such/model"),
        ("slow", "timed_out", "took longer than 0.01 s"),
        ("large", "out_of_memory", "limit 1"),
    ],
)
def test_what_fails_is_a_hole_with_its_reason(matrix, tmp_path, column, status, told):
    out = tmp_path / "out"
    out.mkdir()
    work, files = ended(matrix, out, column)
    assert [*files] == ["cell.json"]
    stated = json.loads(files["cell.json"])
    assert stated["status"] == status
    assert told in stated["error"]
    assert "\n" not in stated["error"]
    _keep(out, work, files)
    (out / "matrix.yaml").write_text(yaml.safe_dump(matrix.model_dump(mode="json")))
    found = read_matrix(out)
    assert [one.status for one in found.results] == [status]
    assert len(found.holes) == len(matrix.cells)  # the others were not run
    # A hole stays one until it is asked for.
    left = [one.order.cell.column for one in _works(matrix, out, column, again=False)]
    assert left == []
    assert [one.order.cell.column for one in _works(matrix, out, column, again=True)] == [column]


def test_a_cell_is_another_where_its_result_may_be(matrix):
    loaded = load_task("t", matrix.tasks["t"], 0)
    cell = matrix.cells[0]
    flat = ClassicalColumn(name="flat", method="flat")

    def digest(column=flat, cell=cell, config=matrix):
        return digest_of(cell, column, loaded, config)

    same = [
        digest(flat.model_copy(update={"name": "other"})),
        digest(flat.model_copy(update={"time_s": 5.0, "tasks": ("t",)})),
    ]
    assert {*same} == {digest()}
    others = [
        digest(),
        digest(flat.model_copy(update={"model": "another"})),
        digest(ConstantColumn(name="flat", method="prior")),
        digest(cell=cell._replace(seed=1)),
        digest(config=matrix.model_copy(update={"n_single": 7})),
    ]
    assert len({*others}) == len(others)


def test_cells_run_seed_by_seed(matrix, tmp_path):
    two = matrix.model_copy(update={"seeds": (1, 0), "columns": matrix.columns[::2]})
    cells = [one.order.cell for one in _works(two, tmp_path / "out", "", again=False)]
    assert [(one.seed, one.column) for one in cells] == [
        *((0, "majority"), (0, "slow")),
        *((1, "majority"), (1, "slow")),
    ]


def test_a_look_is_another_where_settings_or_sources_have_changed(matrix, monkeypatch):
    first, *rest = matrix.columns
    same = [
        matrix.model_copy(update={"against": "majority", "time_s": 7.0, "name": "other"}),
        matrix.model_copy(update={"columns": (first.model_copy(update={"time_s": 5.0}), *rest)}),
    ]
    assert {_mark(one) for one in same} == {_mark(matrix)}
    others = [matrix, matrix.model_copy(update={"seeds": (0, 1)})]
    others.append(matrix.model_copy(update={"columns": tuple(rest)}))
    marks = {_mark(one) for one in others}
    monkeypatch.setattr("benchmarks.matrix.runner.source_hash", lambda _: b"edited")
    assert len(marks | {_mark(matrix)}) == 4


def test_rows_that_cannot_be_read_leave_the_configuration_of_what_is_finished(matrix, tmp_path):
    out = tmp_path / "out"
    work, files = ended(matrix, out, "majority")
    _keep(out, work, files)
    (out / "matrix.yaml").write_text(yaml.safe_dump(matrix.model_dump(mode="json")))
    before = (out / "matrix.yaml").read_text()
    gone = matrix.model_copy(
        update={"tasks": {"t": matrix.tasks["t"].model_copy(update={"train": "gone.csv"})}}
    )
    with pytest.raises(RedRayError, match=r"gone\.csv"):
        run_matrix(gone, out)
    assert (out / "matrix.yaml").read_text() == before


def test_a_folder_that_cannot_be_written_is_said_before_anything_starts(matrix, tmp_path):
    file = tmp_path / "a_file"
    file.touch()
    with pytest.raises(OutputError, match=r"cannot write .*a_file/x"):
        run_matrix(matrix, file / "x", session=pytest.fail)


def test_where_nothing_is_left_to_run_nothing_is_connected_to(matrix, tmp_path):
    one = matrix.model_copy(update={"columns": matrix.columns[:1]})
    out = tmp_path / "out"
    _keep(out, *ended(one, out, "majority"))
    assert run_matrix(one, out, session=pytest.fail) == 0


def test_a_method_depends_on_the_modules_it_goes_through_and_on_no_other():
    def names(method):
        return {path.stem for path in sources_of(method)[0]}

    assert names("lasso") == {"classical", "embedding", "base"}
    assert names("fine_tune") == {"fine_tune", "training", "pretrained", "base"}
    assert {"lora", "asking", "reading", "training"} < names("lora")
    assert not names("zero_shot") & {"lora", "training", "classical"}


def test_every_method_of_a_column_is_there():
    stated = {
        name
        for kind in get_args(get_args(Column)[0])
        for name in get_args(kind.model_fields["method"].annotation)
    }
    assert stated == {*METHODS}
    for place in METHODS.values():
        assert hasattr(import_module(f"benchmarks.matrix.methods.{place.module}"), place.name)
        for part in place.parts:
            assert (Path(red_ray.__file__).parent / part).exists(), part
