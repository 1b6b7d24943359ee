"""A head as a process: what is kept of it, how it begins and ends; a small server stands in for
Ray."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from red_ray.actors import head as module
from red_ray.actors.environment import HEAD_MARK, environment_of_head
from red_ray.actors.head import (
    Head,
    HeadFolder,
    end_head,
    end_processes,
    free_port,
    is_free,
    marked,
    start_head,
)
from red_ray.errors import ConfigError, DataError, OutputError, RunError

STAND_IN = """
import http.server, os, pathlib, subprocess, sys
temp, port = pathlib.Path(sys.argv[1]), int(sys.argv[2])
logs = temp / "session_latest" / "logs"
logs.mkdir(parents=True)
(logs / "job-driver-first.log").write_text("what it said")
(logs / "gcs_server.out").write_text("more")
token = open(os.environ["RAY_AUTH_TOKEN_PATH"]).read()
child = subprocess.Popen(["sleep", "600"])

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        right = self.headers["Authorization"] == f"Bearer {token}" and self.path == "/api/jobs/"
        self.send_response(200 if right else 401)
        self.end_headers()
    def log_message(self, *_): pass

server = http.server.HTTPServer(("127.0.0.1", port), Answers)
(temp / "ray_current_cluster").write_text("127.0.0.1:4444\\n")
server.serve_forever()
"""
FAILS = "import sys; print('one\\nRay says why'); sys.exit(1)"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this test alone, in an environment that names no cluster."""
    for name in [name for name in os.environ if name.startswith(("RAY_", "RED_RAY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module, "_short_place", lambda: str(tmp_path))
    return tmp_path


@pytest.fixture
def folder() -> Iterator[HeadFolder]:
    folder = HeadFolder()
    with folder.alone():
        yield folder


def stand_in(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    def command(temp: Path, port: int, n_cpus: int | None) -> list[str]:
        return [sys.executable, "-c", script, str(temp), str(port)]

    monkeypatch.setattr(module, "_command", command)


@pytest.fixture
def head(folder: HeadFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    stand_in(monkeypatch, STAND_IN)
    monkeypatch.setattr(module, "END_S", 5.0)
    started = start_head(folder, port=free_port(), n_cpus=3)
    yield started
    for one in marked(started.mark):
        one.kill()


def known(**changes: object) -> Head:
    me = psutil.Process()
    places = ("127.0.0.1:1", "http://127.0.0.1:2", "/t", "/f", "/l")
    head = Head(me.pid, me.create_time(), "m", *places, 2)
    return replace(head, **changes)  # type: ignore[arg-type]


def test_what_is_known_of_a_head_is_kept_for_the_user_alone(folder: HeadFolder) -> None:
    assert folder.read() is None
    folder.write(known())
    assert folder.read() == known()
    assert stat.S_IMODE((folder.path / "head.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    folder.forget()
    assert folder.read() is None


@pytest.mark.parametrize("text", ["", "[]", '{"pid": 1}'])
def test_a_damaged_file_is_named(folder: HeadFolder, text: str) -> None:
    (folder.path / "head.json").write_text(text)
    with pytest.raises(DataError, match=r"head\.json.*remove it"):
        folder.read()


def test_each_machine_has_a_head_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = HeadFolder().path
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert HeadFolder().path == ours.with_name("another")


def test_one_at_a_time_starts_or_ends_it(folder: HeadFolder) -> None:
    with pytest.raises(OutputError, match="at work"), HeadFolder().alone():
        pass


@pytest.fixture
def marked_process() -> Iterator[subprocess.Popen[bytes]]:
    """Any process with the mark of `known`."""
    process = subprocess.Popen(["sleep", "600"], env=os.environ | {HEAD_MARK: "m"})
    # Its name is there a moment before its environment.
    while psutil.Process(process.pid).environ().get(HEAD_MARK) != "m":
        time.sleep(0.001)
    yield process
    process.kill()
    process.wait()


def test_a_process_is_told_from_a_later_one_with_its_number(
    marked_process: subprocess.Popen[bytes],
) -> None:
    """By its mark, since the time at which it began moves with the clock."""
    head = known(pid=marked_process.pid, created_s=0.0)
    assert head.is_alive
    assert not replace(head, mark="another").is_alive
    assert not known().is_alive, "this process has no mark"


def test_one_that_never_came_up_is_not_alive(marked_process: subprocess.Popen[bytes]) -> None:
    assert not known(pid=marked_process.pid, address="").is_alive


def test_a_process_that_ended_is_not_alive_though_nobody_asked_how(
    marked_process: subprocess.Popen[bytes],
) -> None:
    head = known(pid=marked_process.pid)
    assert head.is_alive
    marked_process.kill()
    while psutil.Process(marked_process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not head.is_alive
    marked_process.wait()
    assert not head.is_alive


def test_what_a_command_that_joins_must_know() -> None:
    variables = known().variables()
    assert variables["RAY_ADDRESS"] == "127.0.0.1:1"
    assert variables["RAY_AUTH_TOKEN_PATH"] == "/t"
    assert "RAY_AUTH_TOKEN_PATH" not in known(token_file="").variables()


def test_a_head_finds_our_programs_first_and_joins_no_other(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:1")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    found = environment_of_head("mark")
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert "RAY_ADDRESS" not in found
    assert found[HEAD_MARK] == "mark"
    assert found["OPENAI_API_KEY"] == "k"
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    token = Path(found["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert os.environ["RAY_ADDRESS"] == "elsewhere:1"


def test_what_the_user_set_wins_but_never_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", "7")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 64)
    found = environment_of_head("mark")
    assert found["RAY_JOB_STOP_WAIT_TIME_S"] == "7"
    assert "RAY_AUTH_TOKEN_PATH" not in found
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match="unset RAY_AUTH_MODE"):
        environment_of_head("mark")


def test_a_head_is_up_when_it_answers_to_its_token(folder: HeadFolder, head: Head) -> None:
    assert head.is_alive
    assert head.address == "127.0.0.1:4444"
    assert head.n_cpus == 3
    assert folder.read() == head
    assert len(marked(head.mark)) == 2
    place = Path(head.folder).parent
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_what_a_head_leaves_is_ended_and_logs_of_its_jobs_are_kept(
    folder: HeadFolder, head: Head
) -> None:
    """The stand-in does not end its child, as Ray would."""
    assert end_head(folder, head) == 1
    assert not head.is_alive
    assert not marked(head.mark)
    assert not Path(head.folder).parent.exists()
    assert folder.read() is None
    assert [one.name for one in folder.jobs.iterdir()] == ["first.log"]
    assert (folder.jobs / "first.log").read_text() == "what it said"


def test_what_a_head_that_died_left_is_ended(folder: HeadFolder, head: Head) -> None:
    psutil.Process(head.pid).kill()
    while head.is_alive:
        time.sleep(0.01)
    assert len(marked(head.mark)) == 1
    assert end_head(folder, head) == 1
    assert not marked(head.mark)


def test_processes_of_others_live_on() -> None:
    other = subprocess.Popen(["sleep", "600"], env={**os.environ, HEAD_MARK: "other"})
    try:
        assert end_processes(None, "ours") == 0
        assert psutil.Process(other.pid).is_running()
    finally:
        other.kill()
        other.wait()


def test_a_head_that_does_not_start_says_why_and_leaves_nothing(
    folder: HeadFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, FAILS)
    with pytest.raises(RunError, match=r"did not start: Ray says why .*head\.log"):
        start_head(folder, port=free_port(), n_cpus=None)
    assert folder.read() is None
    assert not list(home.glob("rr-*"))


def test_a_head_that_does_not_answer_is_ended(
    folder: HeadFolder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(module, "START_S", 0.2)
    with pytest.raises(RunError, match="did not answer"):
        start_head(folder, port=free_port(), n_cpus=None)
    assert not list(home.glob("rr-*"))
    found = (one.environ() for one in psutil.Process().children() if one.status() != "zombie")
    assert not [one for one in found if HEAD_MARK in one]


def test_a_port_is_free_or_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert not is_free(taken.getsockname()[1])
    assert is_free(free_port())
