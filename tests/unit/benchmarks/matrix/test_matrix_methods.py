"""Methods that train nothing by gradient: they learn, and answer for others."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.matrix.config import ClassicalColumn, ConstantColumn, JudgeColumn, RedColumn
from benchmarks.matrix.measure import N_WARM, latency, timed
from benchmarks.matrix.methods import UNREADABLE, Answers, method_of
from benchmarks.matrix.tasks import Rows, Task

WORDS = {"rain": "it rains hard today", "sun": "the sun is warm and bright", "snow": "snow falls"}


def rows(n, start=0):
    texts = [(f"{text} {i}",) for i in range(start, start + n) for text in WORDS.values()]
    return Rows(tuple(texts), np.tile(np.arange(len(WORDS)), n))


@pytest.fixture(scope="module")
def task():
    return Task("weather", tuple(WORDS), tuple(WORDS), "Which?", ("text",), rows(6), rows(2, 6))


@pytest.fixture(scope="module")
def pairs(task):
    """Whether the second text is the first one's weather, of pairs."""
    same = [(text, text) for (text,) in task.train.texts]
    other = [(text, "a bird sings") for (text,) in task.train.texts]
    found = Rows((*same, *other), np.repeat([1, 0], len(same)))
    parts = found.take(range(0, len(found), 2)), found.take(range(1, len(found), 2))
    return Task("pairs", ("no", "yes"), ("no", "yes"), "Same?", ("first", "second"), *parts)


LEARNING = [
    ClassicalColumn(name="flat", method="flat"),
    ClassicalColumn(name="forest", method="random_forest", n_trees=20),
    ClassicalColumn(name="lasso", method="lasso", strengths=(0.001, 10.0)),
    RedColumn(name="red", method="red_ray"),
    JudgeColumn(name="judge", method="judge", judge="neighbours", shots=1),
]


@pytest.mark.parametrize("column", LEARNING, ids=lambda column: column.name)
def test_what_can_be_learned_is_learned(task, column):
    fitted = method_of(column).fit(task, 0)
    try:
        new = rows(3, 100)
        answers = fitted.predict(new.texts, 4)
        np.testing.assert_array_equal(answers.labels, new.labels)
        assert fitted.n_trained <= fitted.n_parameters
        assert fitted.device == "cpu"
    finally:
        fitted.close()


def test_the_strength_is_that_which_is_best_on_the_rows_held_back(task):
    fitted = method_of(LEARNING[2]).fit(task, 0)
    fitted.close()
    # So strong a penalty as 1 / 0.001 leaves no weight.
    assert fitted.notes == ("C = 10 of 2, chosen on 6 rows",)


def test_a_pair_is_more_than_its_texts_side_by_side(pairs):
    fitted = method_of(LEARNING[0]).fit(pairs, 0)
    new = (("snow falls 77", "snow falls 77"), ("snow falls 77", "a bird sings"))
    assert fitted.predict(new, 2).labels.tolist() == [1, 0]
    fitted.close()


def test_majority_and_prior_look_at_no_text(task):
    many = Task(
        *(getattr(task, name) for name in ("name", "labels", "words", "instruction")),
        task.columns,
        task.train.take([0, 3, 6, 9, 1, 2]),
        task.select.take([0]),
    )
    ask = [("snow falls",)] * 400
    majority = method_of(ConstantColumn(name="m", method="majority")).fit(many, 0)
    assert set(majority.predict(ask, 32).labels.tolist()) == {0}
    prior = method_of(ConstantColumn(name="p", method="prior")).fit(many, 0)
    counts = np.bincount(prior.predict(ask, 32).labels, minlength=3) / 400
    np.testing.assert_allclose(counts, [5 / 7, 1 / 7, 1 / 7], atol=0.08)


class Counted:
    """A method that answers with the number of its call, and remembers what it was asked."""

    device = "cpu"

    def __init__(self):
        self.asked = []

    @property
    def usd(self):
        return 0.01 * sum(len(texts) for texts, _ in self.asked)

    def predict(self, texts, batch_size):
        self.asked.append((tuple(texts), batch_size))
        return Answers(np.full(len(texts), UNREADABLE))


def test_every_report_row_is_asked_about_once_and_what_is_timed_one_by_one_is_none_of_them():
    fitted, known = Counted(), [(f"known {i}",) for i in range(60)]
    report = [(f"report {i}",) for i in range(40)]
    found = timed(fitted, known, report, n_single=10, batch_size=8)
    assert fitted.asked[-1] == (tuple(report), 8)
    assert not {text for texts, _ in fitted.asked[:-1] for text in texts} & set(report)
    singles = fitted.asked[1:11]
    assert [texts for texts, _ in singles] == [(text,) for text in known[N_WARM : N_WARM + 10]]
    assert all(size == 1 for _, size in singles)
    assert found.figures["latency_ms"]["n"] == 10
    assert found.figures["throughput_per_s"]["texts"] == 40
    assert found.figures["usd"] == pytest.approx(0.40)  # of the report rows alone


def test_latency_is_in_milliseconds_of_single_texts():
    found = latency([1.0] * 90 + [9.0] * 10)
    assert found["p50"] == 1.0
    assert found["p95"] == 9.0
    assert found["mean"] == pytest.approx(1.8)
    low, high = found["p95_ci"]
    assert low <= found["p95"] <= high
