"""The ledger: an answer is never paid for twice, a failure is never an answer."""

from __future__ import annotations

import builtins
import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from red_ray.errors import ConfigError, OutputError, StorageError
from red_ray.judges.ledger import Kept, Ledger, Spent
from red_ray.judges.prompts import PROMPT_VERSION
from tests.disks import small_disk
from tests.ledger_suite import NOON, LedgerSuite, kept, question, received, sent, verdict


class TestSqliteLedger(LedgerSuite):
    @pytest.fixture
    def place(self, path: Path) -> Path:
        return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    opened = Ledger(path, now=lambda: NOON)
    yield opened
    opened.close()


def test_what_was_written_is_on_disk_at_once(ledger: Ledger, path: Path) -> None:
    ledger.write([Kept(verdict(), question("Ünïcode 🙂", mode="verify"))])
    other = sqlite3.connect(path)
    row = other.execute("SELECT text, candidates, mode, prompt_version, created_at FROM verdicts")
    assert row.fetchone() == (
        "Ünïcode 🙂",
        '["card_arrival", "card_lost", "top_up"]',
        "verify",
        PROMPT_VERSION,
        "2025-01-01 12:00:00.000000",
    )
    other.close()


def test_every_commit_waits_for_the_disk(ledger: Ledger) -> None:
    with ledger._engine.connect() as connection:
        told = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS]
    assert told == list(PRAGMAS.values())


PRAGMAS = {"journal_mode": "wal", "synchronous": 2}  # 2 is FULL


def test_leases_of_one_process_do_not_end_each_other(ledger: Ledger, path: Path) -> None:
    """Closing a locked file anywhere in a process drops all of its locks on it."""
    try_lease = (
        "import sys; from red_ray.judges.ledger import Ledger; Ledger(sys.argv[1]).lease('a')"
    )
    other = Ledger(path)
    first, second = ledger.lease("a"), other.lease("a")
    ledger.lease("b").release()
    second.release()
    command = [sys.executable, "-c", try_lease, str(path)]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert "another process asks the judge 'a'" in refused.stderr
    first.release()
    assert subprocess.run(command, capture_output=True, text=True).stderr == ""
    other.close()


def test_a_lock_that_cannot_be_made_is_told(ledger: Ledger, path: Path) -> None:
    path.with_name("ledger.sqlite.lock").mkdir()
    with pytest.raises(OutputError, match=r"cannot lock .*ledger\.sqlite\.lock.*directory"):
        ledger.lease("fake")


def fill_disk(ledger: Ledger) -> None:
    """Let SQLite itself say that the disk is full, on the connection that the ledger reuses."""
    with ledger._connection() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")


def test_a_full_disk_is_a_storage_error_without_the_text(ledger: Ledger) -> None:
    ledger.write([kept(verdict("before"))])
    fill_disk(ledger)
    with pytest.raises(StorageError, match=r"ledger\.sqlite.*full") as caught:
        ledger.write([kept(verdict(f"{i}"), text="private " * 500) for i in range(50)])
    assert "private" not in f"{caught.value} {caught.value.__cause__}"
    assert "\n" not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    assert list(ledger.get_many(["before"])) == ["before"]


def test_the_reserve_is_there_while_requests_are_made(ledger: Ledger, path: Path) -> None:
    reserve = path.with_name("ledger.sqlite.reserve")
    ledger.write([kept(verdict())])
    assert not reserve.exists(), "who only reads or imports needs none"
    ledger.write([sent()])
    assert reserve.stat().st_blocks * 512 >= 4 << 20
    ledger.close()
    assert not reserve.exists()


@pytest.fixture(name="small_disk")
def disk_of_8_mib(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "8m") as place:
        yield place


def fill(place: Path) -> None:
    """Take all the room there is."""
    with (place / "others").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 9, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def test_answers_that_were_paid_for_are_kept_on_a_full_disk(small_disk: Path) -> None:
    ledger = Ledger(small_disk / "ledger.sqlite")
    ledger.write([sent(i) for i in range(20)])
    fill(small_disk)
    keys = [f"{i}" for i in range(20)]
    for i, key in enumerate(keys):
        answer = kept(verdict(key), text="long " * 2000)
        ledger.write([received(i, prompt_tokens=10, cost_usd=0.1), answer])
    with pytest.raises(StorageError, match="its disk is full, and what was paid for is kept"):
        ledger.write([sent(20)])
    ledger.close()
    again = Ledger(small_disk / "ledger.sqlite")
    assert list(again.get_many(keys)) == keys
    assert again.spent("fake") == Spent(20, 200, pytest.approx(2.0))
    again.close()


def test_a_disk_without_room_for_the_reserve_still_takes_verdicts(small_disk: Path) -> None:
    ledger = Ledger(small_disk / "ledger.sqlite")
    (small_disk / "others").write_bytes(bytes(5 << 20))
    ledger.write([sent()])
    assert not (small_disk / "ledger.sqlite.reserve").exists()
    assert ledger.spent("fake").requests == 1
    ledger.close()


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


def test_a_ledger_of_another_version_is_one_clear_line(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE verdicts (key TEXT PRIMARY KEY, text TEXT)")
    connection.close()
    with pytest.raises(OutputError, match="another version of red_ray wrote it: move it") as caught:
        Ledger(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["mysql://h/x", "nonsense://x", "sqlite:///x.db", "postgresql+x://h/x"]
)
def test_an_unsupported_database_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"ledger.*postgresql://"):
        Ledger(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@h/x",
        "postgresql://h/x?password=hunter2",
        "postgresql://me:hunter2@h:port/x",
    ],
)
def test_a_password_is_neither_taken_nor_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"ledger's URL") as caught:
        Ledger(url)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


def test_where_to_put_a_password_is_told() -> None:
    with pytest.raises(ConfigError, match=r"PGPASSWORD or write ~/\.pgpass"):
        Ledger("postgresql://me:secret@h/x")


def test_without_its_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def no_psycopg(name: str, *args: Any) -> Any:
        if name.split(".")[0] == "psycopg":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", no_psycopg)
    with pytest.raises(ConfigError, match=r"pip install 'red-ray\[postgres\]'"):
        Ledger("postgresql://h/x")


def test_it_closes_twice(ledger: Ledger) -> None:
    ledger.close()
    ledger.close()


def test_two_that_share_a_file_see_the_same_disk(path: Path) -> None:
    """Whoever closes first takes the reserve along; the next request makes it anew."""
    one, other = Ledger(path), Ledger(path)
    one.write([sent(0)])
    other.close()
    one.write([sent(1)])
    assert os.path.exists(f"{path}.reserve")
    one.close()
