"""One process at a time asks one judge over one ledger."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

POLL_S = 0.1


class Lease:
    """Held until `release`, the end of its block or of the process, however that ends."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        """Let another process ask; may be called twice."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def lease_file(path: Path, judge: str) -> Lease | None:
    """Lock the judge's byte of the file `path`; None where another process holds it.

    Raises:
        OSError: the file cannot be locked at all.
    """
    real, offset = os.path.realpath(path), _number(judge) >> 1
    with _FILES_LOCK:
        file = _FILES.get(real) or _LockFile(real)
        if not file.take(offset):
            file.close_if_idle()
            return None
        _FILES[real] = file
    return Lease(lambda: _give_back(real, offset))


KEEPALIVES = {"tcp_keepalives_idle": 5, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 2}
"""In seconds: a machine that is cut off says no farewell, and the server would hold its lease for
two hours; so for fifteen seconds."""


def lease_on_server(engine: sa.Engine, judge: str) -> Lease | None:
    """Take an advisory lock on a connection of its own; None where it is held.

    Raises:
        SQLAlchemyError: the server went away.
    """
    connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    connection.detach()  # closed with the lease, and no other statement runs on it
    key = _number(judge) - (1 << 63)
    if connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))):
        for name, value in KEEPALIVES.items():
            connection.exec_driver_sql(f"SET {name} = {value}")
        return Lease(lambda: _unlock(connection, key))
    connection.close()
    return None


def _unlock(connection: sa.Connection, key: int) -> None:
    with suppress(SQLAlchemyError):  # a connection that is lost has lost its lock
        connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))
    with suppress(SQLAlchemyError):
        connection.close()


def _number(judge: str) -> int:
    """64 bits that stand for the judge."""
    digest = hashlib.sha256(judge.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


class _LockFile:
    """A process may open such a file once only: closing it drops all locks of the process."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._n_leases: Counter[int] = Counter()

    def take(self, offset: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            self.close_if_idle()
            raise
        self._n_leases[offset] += 1
        return True

    def give_back(self, offset: int) -> None:
        self._n_leases[offset] -= 1
        if not self._n_leases[offset]:
            del self._n_leases[offset]
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, offset)

    def close_if_idle(self) -> bool:
        if not self._n_leases:
            os.close(self._fd)
        return not self._n_leases


_FILES: dict[str, _LockFile] = {}
_FILES_LOCK = threading.Lock()


def _give_back(real: str, offset: int) -> None:
    with _FILES_LOCK:
        _FILES[real].give_back(offset)
        if _FILES[real].close_if_idle():
            del _FILES[real]
