"""The ledger on PostgreSQL: the same contract, and what a server adds."""

from __future__ import annotations

import psycopg
import pytest

from red_ray.errors import OutputError, StorageError
from red_ray.judges.ledger import Ledger
from tests.ledger_suite import LedgerSuite, kept, verdict
from tests.services import postgres


class TestPostgresLedger(LedgerSuite):
    @pytest.fixture
    def place(self, postgres_place: str) -> str:
        return postgres_place


def test_a_ledger_of_another_version_is_one_clear_line(postgres_place: str) -> None:
    with psycopg.connect(postgres_place) as connection:
        connection.execute("CREATE TABLE verdicts (key text PRIMARY KEY, text text)")
    with pytest.raises(OutputError, match="another version of red_ray wrote it") as caught:
        Ledger(postgres_place)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_away_is_one_clear_line() -> None:
    with pytest.raises(OutputError, match="cannot open the ledger") as caught:
        Ledger("postgresql://red_ray@127.0.0.1:9/none")
    assert "\n" not in str(caught.value)


def test_a_connection_that_the_server_drops_is_opened_again(postgres_place: str) -> None:
    ledger = Ledger(f"{postgres_place}&application_name=doomed")
    ledger.write([kept(verdict())])
    with psycopg.connect(postgres_place, autocommit=True) as other:
        dropped = other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'doomed'"
        )
        assert dropped.fetchall() == [(True,)]
        assert list(ledger.get_many(["k"])) == ["k"]
    ledger.close()


def test_a_server_that_goes_away_is_a_storage_error() -> None:
    with postgres.server("fsync=off") as url:
        ledger = Ledger(url)
    with pytest.raises(StorageError, match="run the same command again") as caught:
        ledger.get_many(["k"])
    assert "\n" not in str(caught.value)
    ledger.close()
