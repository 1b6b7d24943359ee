"""Examples of a label from the judge: whom it is asked about, and what becomes of its answers."""

from __future__ import annotations

import pytest

from red_ray.core.text import text_key
from red_ray.errors import ConfigError, DataError, JudgeUnavailable
from red_ray.judges.base import question_key
from red_ray.labels.asking import Asker, Found, from_pool, parts_of
from red_ray.types import Outcome, Verdict
from tests.unit.labels.conftest import HELD


class Judge:
    """Answers by a function of the question: a label, None or an outcome; keeps its questions."""

    def __init__(self, answer, *, budget=10_000, top_k=3):
        self.rounds = []
        self.asker = Asker(
            self.ask, "fake", top_k, n_examples=1, unasked=lambda n: f"budget: {n} not asked"
        )
        self._answer, self._budget = answer, budget

    @property
    def asked(self):
        return [question for questions in self.rounds for question in questions]

    def ask(self, questions):
        left = self._budget - len(self.asked)
        self.rounds.append(list(questions))
        # In another order than they were put.
        return [self._verdict(question) for question in reversed(questions[:left])]

    def _verdict(self, question):
        said = self._answer(question)
        outcome = said if isinstance(said, Outcome) else Outcome.NONE
        label = None if isinstance(said, Outcome) else said
        if label is not None:
            outcome = Outcome.LABEL
        return Verdict(question_key(question, "fake"), outcome, label, "fake", 1, 1.0, error="away")


@pytest.fixture
def find(without, corpus, encoder):
    def go(judge, n_calls=20, pool=corpus.pool):
        about = "family1 topic05"
        return from_pool(
            without.model, HELD, about, pool, judge.asker, n_calls=n_calls, encoder=encoder
        )

    return go


def knows(corpus):
    """Names the true label where it is offered."""

    def answer(question):
        truth = corpus.hidden[question.text]
        return truth if truth in {one.label for one in question.candidates} else None

    return answer


def test_the_texts_like_the_label_are_asked_about_first(find, corpus):
    judge = Judge(knows(corpus))
    found = find(judge, n_calls=12)
    assert {corpus.hidden[text] for text in found.texts} == {HELD}
    assert len(found.texts) >= 4  # of six in a pool of 72
    assert (found.n_asked, found.n_unasked) == (12, 0)
    assert [len(questions) for questions in judge.rounds] == [10, 2]
    assert len({question.text for question in judge.asked}) == 12


def test_the_label_stands_among_those_that_the_model_thinks_of(find, corpus, without):
    judge = Judge(knows(corpus))
    find(judge)
    for question in judge.asked:
        first, *others = question.candidates
        assert (first.label, first.description, first.examples) == (HELD, "family1 topic05", ())
        assert len(others) == 2
        assert all(len(one.examples) == 1 for one in others)
        assert {one.label for one in others} <= set(without.model.labels)
        assert question.mode == "choose"


def test_a_small_pool_is_asked_about_whole(find, corpus):
    pool = [text for text in corpus.pool if corpus.hidden[text] == HELD]
    judge = Judge(knows(corpus))
    assert find(judge, pool=pool).texts == tuple(pool)
    assert len(judge.asked) == 6


def test_a_budget_ends_it(find, corpus):
    judge = Judge(lambda _: HELD, budget=13)
    found = find(judge, n_calls=30)
    assert (found.n_asked, found.n_unasked, len(found.texts)) == (13, 17, 13)
    assert len(judge.rounds) == 2


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (0, r"^budget: 20 not asked$"),
        (13, r"^none of 13 texts is of the label 'family1_topic05' yet: budget: 7 not asked$"),
    ],
)
def test_a_budget_that_ends_before_a_text_was_found_is_named(find, budget, words):
    with pytest.raises(ConfigError, match=words):
        find(Judge(lambda _: None, budget=budget))


def test_few_texts_of_a_label_are_a_reason_for_caution():
    few = Found(("one", "x" * 100), n_asked=40, n_unasked=0).caution
    assert "only 2 of 40 texts" in few
    assert f"'one', '{'x' * 60}'" in few
    # Five of 60 are as many as a judge errs about; of 50 they are not.
    assert "only 5 of 60" in Found(("a",) * 5, n_asked=60, n_unasked=0).caution
    assert Found(("a",) * 5, n_asked=50, n_unasked=0).caution == ""
    assert "only 4 of 4" in Found(("a",) * 4, n_asked=4, n_unasked=0).caution


def test_a_judge_that_finds_nothing_or_is_away_is_told(find):
    with pytest.raises(DataError, match="none of 20 texts the label 'family1_topic05'"):
        find(Judge(lambda _: None))
    with pytest.raises(DataError, match="no pool text is left"):
        find(Judge(lambda _: None), pool=())
    with pytest.raises(JudgeUnavailable, match=r"any of 10 questions \(away\)"):
        find(Judge(lambda _: Outcome.TIMEOUT))


def test_some_failures_take_nothing_away(find, corpus):
    truth = knows(corpus)
    answers = iter([Outcome.ERROR] + [None] * 100)
    judge = Judge(lambda question: next(answers) or truth(question))
    assert set(find(judge).texts) <= {t for t, label in corpus.hidden.items() if label == HELD}


def test_rows_are_dealt_to_two_labels():
    said = {"a": "one", "b": "two", "c": None, "d": Outcome.UNREADABLE}
    judge = Judge(lambda question: said[question.text])
    found, n_none = parts_of([*said], ("one", "two"), ("the first", ""), judge.asker)
    assert found == {
        text_key("a"): "one",
        text_key("b"): "two",
        text_key("c"): None,
        text_key("d"): None,
    }
    assert n_none == 2
    options = [(one.label, one.description) for one in judge.asked[0].candidates]
    assert options == [("one", "the first"), ("two", "")]


@pytest.mark.parametrize(
    ("budget", "error", "words"),
    [
        (1, ConfigError, "1 of 2 rows have no answer: budget: 1 not asked"),
        (2, JudgeUnavailable, "1 of 2 rows have no answer; what it answered is kept"),
    ],
)
def test_rows_without_an_answer_stop_a_split(budget, error, words):
    judge = Judge(lambda q: "one" if q.text == "a" else Outcome.TIMEOUT, budget=budget)
    with pytest.raises(error, match=words):
        parts_of(["a", "b"], ("one", "two"), ("", ""), judge.asker)
