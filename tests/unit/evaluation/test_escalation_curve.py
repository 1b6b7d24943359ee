"""The curve of accuracy against what is escalated: whom it asks, and what it counts."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from red_ray.config import JudgeConfig
from red_ray.core.metrics import wilson_interval
from red_ray.escalation import Escalator
from red_ray.evaluation.escalation import (
    EscalatedRows,
    curve,
    escalate_riskiest,
    shares_up_to,
    summary,
)
from red_ray.types import Outcome, Verdict
from tests.unit.training.fakes import FakeEncoder, FakeValidator, train


@pytest.fixture(scope="module")
def model(corpus):
    return asyncio.run(train(corpus.job())).model


def asked(model, corpus, answer, share, *, on_failure="abstain", top_k=5, **options):
    """The rows after the judge, and whom it was asked about."""
    validator = FakeValidator(answer, **options)
    escalator = Escalator(model, validator, JudgeConfig(top_k=top_k), on_failure)
    vectors = FakeEncoder().encode(corpus.test)
    assessment = model.assess(corpus.test, vectors)
    rows = asyncio.run(
        escalate_riskiest(
            model, escalator, corpus.test, corpus.test_labels, vectors, assessment, share
        )
    )
    return rows, validator.asked, assessment


def by_truth(corpus):
    truth = dict(zip(corpus.test, corpus.test_labels, strict=True))
    return lambda question: truth[question.text]


def test_the_riskiest_rows_are_asked_about_first(model, corpus):
    _, texts, assessment = asked(model, corpus, lambda _: None, 0.25)
    risk = model.answer_risk(assessment)
    wanted = [corpus.test[row] for row in np.argsort(-risk, kind="stable")[:12]]
    assert len(corpus.test) == 48
    assert texts == wanted


def test_at_nothing_escalated_it_is_the_models_accuracy(model, corpus):
    rows, texts, assessment = asked(model, corpus, lambda _: None, 0.0)
    best = [model.labels[i] for i in assessment.label_proba.argmax(axis=1)]
    right = np.mean([a == b for a, b in zip(best, corpus.test_labels, strict=True)])
    (point,) = curve(rows, [0.0])
    assert texts == []
    assert point["accuracy"] == pytest.approx(right, abs=1e-6)
    assert (point["calls"], point["cost_usd"]) == (0, 0.0)


def test_a_judge_that_is_right_where_it_can_be_gives_what_was_offered(model, corpus):
    rows, _, assessment = asked(model, corpus, by_truth(corpus), 1.0, top_k=2)
    two = np.argsort(-assessment.label_proba, axis=1, kind="stable")[:, :2]
    pairs = zip(two, corpus.test_labels, strict=True)
    offered = np.mean([model.labels.index(label) in best for best, label in pairs])
    assert offered < 1
    (point,) = curve(rows, [1.0])
    assert point["accuracy"] == pytest.approx(offered, abs=1e-6)


def test_a_none_is_never_right_in_scope(model, corpus):
    rows, _, _ = asked(model, corpus, lambda _: None, 1.0)
    assert curve(rows, [1.0])[0]["accuracy"] == 0


@pytest.mark.parametrize("outcome", [Outcome.UNREADABLE, Outcome.TIMEOUT, Outcome.ERROR])
def test_no_result_is_wrong_or_the_models_best_label(model, corpus, outcome):
    wrong, _, _ = asked(model, corpus, lambda _: outcome, 1.0)
    best, _, _ = asked(model, corpus, lambda _: outcome, 1.0, on_failure="answer_best")
    assert curve(wrong, [1.0])[0]["accuracy"] == 0
    alone, whole = curve(best, [0.0, 1.0])
    assert alone["accuracy"] == whole["accuracy"]
    assert summary(wrong) == {"asked": 48, "failed": 48}


def test_what_the_budget_does_not_reach_keeps_the_models_label(model, corpus):
    rows, _, _ = asked(model, corpus, lambda _: None, 1.0, budget=10)
    alone = curve(rows, [0.0])[0]["accuracy"]
    assert summary(rows) == {"asked": 10, "failed": 0}
    lost = rows.alone[:10].sum() / 48
    (end,) = curve(rows, [1.0])
    assert end["accuracy"] == pytest.approx(alone - lost, abs=1e-6)
    assert (end["escalated"], end["calls"]) == (10 / 48, 10)


def test_a_label_that_training_never_saw_is_right_only_by_a_person(model, corpus):
    """A test row's unknown label is no label of the model, and neither is a *none*."""
    strange = dataclasses.replace(corpus, test_labels=("quite_new",) * len(corpus.test))
    rows, _, _ = asked(model, strange, lambda _: None, 1.0)
    assert not rows.alone.any()
    assert not rows.asked.any()


