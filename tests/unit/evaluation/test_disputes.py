"""The table of labels that a person should look at, and the way back of the answers."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from red_ray.errors import OutputError
from red_ray.evaluation.disputes import COLUMNS, write_disputes
from red_ray.judges import Ledger, question_key
from red_ray.judges.ledger import HumanVerdict, Kept
from red_ray.judges.ledger.transfer import take_answers
from red_ray.training.job import Dispute
from red_ray.types import Candidate, Outcome, Question, Verdict

BY_JUDGE = Dispute(
    "text one", "a", by_judge=True, judge_says=None, model_says="b", confidence=0.876
)
BY_USER = Dispute("text two", "a", by_judge=False, judge_says="c", model_says="b", confidence=0.5)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def keep(ledger: Ledger, text: str, label: str, *candidates: str) -> None:
    question = Question(text, tuple(map(Candidate, candidates)))
    key = question_key(question, "fake")
    ledger.write([Kept(Verdict(key, Outcome.LABEL, label, "fake", 1, 1.0), question)])


RUN = ("text", "sure", "=1+1", "=two")


def written(ledger: Ledger, *disputes: Dispute, texts: Iterable[str] = RUN) -> list[dict[str, str]]:
    path = Path(str(ledger._path)).with_name("disputed.csv")
    n_rows = write_disputes(path, disputes, ledger, texts=texts)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert n_rows == len(rows)
    return rows


def test_without_disputes_the_table_has_its_columns(ledger, tmp_path):
    assert written(ledger) == []
    assert (tmp_path / "disputed.csv").read_text().strip() == ",".join(COLUMNS)


def test_a_label_that_the_judge_gave_is_shown_with_the_model_s(ledger):
    (row,) = written(ledger, BY_JUDGE)
    assert list(row.values()) == ["text one", "a", "judge", "", "b", "0.88", ""]


@pytest.mark.parametrize(("said", "told"), [("c", "c"), (None, "(none of these)")])
def test_a_label_that_the_user_gave_is_shown_with_the_judge_s(ledger, said, told):
    dispute = Dispute("text", "a", by_judge=False, judge_says=said, model_says="b", confidence=1.0)
    (row,) = written(ledger, dispute)
    assert (row["given_by"], row["judge_says"], row["model_says"]) == ("you", told, "b")


def test_texts_on_which_verdicts_differ_follow(ledger):
    keep(ledger, "text", "a", "a", "b")
    keep(ledger, "text", "b", "a", "b", "c")
    keep(ledger, "sure", "a", "a", "b")
    keep(ledger, "sure", "a", "a", "c")
    rows = written(ledger, BY_JUDGE)
    assert [row["text"] for row in rows] == ["text one", "text", "text"]
    assert sorted(row["label"] for row in rows[1:]) == ["a", "b"]
    assert {row["given_by"] for row in rows[1:]} == {"fake"}


def test_verdicts_on_texts_of_another_run_are_left_out(ledger):
    """A text is known however it is written, and whatever a database makes of it."""
    for text in ("theirs", "=Ours", "nul\0"):
        keep(ledger, text, "a", "a", "b")
        keep(ledger, text, "b", "a", "b", "c")
    rows = written(ledger, BY_JUDGE, texts=[" =OURS", "nul\0"])
    assert {row["text"] for row in rows} == {"text one", "'=Ours", "nul\ufffd"}


def test_no_cell_is_run_by_a_spreadsheet(ledger):
    evil = "=1+1"
    keep(ledger, evil, "@a", "@a", "b")
    keep(ledger, evil, "b", "@a", "b", "c")
    dispute = Dispute(evil, "+a", by_judge=False, judge_says="-c", model_says="@b", confidence=1.0)
    for row in written(ledger, dispute):
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())


def test_answers_find_the_way_back(ledger):
    """As `red-ray ledger import` reads them; a text in two rows is answered once."""
    keep(ledger, "=two", "a", "a", "b")
    keep(ledger, "=two", "b", "a", "b", "c")
    rows = written(ledger, BY_JUDGE)
    for row, answer in zip(rows, ("c", "b", ""), strict=True):
        row["answer"] = answer
    counts = take_answers(ledger, rows)
    assert (counts.taken, counts.unanswered, counts.bad) == (2, 1, 0)
    assert ledger.humans_of(["text one", "=two"]) == {"text one": "c", "=two": "b"}


def test_what_a_person_answered_before_is_shown(ledger):
    keep(ledger, "text", "a", "a", "b")
    keep(ledger, "text", "b", "a", "b", "c")
    ledger.add_humans([HumanVerdict("text", "b")])
    assert [row["answer"] for row in written(ledger)] == ["b", ""]


def test_a_place_that_cannot_be_written_is_told(ledger, tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        write_disputes(tmp_path / "missing" / "disputed.csv", [BY_USER], ledger, texts=())
