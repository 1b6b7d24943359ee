"""The shipped matrices are valid, and every column of the thirty experiments runs."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.matrix.config import CONFIGS, load_matrix
from benchmarks.matrix.methods.base import UNREADABLE
from benchmarks.matrix.methods.fine_tune import FineTune
from benchmarks.matrix.methods.lora import Lora
from benchmarks.matrix.methods.prompting import Prompting
from benchmarks.matrix.tiny import tiny_decoder, tiny_encoder
from tests.unit.benchmarks.matrix.toy import corpus, toy_rows, toy_task

METHODS = {"fine_tune": FineTune, "zero_shot": Prompting, "few_shot": Prompting, "lora": Lora}
SEED30 = load_matrix("seed30")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder for each method: what stands in for the hub's models."""
    texts = corpus(toy_task(columns=2))
    encoder = str(tiny_encoder(tmp_path_factory.mktemp("encoder"), texts))
    decoder = str(tiny_decoder(tmp_path_factory.mktemp("decoder"), texts, is_chat=True))
    return {name: encoder if name == "fine_tune" else decoder for name in METHODS}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_matrix_is_valid_and_its_trained_models_have_their_base(path):
    config = load_matrix(path.stem)
    assert config.name == path.stem
    for column in config.columns:
        if column.method == "lora":
            base = config.column(column.base)
            assert (base.method, base.model) == ("zero_shot", column.model)
            # The same prompts are cut alike before and after the training.
            assert (base.max_tokens, base.max_new_tokens) == (
                column.max_tokens,
                column.max_new_tokens,
            )


def test_the_thirty_experiments_are_those_of_the_table():
    pairs = {(cell.column, cell.task) for cell in SEED30.cells}
    assert Counter(SEED30.column(column).method for column, _ in pairs) == {
        "fine_tune": 6,
        "zero_shot": 9,
        "few_shot": 9,
        "lora": 6,
    }
    assert len(SEED30.cells) == 3 * len(pairs) == 90
    assert all(column.shots == 5 for column in SEED30.columns if column.method == "few_shot")


def test_the_quick_test_has_each_method_once_with_the_smallest_models():
    quick = load_matrix("quick")
    assert sorted(column.method for column in quick.columns) == sorted(METHODS)
    assert len(quick.cells) == 4
    assert {column.model for column in quick.columns} <= {one.model for one in SEED30.columns}


def test_five_tuned_language_models_stand_beside_classical_ones():
    methods = Counter(column.method for column in load_matrix("llms5").columns)
    assert methods == {
        "lora": 5,
        "zero_shot": 5,
        "majority": 1,
        "prior": 1,
        "random_forest": 1,
        "lasso": 1,
    }


@pytest.mark.parametrize("column", SEED30.columns, ids=lambda column: column.name)
def test_every_column_of_the_thirty_runs_with_a_tiny_model(column, models):
    task = toy_task(n_train=12, n_select=4, columns=2)
    report = toy_rows(6, columns=2, start=100)
    changes = {"model": models[column.method]}
    if column.method in ("fine_tune", "lora"):
        changes["epochs"] = 1
    fitted = METHODS[column.method](column.model_copy(update=changes)).fit(task, seed=0)
    answers = fitted.predict(report.texts, 4)
    assert answers.labels.shape == (6,)
    assert set(answers.labels.tolist()) <= {UNREADABLE, 0, 1}
    assert len(answers.raw) == (0 if column.method == "fine_tune" else 6)
    assert len(fitted.history) == (2 if "epochs" in changes else 0)
    assert (fitted.n_trained > 0) == ("epochs" in changes)
    assert fitted.device == "cpu"
    assert fitted.notes
    fitted.close()
