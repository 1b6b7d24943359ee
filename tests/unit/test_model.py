"""The model that users hold: decisions that follow one rule, whatever the company of a text."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from red_ray.model import Assessment
from tests.unit.training.fakes import FakeEncoder, train


@pytest.fixture(scope="module")
def model(corpus):
    trained = asyncio.run(train(corpus.job()))
    return dataclasses.replace(trained.model, encoder=FakeEncoder())


def test_every_text_gets_one_decision_in_order(model, corpus):
    """Defect 5 and 9: one distribution over all labels, hence one label."""
    decisions = model.predict(corpus.test)
    assert len(decisions) == len(corpus.test)
    for decision, text in zip(decisions, corpus.test, strict=True):
        (alone,) = model.predict([text])
        assert (alone.label, alone.decision) == (decision.label, decision.decision)
        assert alone.confidence == pytest.approx(decision.confidence, rel=1e-5)


def test_a_distribution_is_over_all_labels_and_none(model, corpus):
    (assessment,) = model.assessments([corpus.test])
    distribution = assessment.distribution
    assert distribution.shape == (len(corpus.test), len(corpus.names) + 1)
    np.testing.assert_allclose(distribution.sum(axis=1), 1)
    assert (distribution > 0).all()


def test_a_label_or_none_never_both(model):
    """At the threshold it is none; the alternatives never repeat the label."""
    threshold = model.config.router.none_threshold
    proba = np.full((2, len(model.labels) + 1), 0.01)
    proba[0, 3], proba[0, -1] = 0.6, threshold - 1e-9
    proba[1, 3], proba[1, -1] = 0.3, threshold
    labels = proba[:, :-1] / (1 - proba[:, -1:])
    accept, none = model.decide(Assessment(labels, 1 - labels.max(axis=1), proba[:, -1]), top_k=3)
    assert (accept.decision, accept.label) == ("accept", model.labels[3])
    assert accept.confidence == pytest.approx(0.6)
    assert model.labels[3] not in [one.label for one in accept.alternatives]
    assert (none.decision, none.label, none.confidence) == ("none", None, threshold)
    assert none.alternatives[0].label == model.labels[3]
    assert {accept.source, none.source} == {"model"}


@pytest.mark.parametrize("top_k", [1, 2, 5, 100])
def test_alternatives_are_the_next_labels_in_falling_order(model, corpus, top_k):
    for decision in model.predict(corpus.test, top_k=top_k):
        if decision.decision == "accept":
            assert len(decision.alternatives) == min(top_k, len(model.labels)) - 1
        confidences = [one.confidence for one in decision.alternatives]
        assert confidences == sorted(confidences, reverse=True)


def test_a_decision_names_the_expert_of_its_label(model, corpus):
    for decision in model.predict(corpus.test):
        position = int(decision.expert.removeprefix("expert-"))
        if decision.label is not None:
            assert model.labels.index(decision.label) in model.subsets[position]


def assessed(model, batches):
    return np.concatenate([one.distribution for one in model.assessments(batches)])


def test_chunks_change_nothing_that_matters(model, corpus, monkeypatch):
    whole = assessed(model, [corpus.test])
    parts = assessed(model, [corpus.test[:7], [], corpus.test[7:]])
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    monkeypatch.setattr("red_ray.model.CHUNK_TEXTS", 5)
    np.testing.assert_allclose(assessed(model, [corpus.test]), whole, rtol=1e-5)


def test_scores_that_experts_gave_elsewhere_change_nothing(model, corpus, monkeypatch):
    """As they do where the experts are spread over processes; the model's own are not asked."""
    monkeypatch.setattr("red_ray.model.CHUNK_TEXTS", 5)
    vectors = FakeEncoder().encode(corpus.test)
    own = np.concatenate([*model.evidence(corpus.test, vectors)])
    scores = [expert.score(vectors) for expert in model.experts]
    without = dataclasses.replace(model, experts=())
    given = np.concatenate([*without.evidence(corpus.test, vectors, scores)])
    np.testing.assert_allclose(given, own, rtol=1e-5, atol=1e-6)


def test_no_text_is_no_decision(model):
    assert model.predict([]) == []
