"""The texts that wait for a person, and what becomes of the answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from red_ray.errors import DataError
from red_ray.evaluation.disputes import COLUMNS, write_disputes
from red_ray.judges import Ledger, question_key
from red_ray.judges.ledger import HumanVerdict, Kept, Review
from red_ray.run_folder import DISPUTED, RunFolder
from red_ray.training.job import Dispute
from red_ray.types import Candidate, Outcome, Question, Verdict
from serve.review import keep, queue
from serve.schemas import Feedback, Queue

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
LABELS = ("card_arrival", "card_lost")


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


@pytest.fixture
def ledger(run):
    opened = Ledger(run.ledger, now=lambda: NOON)
    yield opened
    opened.close()


def review(text, minute=0, reason="escalated", **told):
    at = NOON + timedelta(minutes=minute)
    return Review(text, reason, (("card_lost", 0.5), ("card_arrival", 0.25)), created_at=at, **told)


def dispute(text, label="a", by_judge=True, judge_says=None, model_says="b", confidence=0.876):
    return Dispute(text, label, by_judge, judge_says, model_says, confidence)


def disputed(run, ledger, *disputes, texts=()):
    write_disputes(run.path / DISPUTED, disputes, ledger, texts=texts)


def bought(ledger, text, label, *candidates):
    question = Question(text, tuple(map(Candidate, candidates)))
    outcome = Outcome.NONE if label is None else Outcome.LABEL
    ledger.write(
        [Kept(Verdict(question_key(question, "fake"), outcome, label, "fake", 1, 1.0), question)]
    )


def told(ledger, run, limit=50):
    """Texts and reasons; what is told can be sent."""
    found = queue(ledger, run, limit=limit)
    assert Queue.model_validate_json(found.model_dump_json()) == found
    return [(item.text, item.reason) for item in found.items]


def said(item):
    return [(one.by, one.label) for one in item.said]


# --- what waits --------------------------------------------------------------------------------


def test_an_empty_run_has_nothing_to_look_at(ledger, run):
    assert queue(ledger, run, limit=5) == Queue(n_open=0, items=[])


def test_what_was_asked_about_comes_before_what_is_disputed(ledger, run):
    disputed(run, ledger, dispute("of training"))
    ledger.add_reviews([review("early", 0), review("late", 1, "abstained", note="timed out")])
    assert told(ledger, run) == [
        ("late", "abstained"),
        ("early", "escalated"),
        ("of training", "disputed"),
    ]
    found = queue(ledger, run, limit=2)
    assert (found.n_open, [item.text for item in found.items]) == (3, ["late", "early"])
    late = found.items[0]
    assert [(one.label, one.confidence) for one in late.candidates] == [
        ("card_lost", 0.5),
        ("card_arrival", 0.25),
    ]
    assert (said(late), late.note) == ([("model", "card_lost")], "timed out")
    assert late.at == NOON + timedelta(minutes=1)


def test_a_text_stands_there_once(ledger, run):
    disputed(run, ledger, dispute("Both"))
    ledger.add_reviews([review("both")])
    assert told(ledger, run) == [("both", "escalated")]
    assert queue(ledger, run, limit=5).n_open == 1


@pytest.mark.parametrize("label", ["a", None])
def test_what_a_person_answered_is_gone(ledger, run, label):
    disputed(run, ledger, dispute("one"), dispute("two"))
    ledger.add_reviews([review("three")])
    ledger.add_humans([HumanVerdict("ONE", label), HumanVerdict("three", label)])
    assert told(ledger, run) == [("two", "disputed")]
    assert queue(ledger, run, limit=5).n_open == 1


@pytest.mark.parametrize(
    ("by_judge", "judge_says", "expected"),
    [
        (True, None, [("judge", "a"), ("model", "b")]),
        (False, "c", [("user", "a"), ("judge", "c"), ("model", "b")]),
        (False, None, [("user", "a"), ("judge", None), ("model", "b")]),
    ],
)
def test_a_dispute_tells_who_said_what(ledger, run, by_judge, judge_says, expected):
    disputed(run, ledger, dispute("t", by_judge=by_judge, judge_says=judge_says))
    (item,) = queue(ledger, run, limit=5).items
    assert said(item) == expected
    assert [(one.label, one.confidence) for one in item.candidates] == [("b", 0.88)]
    assert item.at is None


def test_verdicts_that_differ_are_one_text_with_all_of_them(ledger, run):
    bought(ledger, "t", "a", "a", "b")
    bought(ledger, "t", "b", "a", "b", "c")
    bought(ledger, "t", None, "b", "c")
    disputed(run, ledger, texts=["t"])
    (item,) = queue(ledger, run, limit=5).items
    assert sorted(said(item), key=str) == [("judge", "a"), ("judge", "b"), ("judge", None)]
    assert item.candidates == []


def test_a_dispute_and_verdicts_on_one_text_are_one(ledger, run):
    bought(ledger, "t", "a", "a", "b")
    bought(ledger, "t", "c", "a", "c")
    disputed(run, ledger, dispute("t", label="a"), texts=["t"])
    (item,) = queue(ledger, run, limit=5).items
    assert set(said(item)) == {("judge", "a"), ("judge", "c"), ("model", "b")}
    assert len(item.said) == 3
    assert [one.label for one in item.candidates] == ["b"]


def test_cells_that_were_guarded_come_back_as_they_were(ledger, run):
    disputed(run, ledger, dispute("=1+1", label="+a", model_says="@b"), dispute("'quoted'"))
    first, second = queue(ledger, run, limit=5).items
    assert (first.text, said(first)) == ("=1+1", [("judge", "+a"), ("model", "@b")])
    assert second.text == "'quoted'"
    keep(ledger, [Feedback(text="=1+1", label=None)], LABELS)
    assert [item.text for item in queue(ledger, run, limit=5).items] == ["'quoted'"]


# --- a table that people had in their hands ----------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"a,b\n1,2\n",
        b'text,answer\n"never closed',
        b"text,label,answer\nonly one cell\n",
        b"text,answer\n  ,a\n",
    ],
)
def test_a_damaged_table_breaks_nothing(ledger, run, content):
    ledger.add_reviews([review("fine")])
    (run.path / DISPUTED).write_bytes(content)
    assert ("fine", "escalated") in told(ledger, run)


def test_a_table_that_is_no_file_breaks_nothing(ledger, run):
    (run.path / DISPUTED).mkdir()
    assert told(ledger, run) == []


@pytest.mark.parametrize("confidence", ["", "much", "nan", "1.5", "-1"])
def test_a_confidence_that_is_none_is_left_out(ledger, run, confidence):
    row = ("t", "a", "you", "", "b", confidence, "")
    text = ",".join(COLUMNS) + "\n" + ",".join(row) + "\n"
    (run.path / DISPUTED).write_text(text)
    (item,) = queue(ledger, run, limit=5).items
    assert (item.candidates, said(item)) == ([], [("user", "a"), ("model", "b")])


def test_a_spreadsheets_semicolons_are_read(ledger, run):
    (run.path / DISPUTED).write_text("text;label;given_by;answer\nt;a;you;\n")
    (item,) = queue(ledger, run, limit=5).items
    assert (item.text, said(item)) == ("t", [("user", "a")])


def test_a_table_that_changes_is_read_again(ledger, run):
    disputed(run, ledger, dispute("one"))
    assert told(ledger, run) == [("one", "disputed")]
    disputed(run, ledger, dispute("one"), dispute("two"))
    assert told(ledger, run) == [("one", "disputed"), ("two", "disputed")]
    (run.path / DISPUTED).unlink()
    assert told(ledger, run) == []


# --- what people say ---------------------------------------------------------------------------


def test_answers_go_into_the_ledger_once(ledger, run):
    ledger.add_reviews([review("one"), review("two")])
    answers = [Feedback(text="One", label="card_lost"), Feedback(text="two", label=None)]
    assert keep(ledger, answers, LABELS) == 2
    assert keep(ledger, answers, LABELS) == 0
    assert ledger.humans_of(["one", "two"]) == {"one": "card_lost", "two": None}
    assert told(ledger, run) == []


def test_of_one_text_the_last_word_counts(ledger):
    keep(ledger, [Feedback(text="t", label=label) for label in LABELS], LABELS)
    assert ledger.humans_of(["t"]) == {"t": LABELS[-1]}


@pytest.mark.parametrize(
    ("text", "label", "match"),
    [
        ("t", "card_lots", r"answers\[1\]: .* no label 'card_lots'; did you mean 'card_lost'\?"),
        ("t", "zebra", r"no label 'zebra'; null says that none fits"),
        ("t", "", r"no label ''; null says"),
        ("t", "card_lost" * 10**6, r"no label '(card_lost){22}ca'; null says"),
        (" \n", "card_lost", r"answers\[1\] has an empty text"),
    ],
)
def test_one_that_cannot_be_kept_keeps_them_all_out(ledger, run, text, label, match):
    ledger.add_reviews([review("fine")])
    answers = [Feedback(text="fine", label="card_lost"), Feedback(text=text, label=label)]
    with pytest.raises(DataError, match=match) as caught:
        keep(ledger, answers, LABELS)
    assert "\n" not in str(caught.value)
    assert list(ledger.humans()) == []
    assert told(ledger, run) == [("fine", "escalated")]
