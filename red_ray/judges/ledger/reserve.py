"""Room on the disk for answers that are under way when it fills up."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import DBAPIError

_RESERVE_BYTES = 4 << 20  # a verdict with a long text takes some KiB: a thousand of them

_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
"""SQLite says I/O error where it cannot grow the file that its processes share."""


class Reserve:
    """A file beside the ledger that is given up when the disk is full; best effort.

    Args:
        ledger: the ledger's file.
    """

    def __init__(self, ledger: Path) -> None:
        self._path = ledger.with_name(f"{ledger.name}.reserve")
        self.given_up = False

    def hold(self) -> None:
        """Make it where it is missing."""
        if self.given_up or self._path.exists():
            return
        try:
            # Not zeros, which some file systems store as nothing.
            self._path.write_bytes(os.urandom(_RESERVE_BYTES))
        except OSError:
            self.release()

    def give_up_for(self, error: DBAPIError) -> bool:
        """Make room if `error` says that the disk is full; whether it does."""
        code = getattr(error.orig, "sqlite_errorcode", 0)
        if code & 0xFF not in _FULL:
            return False
        self.given_up = True
        self.release()
        return True

    def release(self) -> None:
        """Remove it."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
