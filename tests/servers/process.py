"""A server as a process of its own, which outlives a client that is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]


class ServerProcess:
    """Serves inside `with`; `journal` says what was asked, one line a request.

    Args:
        journal: appended to, so that a server that is started again goes on with it.
        options: of `python -m tests.servers`, for example `"--delay-ms", "50"`.
    """

    def __init__(self, journal: Path, *options: str) -> None:
        self._journal = journal
        self._options = options

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.servers", "--journal", str(self._journal)]
        self._process = subprocess.Popen(
            [*command, *self._options], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip()
        assert self.base_url, "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=10)

    @property
    def pid(self) -> int:
        return self._process.pid

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is answered inside `with`."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def served(self) -> list[dict[str, Any]]:
        """A number, `time_s`, the text's hash and what was served, for each request so far."""
        if not self._journal.exists():
            return []
        # What stands behind the last line break is a line that is just being written.
        *lines, _ = self._journal.read_text("ascii").split("\n")
        return [json.loads(line) for line in lines]
