"""What becomes of a text that goes to the judge, by what came back."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from red_ray.config import JudgeConfig
from red_ray.core.thresholds import Promise, Thresholds
from red_ray.errors import JudgeUnavailable
from red_ray.escalation import Escalator
from red_ray.judges import Ledger, ValidatorPool
from red_ray.judges.ledger import HumanVerdict
from red_ray.model import Assessment
from red_ray.training import PoolValidator
from red_ray.types import HUMAN, Outcome
from tests.unit.judges.fakes import FakeJudge, label, script
from tests.unit.training.fakes import FakeEncoder, FakeValidator, train

NONE_FROM = 0.5
CHOOSE, VERIFY = JudgeConfig(), JudgeConfig(question="verify", top_k=1)
NO_RESULT = (Outcome.UNREADABLE, Outcome.TIMEOUT, Outcome.ERROR)


def with_threshold(model, escalate):
    promise = Promise(
        thresholds=Thresholds(escalate, NONE_FROM),
        goals={"catch_errors": 0.9},
        confidence=0.9,
        source="cross_fitted",
        data_hash="",
        curve=(),
        n_rows=60,
        n_errors=9,
        n_out_of_scope=0,
    )
    return dataclasses.replace(model, promise=promise, encoder=FakeEncoder())


@pytest.fixture(scope="module")
def model(corpus):
    """Escalates every text."""
    return with_threshold(asyncio.run(train(corpus.job())).model, 0.0)


class Texts:
    """Some texts as the model sees them."""

    def __init__(self, model, texts):
        self.texts = list(texts)
        self.vectors = FakeEncoder().encode(self.texts)
        self.assessment = model.assess(self.texts, self.vectors)
        self.decisions = model.decide(self.assessment)
        self.best = [decision.label for decision in self.decisions]

    def decide(self, escalator):
        return asyncio.run(
            escalator.decide(self.texts, self.vectors, self.assessment, self.decisions)
        )


@pytest.fixture
def some(model, corpus):
    return Texts(model, corpus.test[:6])


def escalator(model, answer, judge=CHOOSE, on_failure="abstain", **options):
    validator = FakeValidator(answer, **options)
    return Escalator(model, validator, judge, on_failure), validator


def by_hand(model, proba, none):
    """One text with a distribution of its own."""
    label_proba = np.full((1, len(model.labels)), 1e-6)
    label_proba[0, : len(proba)] = proba
    texts = Texts(model, ["family0 topic01"])
    texts.assessment = Assessment(label_proba, 1 - label_proba.max(axis=1), np.array([none]))
    texts.decisions = model.decide(texts.assessment)
    return texts


# --- what comes of a verdict -------------------------------------------------------------------


def test_a_label_is_accepted_with_the_models_probability_of_it(model, some):
    second = [decision.alternatives[0] for decision in some.decisions]
    chosen = dict(zip(some.texts, (one.label for one in second), strict=True))
    asked, _ = escalator(model, lambda question: chosen[question.text])
    for decision, wanted, before in zip(some.decide(asked), second, some.decisions, strict=True):
        assert (decision.decision, decision.source) == ("accept", "judge")
        assert decision.label == wanted.label
        assert decision.confidence == pytest.approx(wanted.confidence)
        position = int(decision.expert.removeprefix("expert-"))
        assert model.labels.index(decision.label) in model.subsets[position]
        named = [one.label for one in decision.alternatives]
        assert len(named) == len(before.alternatives)
        assert named[0] == before.label
        assert decision.label not in named


def test_no_label_is_none(model, some):
    asked, _ = escalator(model, lambda _: None)
    for decision, before in zip(some.decide(asked), some.decisions, strict=True):
        assert (decision.decision, decision.source, decision.label) == ("none", "judge", None)
        assert decision.alternatives[0].label == before.label


@pytest.mark.parametrize("outcome", NO_RESULT)
def test_no_result_abstains(model, some, outcome):
    asked, _ = escalator(model, lambda _: outcome)
    for decision, before in zip(some.decide(asked), some.decisions, strict=True):
        assert (decision.decision, decision.source, decision.label) == ("abstain", "judge", None)
        assert decision.alternatives[0].label == before.label


@pytest.mark.parametrize("outcome", NO_RESULT)
def test_no_result_is_the_models_own_answer_where_that_is_wanted(model, outcome):
    asked, _ = escalator(model, lambda _: outcome, on_failure="answer_best")
    (accepted,) = by_hand(model, [0.6, 0.3], NONE_FROM - 0.01).decide(asked)
    assert (accepted.decision, accepted.source) == ("accept", "model")
    assert accepted.label == model.labels[0]
    (none,) = by_hand(model, [0.6, 0.3], NONE_FROM).decide(asked)
    assert (none.decision, none.source, none.label) == ("none", "model", None)


@pytest.mark.parametrize("on_failure", ["abstain", "answer_best"])
@pytest.mark.parametrize("said", ["family0_topic00", "never_offered", ""])
def test_a_label_that_was_not_offered_is_no_result(model, said, on_failure):
    """Neither one of the model's labels nor one of the judge's invention."""
    judge = JudgeConfig(top_k=2)
    asked, _ = escalator(model, lambda _: said, judge, on_failure)
    proba = np.zeros(len(model.labels))
    proba[[1, 2]] = 0.6, 0.4
    (decision,) = by_hand(model, proba, 0.0).decide(asked)
    own = (model.labels[1], "accept", "model")
    wanted = (None, "abstain", "judge") if on_failure == "abstain" else own
    assert (decision.label, decision.decision, decision.source) == wanted


def test_what_the_budget_does_not_reach_stays_escalated(model, some):
    asked, validator = escalator(model, lambda _: None, budget=2)
    decisions = some.decide(asked)
    assert [one.decision for one in decisions] == ["none"] * 2 + ["escalate"] * 4
    assert decisions[2:] == some.decisions[2:]
    assert validator.asked == some.texts[:2]


def test_an_error_of_the_judge_passes_through(model, some):
    def gone(_):
        raise JudgeUnavailable("nobody there")

    asked, _ = escalator(model, gone)
    with pytest.raises(JudgeUnavailable, match="nobody there"):
        some.decide(asked)


# --- who is asked, and what --------------------------------------------------------------------


def test_only_what_is_escalated_is_asked_about_and_the_order_is_kept(model, corpus):
    everything = Texts(with_threshold(model, 0.0), corpus.test)
    risk = model.answer_risk(everything.assessment)
    some = Texts(with_threshold(model, float(np.median(risk))), corpus.test)
    truth = dict(zip(corpus.test, corpus.test_labels, strict=True))

    def answer(question):
        offered = {candidate.label for candidate in question.candidates}
        return truth[question.text] if truth[question.text] in offered else None

    asked, validator = escalator(model, answer, arrival=lambda verdicts: verdicts[::-1])
    decisions = some.decide(asked)
    doubtful = [one.decision == "escalate" for one in some.decisions]
    assert 0 < sum(doubtful) < len(doubtful)
    assert validator.asked == [t for t, d in zip(some.texts, doubtful, strict=True) if d]
    rows = zip(some.texts, doubtful, decisions, some.decisions, strict=True)
    for text, was_doubtful, decision, before in rows:
        if was_doubtful:
            assert decision.label in (truth[text], None)
            assert decision.source == "judge"
        else:
            assert decision == before


def test_nobody_is_asked_where_nothing_is_escalated(model, corpus):
    sure = Texts(with_threshold(model, 2.0), corpus.test)
    asked, validator = escalator(model, lambda _: None)
    assert sure.decide(asked) == sure.decisions
    assert validator.rounds == []
    assert Texts(model, []).decide(asked) == []


def test_a_question_holds_the_best_labels_their_descriptions_and_nearest_examples(model, corpus):
    described = dataclasses.replace(
        model, descriptions=tuple(f"about {name}" for name in model.labels)
    )
    some = Texts(described, corpus.test[:3])
    judge = JudgeConfig(top_k=4, examples_per_candidate=2)
    asked, validator = escalator(described, lambda _: None, judge)
    some.decide(asked)
    (questions,) = validator.rounds
    for row, question in enumerate(questions):
        best = np.argsort(-some.assessment.label_proba[row], kind="stable")[:4]
        assert question.mode == "choose"
        assert [one.label for one in question.candidates] == [model.labels[i] for i in best]
        for candidate, index in zip(question.candidates, best, strict=True):
            assert candidate.description == f"about {candidate.label}"
            own = np.flatnonzero(model.example_labels == index)
            near = own[np.argsort(-(model.example_vectors[own] @ some.vectors[row]))][:2]
            assert candidate.examples == tuple(model.example_texts[i] for i in near)


def test_texts_of_one_normalised_form_share_a_question(model):
    texts = [
        "Family0 topic01 now",
        "family1 topic05",
        "family0  TOPIC01 now ",
        "family0 topic01 now",
    ]
    some = Texts(model, texts)
    asked, validator = escalator(model, lambda question: question.candidates[0].label)
    decisions = some.decide(asked)
    assert validator.asked == texts[:2]
    assert decisions[0].label == decisions[2].label == decisions[3].label
    some.decide(asked)
    assert validator.asked[2:] == texts[:2]
    later = Texts(model, texts[3:])
    later.decide(asked)
    assert validator.asked[4:] == texts[:1], (
        "the first spelling is asked about, as the ledger has it"
    )


def test_of_texts_that_share_a_verdict_one_carries_what_it_took(model):
    some = Texts(model, ["family0 topic01", "FAMILY0 topic01"])
    asked, _ = escalator(model, lambda _: None)
    first, second = asyncio.run(asked.ask(some.texts, some.vectors, some.assessment))
    assert (first.requests, second.requests) == (1, 0)
    assert first.key == second.key


def test_remembered_forms_are_bounded(model, corpus, monkeypatch):
    monkeypatch.setattr("red_ray.escalation.MAX_FORMS", 3)
    some = Texts(model, corpus.test[:8])
    asked, validator = escalator(model, lambda _: None)
    assert [one.decision for one in some.decide(asked)] == ["none"] * 8
    assert len(asked._forms) == 3
    assert validator.asked == some.texts


# --- verify ------------------------------------------------------------------------------------


def test_verify_asks_about_the_best_label_alone(model, some):
    asked, validator = escalator(model, lambda question: question.candidates[0].label, VERIFY)
    decisions = some.decide(asked)
    (questions,) = validator.rounds
    assert {(question.mode, len(question.candidates)) for question in questions} == {("verify", 1)}
    assert [one.label for one in decisions] == some.best
    assert {(one.decision, one.source) for one in decisions} == {("accept", "judge")}


def test_a_no_of_verify_is_no_none(model, some):
    """It says only that this label does not fit."""
    asked, _ = escalator(model, lambda _: None, VERIFY)
    for decision in some.decide(asked):
        assert (decision.decision, decision.source, decision.label) == ("abstain", "judge", None)


@pytest.mark.parametrize(
    ("none", "wanted"),
    # Of what is left without the best label, 0.6 of the labels' part, none is 0.48 and 0.52.
    [(0.27, ("accept", 1)), (0.31, ("none", None)), (0.9, ("none", None))],
)
def test_after_a_no_of_verify_the_best_answer_is_another_one(model, none, wanted):
    asked, _ = escalator(model, lambda _: None, VERIFY, "answer_best")
    (decision,) = by_hand(model, [0.6, 0.4], none).decide(asked)
    label = None if wanted[1] is None else model.labels[wanted[1]]
    assert (decision.decision, decision.label, decision.source) == (wanted[0], label, "model")


# --- the ledger --------------------------------------------------------------------------------


def over_a_ledger(path, model, some, judge, config=CHOOSE):
    """Decisions, through a pool of its own; a new process would find the same ledger."""

    async def go():
        ledger = Ledger(path)
        pool = ValidatorPool(judge, ledger, config)
        asked = Escalator(model, PoolValidator(pool, judge.name, "escalation"), config, "abstain")
        try:
            return await asked.decide(some.texts, some.vectors, some.assessment, some.decisions)
        finally:
            await pool.close()
            ledger.close()

    return asyncio.run(go())


def test_the_ledger_answers_the_second_time(model, some, tmp_path):
    judge = FakeJudge(lambda _, question: label(question.candidates[0].label))
    first = over_a_ledger(tmp_path / "l.sqlite", model, some, judge)
    assert len(judge.asked) == len(some.texts)
    again = over_a_ledger(tmp_path / "l.sqlite", model, some, judge)
    assert again == first
    assert len(judge.asked) == len(some.texts)


def test_an_answer_that_could_not_be_read_is_not_paid_for_twice(model, some, tmp_path):
    from tests.unit.judges.fakes import UNREADABLE

    config = JudgeConfig(max_attempts=1)
    judge = FakeJudge(script(then=UNREADABLE))
    for _ in range(2):
        decisions = over_a_ledger(tmp_path / "l.sqlite", model, some, judge, config)
        assert {one.decision for one in decisions} == {"abstain"}
    assert len(judge.asked) == len(some.texts)


def test_a_budget_leaves_the_rest_for_another_time(model, some, tmp_path):
    judge = FakeJudge(lambda _, question: label(question.candidates[0].label))
    config = JudgeConfig(budget_calls=2, concurrency=1)
    decisions = over_a_ledger(tmp_path / "l.sqlite", model, some, judge, config)
    assert [one.decision for one in decisions].count("escalate") == 4
    decisions = over_a_ledger(tmp_path / "l.sqlite", model, some, judge)
    assert {one.decision for one in decisions} == {"accept"}
    assert len(judge.asked) == len(some.texts)


@pytest.mark.parametrize("said", ["a candidate", "another label", "a new label", None])
def test_a_person_outranks_the_judge_and_may_name_any_label(model, some, tmp_path, said):
    candidates = [some.best[0], *(one.label for one in some.decisions[0].alternatives)]
    named = {
        "a candidate": candidates[1],
        "another label": next(name for name in reversed(model.labels) if name not in candidates),
        "a new label": "quite_new",
        None: None,
    }[said]
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.add_humans([HumanVerdict(some.texts[0].upper(), named)])
    ledger.close()
    judge = FakeJudge(lambda _, question: label(question.candidates[0].label))
    config = JudgeConfig(top_k=3)
    first, *others = over_a_ledger(tmp_path / "l.sqlite", model, some, judge, config)
    assert judge.asked == some.texts[1:]
    assert {one.source for one in others} == {"judge"}
    assert (first.source, first.label) == ("human", named)
    assert first.decision == ("none" if named is None else "accept")
    if named in model.labels:
        proba = some.assessment.distribution[0, model.labels.index(named)]
        assert first.confidence == pytest.approx(proba)
    if said == "a new label":
        assert first.confidence == 0.0
    assert named not in [one.label for one in first.alternatives]


def test_the_word_of_a_person_is_marked_by_its_judge(model, some):
    """What the ledger calls a person's verdict is what a decision calls one."""
    asked, validator = escalator(model, lambda _: None)
    validator._verdict = lambda question: dataclasses.replace(
        FakeValidator._verdict(validator, question), judge=HUMAN
    )
    assert {one.source for one in some.decide(asked)} == {"human"}
