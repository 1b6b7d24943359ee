"""A private PostgreSQL server, and a place of its own in it for each ledger."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

PATIENCE_S = 60.0
UNPRIVILEGED = "postgres"
"""Whom the server runs as where we are root, which it refuses."""


class Unavailable(Exception):
    """Why no server can be started here."""


@contextlib.contextmanager
def server(*settings: str) -> Iterator[str]:
    """Start a server on a loopback port of its own; yields the URL of its database.

    Args:
        settings: as in `postgresql.conf`, for example `fsync=off`.

    Raises:
        Unavailable: it cannot be started.
    """
    programs, account = find_programs(), _account()
    folder = Path(tempfile.mkdtemp(prefix="red_ray_pg_"))
    try:
        if account:
            shutil.chown(folder, UNPRIVILEGED)
        port = _free_port()
        options = [
            f"port={port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={folder}",
        ]
        _initialise(programs / "initdb", folder, account)
        command = [str(programs / "postgres"), "-D", str(folder / "data")]
        for option in (*options, *settings):
            command += ["-c", option]
        with (
            (folder / "log").open("wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **account) as process,
        ):
            try:
                url = f"postgresql://red_ray@127.0.0.1:{port}/postgres"
                _wait(url, process, folder / "log")
                yield url
            finally:
                process.send_signal(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def place(url: str) -> Iterator[str]:
    """A schema of its own; yields the URL of a ledger in it."""
    schema = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        try:
            yield f"{url}?options=-csearch_path%3D{schema}"
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")


def find_programs() -> Path:
    """Where the programs are: Debian keeps them beside the PATH, a folder for each version.

    Raises:
        Unavailable: nowhere.
    """
    found = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    if found is None and not folders:
        raise Unavailable("PostgreSQL is not here; scripts/install_services.sh installs it")
    return Path(found).parent if found else folders[-1].parent


def _version(initdb: Path) -> float:
    return float(initdb.parts[-3])


def _account() -> dict[str, Any]:
    """Options of a process that must not run as root."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise Unavailable(
            f"root cannot run PostgreSQL, and there is no user {UNPRIVILEGED!r}"
        ) from None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _initialise(initdb: Path, folder: Path, account: dict[str, Any]) -> None:
    command = [str(initdb), "-D", str(folder / "data"), "-U", "red_ray", "--auth=trust"]
    command += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **account)
    if done.returncode:
        raise Unavailable(f"initdb failed: {done.stderr.strip()}")


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > until_s:
                raise Unavailable(f"PostgreSQL did not start: {log.read_text()[-500:]}") from None
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