# --- counting ----------------------------------------------------------------------------------


def verdict(number, cost_usd, requests=1):
    return Verdict(
        str(number), Outcome.NONE, None, "j", requests=requests, latency_ms=1.0, cost_usd=cost_usd
    )


def test_a_point_counts_the_first_rows_by_the_judge_and_the_others_alone():
    """Ten rows, of which the judge mends the first and spoils the fourth."""
    alone = np.array([0, 1, 0, 1, 1, 1, 1, 1, 0, 1], dtype=bool)
    after = np.array([1, 1, 0, 0], dtype=bool)
    rows = EscalatedRows(alone, after, tuple(verdict(n, 0.25, requests=2) for n in range(4)))
    points = curve(rows, [0.0, 0.1, 0.4])
    assert [point["accuracy"] for point in points] == [0.7, 0.8, 0.7]
    assert [point["calls"] for point in points] == [0, 2, 8]
    assert [point["cost_usd"] for point in points] == [0.0, 0.25, 1.0]
    assert points[1]["accuracy_ci"] == pytest.approx(wilson_interval(8, 10), abs=1e-6)
    assert [point["escalated"] for point in points] == [0.0, 0.1, 0.4]


def test_a_price_that_is_not_known_is_not_made_up():
    alone = after = np.ones(3, dtype=bool)
    known = (verdict(1, 0.5), verdict(2, None), verdict(3, None, requests=0))
    points = curve(EscalatedRows(alone, after, known), [1 / 3, 2 / 3])
    assert [point["cost_usd"] for point in points] == [0.5, None]
    free = (verdict(1, 0.5), verdict(2, None, requests=0), None)
    assert curve(EscalatedRows(alone, after, free), [1.0])[0]["cost_usd"] == 0.5


@pytest.mark.parametrize(
    ("reached", "shares"),
    [
        (0, [0.0]),
        (1, [0.0, 0.1]),
        (2, [0.0, 0.1, 0.2]),
        (3, [0.0, 0.1, 0.3]),
        (6, [0.0, 0.1, 0.3, 0.6]),
    ],
)
def test_no_point_lies_beyond_the_first_row_that_was_not_asked(reached, shares):
    """Of six rows; the last one's verdict is of the ledger, and fills no gap before it."""
    verdicts = [verdict(n, 0.0) if n < reached or n == 5 else None for n in range(6)]
    rows = EscalatedRows(np.ones(10, bool), np.ones(6, bool), tuple(verdicts))
    points = curve(rows, [0.0, 0.1, 0.3, 0.6])
    assert [point["escalated"] for point in points] == shares
    assert [point["calls"] for point in points] == [round(10 * share) for share in shares]


@pytest.mark.parametrize(
    ("share", "shares"),
    [
        (0.2, [0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2]),
        (0.12, [0.0, 0.01, 0.02, 0.05, 0.1, 0.12]),
        (0.015, [0.0, 0.01, 0.015]),
        (0.0, [0.0]),
    ],
)
def test_the_shares_of_a_curve_end_where_it_was_asked_to(share, shares):
    assert shares_up_to(share) == shares
