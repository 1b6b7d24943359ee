"""Thresholds of a trained model: on which rows, and what they are called."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from red_ray.calibration import calibration_rows, check_goal, with_goal
from red_ray.config import Goal
from red_ray.core.thresholds import derive
from red_ray.data.inputs import KnownRows
from red_ray.data.prepare import LabelledRows
from red_ray.errors import ConfigError, GoalError
from tests.unit.training.fakes import FakeEncoder, FakeValidator, train, truth

CALM = Goal(escalate_at_most=0.5)


@pytest.fixture(scope="module")
def model(corpus):
    job = corpus.job(loop={"max_iterations": 1})
    return asyncio.run(train(job, FakeValidator(truth(corpus)))).model


@pytest.fixture(scope="module")
def known(corpus):
    return KnownRows(LabelledRows(corpus.test, corpus.test_labels), ("sing a song", "who won"))


def no_encoder():
    raise AssertionError("cross-fitted rows need no encoder")


def test_without_rows_the_users_own_count_cross_fitted(model):
    """Those that the judge labelled do not: it may be wrong, and they are the hard ones."""
    assert len(model.calibration.none) == model.n_seed < len(model.example_labels)
    found = with_goal(model, CALM, 0.9, None, no_encoder)
    assert found.promise.source == "cross_fitted"
    assert found.promise.data_hash == ""
    assert found.promise.n_rows == model.n_seed
    assert found.thresholds == derive(model.calibration, CALM.shares, 0.9, 0.5)
    assert found.config.router.goal == CALM
    assert found.bundle_id == ""


def test_rows_of_their_own_count_as_the_model_sees_them(model, known):
    rows = calibration_rows(model, known, FakeEncoder())
    decisions = dataclasses.replace(model, encoder=FakeEncoder()).predict(known.rows.texts)
    best = [one.label or one.alternatives[0].label for one in decisions]
    truths = [*zip(best, known.rows.labels, strict=True)]
    assert rows.right.tolist() == [label == true for label, true in truths]
    assert len(rows.none_out_of_scope) == 2
    assert (rows.offered >= rows.right).all()
    found = with_goal(model, CALM, 0.8, known, FakeEncoder)
    promise = found.promise
    assert (promise.source, promise.confidence) == ("rows", 0.8)
    assert (promise.n_rows, promise.n_out_of_scope) == (len(known.rows), 2)
    assert promise.data_hash == known.data_hash != ""


def test_a_label_that_training_never_saw_is_an_error_of_the_model(model, known):
    rows = LabelledRows(known.rows.texts, ("new",) * len(known.rows))
    assert not calibration_rows(model, KnownRows(rows, ()), FakeEncoder()).right.any()


def test_the_hash_tells_other_rows_apart(known):
    texts, labels = known.rows.texts, known.rows.labels
    others = [
        KnownRows(LabelledRows(texts, labels[::-1]), known.out_of_scope),
        KnownRows(LabelledRows((*texts[:-1], "other"), labels), known.out_of_scope),
        KnownRows(known.rows, ()),
        KnownRows(LabelledRows(("\ud800", *texts[1:]), labels), known.out_of_scope),
    ]
    assert len({known.data_hash, *(one.data_hash for one in others)}) == 5


def test_escalated_are_the_texts_that_reach_the_threshold(model, corpus):
    found = with_goal(model, CALM, 0.9, None, no_encoder)
    found = dataclasses.replace(found, encoder=FakeEncoder())
    (assessment,) = found.assessments([corpus.test])
    risky = found.answer_risk(assessment) >= found.thresholds.escalate
    decisions = found.decide(assessment)
    assert [one.decision == "escalate" for one in decisions] == risky.tolist()
    assert 0 < risky.sum() < len(risky)
    plain = model.decide(assessment)
    for decision, before in zip(decisions, plain, strict=True):
        if decision.decision == "escalate":
            assert dataclasses.replace(decision, decision=before.decision) == before
        else:
            assert decision == before


@pytest.mark.parametrize(
    ("goal", "strange", "words"),
    [
        (Goal(none_recall=0.5), (), "give --calibration and --calibration-oos"),
        (Goal(none_recall=0.9), ("one",), "none_recall 0.9 .* at least 22 .* there are 1"),
        (Goal(catch_errors=0.96), (), "catch_errors 0.96 .* at least 57 errors .* there are 48"),
        (Goal(precision=0.99), (), "precision 0.99 .* at least 230 .* there are 48"),
        (Goal(escalate_at_most=0.01), (), "escalate_at_most 0.01 .* at least 230"),
        (Goal(none_false_alarm=0.01), (), "none_false_alarm 0.01 .* at least 230"),
    ],
)
def test_too_few_rows_are_told_before_the_training(goal, strange, words, known):
    with pytest.raises((ConfigError, GoalError), match=words):
        check_goal(goal, 0.9, KnownRows(known.rows, strange))


def test_training_rows_count_where_there_are_no_others():
    with pytest.raises(GoalError, match=r"precision 0.9 .* of the training rows, .* there are 20"):
        check_goal(Goal(precision=0.9), 0.9, None, n_train=20)
    check_goal(Goal(precision=0.9), 0.9, None, n_train=22)


def test_cross_fitted_rows_have_none_that_fit_no_label():
    with pytest.raises(ConfigError, match="give --calibration and --calibration-oos"):
        check_goal(Goal(none_recall=0.5), 0.9, None)


def test_risks_lie_between_nothing_and_certainty(model):
    assert ((model.calibration.label_risk >= 0) & (model.calibration.label_risk <= 1)).all()
    assert np.isfinite(model.calibration.none).all()


def test_what_rests_on_a_judges_labels_is_marked_and_what_does_not_is_not(model, known):
    judged = dataclasses.replace(model, labelled_by="judge")
    encoder = FakeEncoder
    assert with_goal(judged, CALM, 0.9, None, encoder).promise.labelled_by == "judge"
    assert with_goal(judged, CALM, 0.9, known, encoder).promise.labelled_by == "user"
    assert with_goal(model, CALM, 0.9, None, encoder).promise.labelled_by == "user"
