"""How a decision came about: what is shown is what decided, and no expert is asked again."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from red_ray.core.evidence import Column
from red_ray.escalation import part_of
from red_ray.types import HUMAN, Candidate, Outcome, Question, Verdict
from serve.explain import N_EXAMPLES, N_EXPERTS, explanations, judge_said
from serve.schemas import Explanation
from tests.unit.training.fakes import FakeEncoder, FakeValidator, train, truth

QUESTION = Question("t", (Candidate("a", "first", ("x", "y")), Candidate("b")))


class Untouchable:
    def __getattr__(self, name):
        raise AssertionError(f"an expert was asked for {name}")


@pytest.fixture(scope="module")
def model(corpus):
    trained = asyncio.run(train(corpus.job(), FakeValidator(truth(corpus))))
    return dataclasses.replace(trained.model, encoder=FakeEncoder())


class Explained:
    """Some texts, decided and explained."""

    def __init__(self, model, texts, *, top_k=3, change=None):
        self.vectors = FakeEncoder().encode(texts)
        self.evidence = np.concatenate([*model.evidence(texts, self.vectors)])
        self.assessment = model.assess_evidence(self.evidence)
        self.decisions = model.decide(self.assessment, top_k=top_k)
        if change is not None:
            self.decisions = [change(one) for one in self.decisions]
        elsewhere = dataclasses.replace(model, experts=Untouchable(), gate=Untouchable())
        self.told = explanations(
            elsewhere,
            self.vectors,
            self.evidence,
            self.assessment,
            self.decisions,
            top_k=top_k,
        )


@pytest.fixture(scope="module")
def some(model, corpus):
    return Explained(model, corpus.test)


def test_candidates_are_the_decision_and_its_alternatives(some):
    for one, decision in zip(some.told, some.decisions, strict=True):
        best = [] if decision.label is None else [(decision.label, decision.confidence)]
        named = [*best, *((other.label, other.confidence) for other in decision.alternatives)]
        shown = [
            (candidate.label, pytest.approx(candidate.confidence)) for candidate in one.candidates
        ]
        assert shown[: len(named)] == named
        assert one.candidates[0].expert == decision.expert


def test_evidence_is_told_as_probabilities_and_cosines(model, some):
    for one, evidence in zip(some.told, some.evidence, strict=True):
        for candidate in one.candidates:
            row, said = evidence[model.labels.index(candidate.label)], candidate.evidence
            assert said.gate == pytest.approx(np.exp(row[Column.GATE]))
            assert said.expert == pytest.approx(np.exp(row[Column.EXPERT]))
            assert said.noise == pytest.approx(np.exp(row[Column.NOISE]))
            similar = (said.centroid, said.nearest, said.nearest_3)
            assert similar == tuple(row[Column.CENTROID : Column.NEAREST_3 + 1].tolist())
            lexical = (said.lexical_centroid, said.lexical_nearest)
            assert lexical == tuple(row[Column.LEXICAL_CENTROID :].tolist())


def test_experts_are_those_that_see_least_noise_with_their_best_label(model, some, corpus):
    scores = [expert.score(some.vectors) for expert in model.experts]
    for row, one in enumerate(some.told):
        noise = np.array([score[row, -1] for score in scores])
        order = np.argsort(noise, kind="stable")[:N_EXPERTS]
        assert [said.expert for said in one.experts] == [f"expert-{at:02d}" for at in order]
        for at, said in zip(order, one.experts, strict=True):
            own = scores[at][row, :-1]
            assert said.label == model.labels[model.subsets[at][own.argmax()]]
            assert said.score == pytest.approx(np.exp(own.max()), rel=1e-5)
            assert said.noise == pytest.approx(np.exp(noise[at]), rel=1e-5)
            assert said.n_labels == len(model.subsets[at])
        assert one.n_experts == len(model.subsets)


def test_the_gate_names_its_own_best_labels(model, some):
    proba = np.exp(model.gate.score(some.vectors)[:, :-1])
    for one, row in zip(some.told, proba, strict=True):
        assert len(one.gate) == 3
        assert one.gate[0].label == model.labels[row.argmax()]
        assert [said.confidence for said in one.gate] == pytest.approx(np.sort(row)[::-1][:3])


def test_examples_are_the_nearest_with_who_labelled_them(model, some):
    assert 0 < model.n_seed < len(model.example_texts)
    similarity = some.vectors @ model.example_vectors.T
    givers = set()
    for one, row in zip(some.told, similarity, strict=True):
        assert len(one.examples) == N_EXAMPLES
        assert [near.similarity for near in one.examples] == pytest.approx(np.sort(row)[::-1][:5])
        for near in one.examples:
            at = model.example_texts.index(near.text)
            assert near.label == model.labels[model.example_labels[at]]
            assert near.given_by == ("user" if at < model.n_seed else "judge")
            givers.add(near.given_by)
    assert givers == {"user", "judge"}


def test_of_examples_that_are_as_near_the_first_is_shown_first(model, some):
    same = dataclasses.replace(model, example_vectors=np.ones_like(model.example_vectors))
    (one,) = explanations(
        same,
        some.vectors[:1],
        some.evidence[:1],
        part_of(some.assessment, np.array([0])),
        some.decisions[:1],
        top_k=1,
    )
    assert [near.text for near in one.examples] == list(model.example_texts[:N_EXAMPLES])


def test_fewer_examples_than_are_shown_are_all_shown(model, some):
    few = dataclasses.replace(model, example_vectors=model.example_vectors[:2])
    (one,) = explanations(
        few,
        some.vectors[:1],
        some.evidence[:1],
        part_of(some.assessment, np.array([0])),
        some.decisions[:1],
        top_k=1,
    )
    assert len(one.examples) == 2


def test_risk_and_none_are_those_of_the_decision(model, some):
    risk = model.answer_risk(some.assessment)
    assert [one.risk for one in some.told] == pytest.approx(risk)
    assert [one.none for one in some.told] == pytest.approx(some.assessment.none)
    assert {one.thresholds.none for one in some.told} == {model.config.router.none_threshold}


def test_the_label_that_a_judge_chose_is_shown_however_unlikely(model, corpus):
    unlikely = model.labels[-1]
    told = Explained(
        model, corpus.test[:4], top_k=1, change=lambda one: dataclasses.replace(one, label=unlikely)
    ).told
    for one in told:
        assert [candidate.label for candidate in one.candidates][1:] == [unlikely]
    foreign = Explained(
        model, corpus.test[:4], change=lambda one: dataclasses.replace(one, label="a person's own")
    ).told
    assert {len(one.candidates) for one in foreign} == {3}


def test_what_the_model_lacks_is_null(corpus):
    job = corpus.job(router={"gate": False, "lexical": False, "folds": 3})
    bare = asyncio.run(train(job)).model
    for one in Explained(bare, corpus.test[:3]).told:
        assert one.gate == []
        said = one.candidates[0].evidence
        assert said.gate is said.lexical_centroid is said.lexical_nearest is None
        assert said.expert > 0


def test_more_labels_than_there_are_is_all_of_them(model, corpus):
    (one,) = Explained(model, corpus.test[:1], top_k=100).told
    assert len(one.candidates) == len(one.gate) == len(model.labels)


def test_rounding_beyond_a_probability_is_no_failure(model, some):
    whole = dataclasses.replace(some.assessment, none=np.full(len(some.told), -1e-17))
    evidence = some.evidence.copy()
    evidence[:, :, Column.EXPERT] = 1e-7
    told = explanations(model, some.vectors, evidence, whole, some.decisions, top_k=2)
    assert {one.none for one in told} == {0}
    assert {said.score for one in told for said in one.experts} == {1}


def test_no_text_is_no_explanation(model, some):
    nobody = part_of(some.assessment, np.zeros(0, dtype=np.int64))
    assert explanations(model, some.vectors[:0], some.evidence[:0], nobody, [], top_k=3) == []


def test_it_can_be_sent(some):
    text = some.told[0].model_dump_json()
    assert Explanation.model_validate_json(text) == some.told[0]


# --- the judge's part --------------------------------------------------------------------------


def said(verdict=None, spec="ollama:m", question=QUESTION, **told):
    return judge_said(spec, question, verdict, mode="choose", **told)


def verdict(outcome=Outcome.LABEL, requests=1, judge="m", **told):
    label = "a" if outcome is Outcome.LABEL else None
    return Verdict("k", outcome, label, judge, requests, 12.5, **told)


def test_an_answer_that_was_bought_has_its_price():
    one = said(verdict(cost_usd=0.25))
    assert (one.outcome, one.label, one.requests, one.from_ledger) == ("label", "a", 1, False)
    assert (one.cost_usd, one.latency_ms) == (0.25, 12.5)
    assert [(option.label, option.description) for option in one.candidates] == [
        ("a", "first"),
        ("b", ""),
    ]
    assert one.candidates[0].examples == ["x", "y"]
    assert (one.judge, one.simulated, one.mode) == ("ollama:m", False, "choose")


@pytest.mark.parametrize("outcome", [Outcome.LABEL, Outcome.NONE])
def test_an_answer_that_was_known_costs_nothing(outcome):
    one = said(verdict(outcome, requests=0, cost_usd=None))
    assert (one.outcome, one.from_ledger) == (outcome, True)
    assert (one.cost_usd, one.latency_ms, one.requests) == (0.0, None, 0)


@pytest.mark.parametrize("outcome", [Outcome.UNREADABLE, Outcome.TIMEOUT, Outcome.ERROR])
@pytest.mark.parametrize("requests", [0, 2])
def test_a_failure_is_never_from_the_ledger(outcome, requests):
    one = said(verdict(outcome, requests=requests, error="why"))
    assert (one.outcome, one.error, one.from_ledger) == (outcome, "why", False)
    assert one.label is None


def test_what_a_person_said_is_a_persons():
    one = said(verdict(requests=0, judge=HUMAN), spec="simulated:0.9")
    assert (one.judge, one.simulated, one.from_ledger) == (HUMAN, False, True)


@pytest.mark.parametrize(("pending", "outcome"), [(True, "pending"), (False, "not_asked")])
def test_without_a_verdict_it_says_why(pending, outcome):
    one = said(spec="simulated:0.9", question=None, pending=pending)
    assert (one.outcome, one.simulated, one.candidates) == (outcome, True, [])
    assert (one.cost_usd, one.latency_ms) == (None, None)
