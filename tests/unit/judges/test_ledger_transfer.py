"""Verdicts to people and back: what they see, what they may answer, what a bad line does."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from red_ray.judges.ledger import HumanVerdict, Kept, Ledger
from red_ray.judges.ledger.transfer import (
    AnswerCounts,
    Only,
    RecordCounts,
    exported,
    guarded_cell,
    person_rows,
    take_answers,
    take_records,
    unguarded_cell,
)
from red_ray.types import WRITING, Candidate, Outcome, Question, Verdict

Rows = list[dict[str, str] | None]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def say(
    ledger: Ledger,
    text: str,
    said: str | Outcome,
    *,
    judge: str = "one",
    labels: tuple[str, ...] = ("a", "b"),
    mode: str = "choose",
) -> None:
    """A judge names a label, or has another outcome."""
    outcome = said if isinstance(said, Outcome) else Outcome.LABEL
    label = None if isinstance(said, Outcome) else said
    verdict = Verdict(f"{judge}{text}{labels}{mode}", outcome, label, judge, 1, 1.0)
    question = Question(text, tuple(map(Candidate, labels)), mode)
    ledger.write([Kept(verdict, question)])


def seen(ledger: Ledger, only: Only = Only.ALL) -> list[tuple[str, ...]]:
    return [(row["text"], row["verdict"], row["answer"]) for row in person_rows(ledger, only)]


def texts(ledger: Ledger, only: Only) -> set[str]:
    return {row["text"] for row in person_rows(ledger, only)}


def answered(*answers: str) -> Rows:
    return [{"text": f"text {i}", "answer": answer} for i, answer in enumerate(answers)]


# To people


def test_people_see_text_candidates_judge_and_verdict(ledger: Ledger) -> None:
    say(ledger, "where?", "b")
    assert list(person_rows(ledger, Only.ALL)) == [
        {"text": "where?", "candidates": "a | b", "judge": "one", "verdict": "b", "answer": ""}
    ]


@pytest.mark.parametrize(
    ("outcome", "word"), [(Outcome.NONE, "none_of_these"), (Outcome.UNREADABLE, "(unreadable)")]
)
def test_what_is_no_label_reads_as_none(ledger: Ledger, outcome: Outcome, word: str) -> None:
    say(ledger, "t", outcome)
    assert seen(ledger) == [("t", word, "")]


def test_the_word_for_none_is_never_a_label(ledger: Ledger) -> None:
    say(ledger, "t", Outcome.NONE, labels=("none_of_these", "none"))
    ledger.add_humans([HumanVerdict("t", None)])
    assert seen(ledger) == [("t", "none_of_these_", "none_of_these_")]
    counts = take_answers(ledger, answered("none_of_these_", "none_of_these", "none"))
    assert counts == AnswerCounts(taken=3)
    found = ledger.humans_of(["text 0", "text 1", "text 2"])
    assert list(found.values()) == [None, "none_of_these", "none"]


def test_an_answer_stands_beside_the_first_verdict_on_its_text(ledger: Ledger) -> None:
    say(ledger, "t", "a", judge="one")
    say(ledger, "T ", "b", judge="two")
    ledger.add_humans([HumanVerdict("t", "b")])
    assert sorted(row[2] for row in seen(ledger)) == ["", "b"]


def test_only_disputed(ledger: Ledger) -> None:
    say(ledger, "two labels", "a", judge="one")
    say(ledger, "Two  labels", "b", judge="two")
    say(ledger, "passed over", "a", judge="one")
    say(ledger, "passed over", Outcome.NONE, judge="two")
    say(ledger, "not offered", "a", judge="one")
    say(ledger, "not offered", Outcome.NONE, judge="two", labels=("c", "d"))
    say(ledger, "agreed", "a", judge="one")
    say(ledger, "agreed", "a", judge="two")
    say(ledger, "failed", "a", judge="one")
    say(ledger, "failed", Outcome.TIMEOUT, judge="two")
    assert texts(ledger, Only.DISPUTED) == {"two labels", "Two  labels", "passed over"}
    assert len(seen(ledger, Only.DISPUTED)) == 4


def test_only_unreadable(ledger: Ledger) -> None:
    say(ledger, "read", "a")
    say(ledger, "unread", Outcome.UNREADABLE)
    say(ledger, "late", Outcome.TIMEOUT)
    ledger.add_humans([HumanVerdict("unread", "a")])
    assert seen(ledger, Only.UNREADABLE) == [("unread", "(unreadable)", "a")]


@pytest.mark.parametrize("mode", WRITING)
def test_what_a_judge_wrote_is_no_question_to_people(ledger: Ledger, mode: str) -> None:
    say(ledger, "a", "A sentence about a.", labels=("a",), mode=mode)
    assert seen(ledger) == []


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(ledger: Ledger, begin: str) -> None:
    label = f"{begin}cmd"
    say(ledger, label, label, judge=f"{begin}judge", labels=(label, "b"))
    ledger.add_humans([HumanVerdict(label, label)])
    (row,) = person_rows(ledger, Only.ALL)
    assert {cell[:2] for cell in row.values()} == {f"'{begin}"}


@pytest.mark.parametrize("cell", ["=1", "'=1", "''=1", "'quoted'", "'", "", "a=1", "-"])
def test_a_guarded_cell_comes_back_as_it_was(cell: str) -> None:
    assert unguarded_cell(guarded_cell(cell)) == cell


# And back


def test_what_people_fill_in_is_their_word(ledger: Ledger) -> None:
    say(ledger, "t", "a")
    counts = take_answers(ledger, answered("a", " b ", "", "None", "NONE_of_these"))
    assert counts == AnswerCounts(taken=4, unanswered=1)
    found = ledger.humans_of([f"text {i}" for i in range(5)])
    assert found == {"text 0": "a", "text 1": "b", "text 3": None, "text 4": None}


def test_the_same_answer_again_is_nothing_new(ledger: Ledger) -> None:
    say(ledger, "t", "a")
    take_answers(ledger, answered("a", "b"))
    assert take_answers(ledger, answered("a", "a")) == AnswerCounts(taken=1, known=1)


def test_what_is_no_known_label_is_shown_and_not_taken(ledger: Ledger) -> None:
    say(ledger, "t", "a")
    rows = answered("a", "x", "y", "x", "z", "q")
    counts = take_answers(ledger, rows)
    assert counts == AnswerCounts(taken=1, unknown=5, unknown_labels=("x", "y", "z"))
    assert take_answers(ledger, rows, labels=frozenset("xy")).unknown_labels == ("z", "q")
    assert take_answers(ledger, rows, new_labels=True) == AnswerCounts(taken=2, known=4)


def test_the_rest_goes_on_after_a_bad_row(ledger: Ledger) -> None:
    say(ledger, "t", "a")
    rows: Rows = [None, {"text": " ", "answer": "a"}, {"text": "'=t", "answer": "a"}]
    assert take_answers(ledger, rows) == AnswerCounts(taken=1, bad=2)
    assert ledger.humans_of(["=t"]) == {"=t": "a"}


# Lines of another ledger


def line(ledger: Ledger, **changes: Any) -> bytes:
    say(ledger, "t", "a")
    (row,) = exported(ledger)
    return json.dumps(row | changes).encode()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "other.sqlite")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"label": None},  # a label without its name
        {"label": "c"},  # not among the candidates
        {"outcome": "none"},
        {"outcome": "maybe"},
        {"key": ""},
        {"text": "  "},
        {"text": None},
        {"mode": "shout"},
        {"candidates": "ab"},
        {"requests": -1},
        {"requests": 2**63},
        {"requests": "1"},
        {"latency_ms": math.nan},
        {"cost_usd": math.inf},
        {"created_at": "2025-01-01T12:00:00"},  # of which zone?
        {"created_at": "yesterday"},
    ],
)
def test_a_line_that_no_judge_can_have_given_is_left_out(
    ledger: Ledger, other: Ledger, changes: dict[str, Any]
) -> None:
    lines = [line(ledger, **changes), line(ledger)]
    assert take_records(other, lines) == RecordCounts(new=1, bad=1)


@pytest.mark.parametrize("bad", [b"{", b"[]", b"{}", b"\xff\xfe", b"null"])
def test_a_line_that_is_no_verdict_is_left_out(ledger: Ledger, other: Ledger, bad: bytes) -> None:
    assert take_records(other, [bad, b"\n", line(ledger)]) == RecordCounts(new=1, bad=1)


@pytest.mark.parametrize("mode", WRITING)
def test_what_a_judge_wrote_moves_too(ledger: Ledger, other: Ledger, mode: str) -> None:
    say(ledger, "a", "A sentence about a.", labels=("a",), mode=mode)
    lines = [json.dumps(row).encode() for row in exported(ledger)]
    assert take_records(other, lines) == RecordCounts(new=1)
    assert [record.label for record in other.records()] == ["A sentence about a."]


def test_labels_with_half_a_character_stay_among_their_candidates(ledger: Ledger) -> None:
    say(ledger, "t", "half \ud83d", labels=("half \ud83d", "b"))
    (record,) = ledger.records()
    assert record.label in record.candidates
