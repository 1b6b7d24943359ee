"""Planted questions: a random share, never to be told from the others, and never learned."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from red_ray.core.text import text_key
from red_ray.training.disputes import disputed
from red_ray.training.ensemble import Ensemble, FirstRows
from red_ray.training.fleet import Crew
from red_ray.training.gold import GoldRows
from red_ray.training.job import Dispute
from red_ray.training.router_host import CandidateView, Contradiction
from red_ray.types import HUMAN, Outcome, Question, Verdict
from tests.unit.training.fakes import FakeValidator, fingerprint, labelled, train, truth

NAMES = ("a", "b", "c")
INDEX = {name: position for position, name in enumerate(NAMES)}


def gold_rows(labels=(0, 0, 0, 1, 1, 2), share: float = 0.5, seed: int = 1) -> GoldRows:
    return GoldRows(np.array(labels), share, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("share", "expected"), [(0.02, [2, 2, 2]), (0.005, [0, 1, 1]), (0.0, [0, 0, 0])]
)
def test_the_share_is_kept_over_the_rounds(share, expected):
    gold = gold_rows(np.zeros(50, dtype=int), share)
    assert [len(gold.take(100)) for _ in range(3)] == expected


def test_no_row_is_asked_about_twice_and_all_are_in_time():
    gold = gold_rows(np.zeros(10, dtype=int))
    taken = [row for _ in range(9) for row in gold.take(4)]
    assert sorted(taken) == list(range(10))


def test_a_label_s_only_row_is_never_taken():
    assert sorted(gold_rows().take(1_000)) == [0, 1, 2, 3, 4]


def test_without_a_usable_row_none_is_taken():
    assert len(gold_rows([0, 1, 2]).take(1_000)) == 0


def test_the_same_seed_takes_the_same_rows():
    labels = np.zeros(200, dtype=int)
    first = [gold_rows(labels).take(40).tolist() for _ in range(2)]
    assert first[0] == first[1] != gold_rows(labels, seed=2).take(40).tolist()


def test_the_rows_are_drawn_over_all_labels():
    labels = np.repeat(np.arange(20), 10)
    assert len(set(labels[gold_rows(labels).take(100)])) > 12


def view(row: int, *labels: int) -> CandidateView:
    return CandidateView(row, labels, ((),) * len(labels))


def verdict(outcome: Outcome, label: str | None = None, judge: str = "fake") -> Verdict:
    return Verdict("key", outcome, label, judge, requests=1, latency_ms=1.0)


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        (verdict(Outcome.LABEL, "a"), (1, 1)),
        (verdict(Outcome.LABEL, "b"), (1, 0)),
        (verdict(Outcome.NONE), (1, 0)),
        (verdict(Outcome.UNREADABLE), (0, 0)),
        (verdict(Outcome.TIMEOUT), (0, 0)),
        (verdict(Outcome.ERROR), (0, 0)),
        (verdict(Outcome.LABEL, "a", HUMAN), (0, 0)),
        (verdict(Outcome.NONE, None, HUMAN), (0, 0)),
        (None, (0, 0)),
    ],
)
def test_only_answers_of_the_judge_count_and_the_row_s_label_is_right(said, counts):
    gold = gold_rows()
    assert gold.count([view(0, 0, 1)], [said], INDEX) == counts
    assert len(gold.answers) == counts[0]


@pytest.mark.parametrize(("said", "n_right"), [(None, 1), ("b", 0)])
def test_where_the_label_is_not_offered_none_is_right(said, n_right):
    outcome = Outcome.NONE if said is None else Outcome.LABEL
    assert gold_rows().count([view(0, 1, 2)], [verdict(outcome, said)], INDEX) == (1, n_right)


def test_each_verdict_is_held_against_its_own_row():
    gold = gold_rows()
    views = [view(0, 0, 1), view(3, 0, 1), view(4, 0, 1)]
    said = [verdict(Outcome.LABEL, "a"), None, verdict(Outcome.LABEL, "a")]
    assert gold.count(views, said, INDEX) == (2, 1)
    assert gold.answers == {0: 0, 4: 0}


SHARE = {"gold_share": 0.25}


@pytest.fixture(scope="module")
def planted(corpus):
    """A run with one question in four about a seed row, on each of which the judge is wrong."""

    def answer(question: Question) -> str | None:
        right = truth(corpus)(question)
        if question.text in corpus.hidden:
            return right
        return next(c.label for c in question.candidates if c.label != right)

    validator = FakeValidator(answer)
    trained = asyncio.run(train(corpus.job(judge=SHARE), validator))
    return trained, validator


def test_a_loop_plants_the_share_in_every_round(planted, corpus):
    _, validator = planted
    n_planted = [sum(q.text in corpus.texts for q in asked) for asked in validator.rounds]
    assert n_planted == [3, 3, 3]


def test_a_planted_question_looks_like_the_others(planted, corpus):
    """The same number of candidates and examples; its own text is among none of them."""
    asked = [question for questions in planted[1].rounds for question in questions]
    planted_ones = [question for question in asked if question.text in corpus.texts]
    assert {len(question.candidates) for question in asked} == {5}
    for question in planted_ones:
        shown = [text_key(text) for one in question.candidates for text in one.examples]
        assert len(shown) == 10
        assert text_key(question.text) not in shown


def test_no_planted_answer_reaches_training(planted, corpus):
    trained, _ = planted
    rows = labelled(trained)
    assert rows[: len(corpus.texts)] == list(zip(corpus.texts, corpus.labels, strict=True))
    learned = [text for text, _ in rows[len(corpus.texts) :]]
    assert learned
    assert not set(learned) & set(corpus.texts)


def test_the_figures_of_a_round_tell_planted_questions_apart(planted):
    for one in planted[0].iterations:
        assert (one.n_gold, one.n_gold_right) == (3, 0)
        assert one.n_asked == 12
        assert one.n_labelled + one.n_none <= 12


def test_planted_questions_change_nothing_of_the_model(planted, corpus):
    without = asyncio.run(train(corpus.job(), FakeValidator(truth(corpus))))
    assert fingerprint(planted[0], corpus) == fingerprint(without, corpus)


def test_where_the_budget_ends_planted_questions_go_first(corpus):
    validator = FakeValidator(truth(corpus), budget=13)
    trained = asyncio.run(train(corpus.job(judge=SHARE), validator))
    assert [(one.n_asked, one.n_gold) for one in trained.iterations] == [(12, 1)]


def of_rows(contradicted, answers, labels=(0, 0, 1, 1, 2)) -> tuple[Dispute, ...]:
    """Rows 0 to 2 are the user's, the others the judge's."""
    first = FirstRows(np.arange(3), np.array(labels[:3]), 3)
    crew = Crew((), None, None, np.asarray)
    ensemble = Ensemble(None, crew, (), np.zeros((5, 1)), first)
    ensemble.add(np.array([3, 4]), np.array(labels[3:]))
    texts = [f"text {row}" for row in range(5)]
    return disputed(contradicted, answers, ensemble, NAMES, texts)


def test_a_label_that_the_judge_gave_is_disputed_where_the_model_contradicts_it():
    assert of_rows([Contradiction(3, 2, 0.8)], {}) == (
        Dispute("text 3", "b", by_judge=True, judge_says=None, model_says="c", confidence=0.8),
    )


@pytest.mark.parametrize("answers", [{}, {0: 0}, {1: 2}])
def test_a_label_that_the_user_gave_stands_where_the_judge_does_not_contradict_it(answers):
    assert of_rows([Contradiction(0, 1, 0.9)], answers) == ()


@pytest.mark.parametrize(("said", "told"), [(1, "b"), (2, "c"), (None, None)])
def test_a_label_that_model_and_judge_contradict_is_disputed(said, told):
    (found,) = of_rows([Contradiction(0, 1, 0.9)], {0: said})
    assert found == Dispute(
        "text 0", "a", by_judge=False, judge_says=told, model_says="b", confidence=0.9
    )


def test_what_the_model_is_surest_about_comes_first():
    found = of_rows([Contradiction(4, 0, 0.4), Contradiction(3, 0, 0.9)], {})
    assert [one.text for one in found] == ["text 3", "text 4"]
