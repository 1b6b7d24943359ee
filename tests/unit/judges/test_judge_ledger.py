"""The ledger: an answer is never paid for twice, a failure is never an answer."""

import pickle
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from red_ray.errors import ConfigError, OutputError, StorageError
from red_ray.judges.ledger import Ledger
from red_ray.types import Outcome, Verdict
from tests.unit.judges.fakes import question, verify

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
FAILED = [Outcome.UNREADABLE, Outcome.TIMEOUT, Outcome.ERROR]


def verdict(key: str = "k", outcome: Outcome = Outcome.LABEL, *, requests: int = 1) -> Verdict:
    label = "card_lost" if outcome is Outcome.LABEL else None
    return Verdict(key, outcome, label, "fake", requests, 12.5, 100, 7, error="")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    opened = Ledger(path, now=lambda: NOON)
    yield opened
    opened.close()


@pytest.mark.parametrize("outcome", [Outcome.LABEL, Outcome.NONE])
def test_an_answer_comes_back_for_free(ledger: Ledger, outcome: Outcome) -> None:
    ledger.add(verdict(outcome=outcome, requests=3), question())
    assert ledger.get_many(["k", "other"]) == {"k": verdict(outcome=outcome, requests=0)}


@pytest.mark.parametrize("outcome", FAILED)
def test_a_failure_counts_but_does_not_come_back(ledger: Ledger, outcome: Outcome) -> None:
    ledger.add(verdict(outcome=outcome, requests=3), question())
    assert ledger.get_many(["k"]) == {}
    assert ledger.count_requests() == 3
    assert [kept.outcome for kept in ledger.verdicts()] == [outcome]


@pytest.mark.parametrize("outcome", FAILED)
def test_an_answer_after_a_failure_adds_up(ledger: Ledger, outcome: Outcome) -> None:
    ledger.add(replace(verdict(outcome=outcome, requests=3), error="why"), question())
    ledger.add(verdict(requests=2), question())
    (kept,) = ledger.verdicts()
    summed = {"requests": 5, "prompt_tokens": 200, "completion_tokens": 14}
    assert kept == replace(verdict(), **summed)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_nothing_replaces_an_answer(ledger: Ledger, outcome: Outcome) -> None:
    ledger.add(verdict(), question())
    ledger.add(replace(verdict(outcome=outcome), label=None, error="later"), question())
    assert ledger.get_many(["k"])["k"].label == "card_lost"
    assert ledger.count_requests() == 2


def test_what_was_added_is_on_disk_at_once(ledger: Ledger, path: Path) -> None:
    ledger.add(verdict(), verify("Ünïcode 🙂"))
    other = sqlite3.connect(path)
    row = other.execute("SELECT text, candidates, mode, prompt_version, created_at FROM verdicts")
    assert row.fetchone() == (
        "Ünïcode 🙂",
        '["card_arrival"]',
        "verify",
        "1",
        "2025-01-01 12:00:00.000000",
    )
    other.close()


def test_it_opens_again_with_everything(ledger: Ledger, path: Path) -> None:
    ledger.add(verdict(), question())
    again = Ledger(path)
    assert again.count_requests() == 1
    assert list(again.get_many(["k"])) == ["k"]
    again.close()


def test_many_are_one_commit_and_looked_up_in_chunks(ledger: Ledger) -> None:
    ledger.add_many((verdict(f"{i:04d}"), question(f"text {i}")) for i in range(2_000))
    ledger.add_many([])
    keys = [f"{i:04d}" for i in range(2_500)]
    assert list(ledger.get_many(keys)) == keys[:2_000]
    assert [kept.key for kept in ledger.verdicts()] == keys[:2_000]
    assert ledger.get_many([]) == {}


def test_many_are_all_or_none(ledger: Ledger) -> None:
    broken = replace(verdict("b"), judge=None)  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="NOT NULL"):
        ledger.add_many([(verdict("a"), question()), (broken, question())])
    assert ledger.count_requests() == 0


def test_an_empty_ledger_has_made_no_request(ledger: Ledger) -> None:
    assert ledger.count_requests() == 0
    assert list(ledger.verdicts()) == []


def test_it_serves_other_threads(ledger: Ledger) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda i: ledger.add(verdict(f"k{i}"), question()), range(40)))
    assert ledger.count_requests() == 40


def test_two_openers_see_each_other(ledger: Ledger, path: Path) -> None:
    other = Ledger(path)
    other.add(verdict(), question())
    ledger.add(verdict("k2"), question())
    assert ledger.count_requests() == other.count_requests() == 2
    other.close()


def test_a_text_that_is_no_unicode_is_stored(ledger: Ledger) -> None:
    ledger.add(verdict(), question("half a pair \ud83d and \x00"))
    assert list(ledger.get_many(["k"])) == ["k"]


def fill_disk(ledger: Ledger) -> None:
    """Let SQLite itself say that the disk is full, on the connection that the ledger reuses."""
    with ledger._connection() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")


def test_a_full_disk_is_a_storage_error_without_the_text(ledger: Ledger) -> None:
    ledger.add(verdict("before"), question())
    fill_disk(ledger)
    with pytest.raises(StorageError, match=r"ledger\.sqlite.*full") as caught:
        ledger.add_many((verdict(f"{i}"), question("private " * 500)) for i in range(50))
    assert "private" not in f"{caught.value} {caught.value.__cause__}"
    assert "\n" not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    assert list(ledger.get_many(["before"])) == ["before"]


def test_a_place_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="file"):
        Ledger(tmp_path / "file" / "ledger.sqlite")
    with pytest.raises(OutputError, match="unable to open"):
        Ledger(tmp_path)


def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("important " * 500)
    with pytest.raises(OutputError, match="not a database"):
        Ledger(path)
    assert path.read_text().startswith("important")


@pytest.mark.parametrize("url", ["mysql://h/x", "nonsense://x", "sqlite:///x.db"])
def test_an_unsupported_database_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="ledger"):
        Ledger(url)


def test_it_closes_twice(ledger: Ledger) -> None:
    ledger.close()
    ledger.close()
