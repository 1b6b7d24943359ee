"""A head of Ray on this machine that outlives the command which starts it; Ray is not imported.

What is known of it stands in a folder of the user's, one for each machine:

head.json    pid, addresses and settings; the pid alone may by now be somebody else's process
head.log     what `ray start` said
jobs/        logs of the jobs of the head that ended last
.lock        held by who starts or ends it

Ray opens its own folder to everybody, sockets, logs and the files of jobs: so that one lies in
a folder which only the user may enter.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import httpx
import psutil

from red_ray.actors.environment import HEAD_MARK, environment_of_head
from red_ray.errors import DataError, OutputError, RunError, last_line
from red_ray.storage import writing

LOOPBACK = "127.0.0.1"
DASHBOARD_PORT = 8265
"""Ray's own choice, which `ray job submit` knows."""

START_S = 180.0
"""A start takes 5 s on two quiet processors."""

END_S = 60.0
"""How long a head has to end by itself after SIGTERM; it takes 7 s with an endpoint on it."""

POLL_S = 0.1

SHORT = 22
"""Characters of a folder for temporary files in which there is room for Ray's sockets, whose paths
may have 107: 16 are the folder's in it, and Ray adds 69."""

_STATE, _LOG, _LOCK = "head.json", "head.log", ".lock"


@dataclass(frozen=True, slots=True)
class Head:
    """A head that was started.

    Attributes:
        pid: of `ray start --block`, the parent of all.
        created_s: when that process began, in seconds since 1970.
        mark: what all its processes, and no others, have in their environment.
        address: for RAY_ADDRESS; empty until it is up.
        dashboard: for RAY_API_SERVER_ADDRESS; also the page.
        token_file: which the head was started with; empty where RAY_AUTH_TOKEN held the token.
        folder: Ray's own, with sockets, logs and files of jobs.
        log: what `ray start` said.
        n_cpus: logical processors; None for all of the machine.
    """

    pid: int
    created_s: float
    mark: str
    address: str
    dashboard: str
    token_file: str
    folder: str
    log: str
    n_cpus: int | None

    @property
    def is_alive(self) -> bool:
        """Whether it came up and its process runs: that one, not another with its number."""
        if not self.address:
            return False
        # By its mark: the time at which a process began moves with the clock.
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(self.pid)
            return _runs(process) and process.environ().get(HEAD_MARK) == self.mark
        return False

    def variables(self) -> dict[str, str]:
        """What must be in the environment of a command that joins it."""
        found = {
            "RAY_ADDRESS": self.address,
            "RAY_API_SERVER_ADDRESS": self.dashboard,
            "RAY_AUTH_MODE": "token",
            # Who joins is reached there too.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }
        return found | ({"RAY_AUTH_TOKEN_PATH": self.token_file} if self.token_file else {})


class HeadFolder:
    """What is known of this machine's head.

    Args:
        path: the folder; None for the user's.
    """

    def __init__(self, path: Path | None = None) -> None:
        home = Path.home() / ".cache" / "red_ray" / "head"
        self.path = path or home / socket.gethostname()
        self.log = self.path / _LOG
        self.jobs = self.path / "jobs"

    def read(self) -> Head | None:
        """The head that was started last and not ended, alive or not.

        Raises:
            DataError: the file is damaged.
        """
        path = self.path / _STATE
        try:
            return Head(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{str(path)!r} cannot be read ({error}); remove it") from error

    def write(self, head: Head) -> None:
        """Keep what is known, for the user alone."""
        path = self.path / _STATE
        with writing(path):
            new = path.with_name(f".{_STATE}.new")
            new.unlink(missing_ok=True)
            with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(json.dumps(asdict(head), indent=1) + "\n")
            new.replace(path)

    def keep_logs(self, ray: Path) -> None:
        """Keep the logs of a head's jobs, in place of those of the head before."""
        with writing(self.jobs):
            shutil.rmtree(self.jobs, ignore_errors=True)
            self.jobs.mkdir()
            for log in ray.glob("session_latest/logs/job-driver-*.log"):
                shutil.move(log, self.jobs / log.name.removeprefix("job-driver-"))

    def forget(self) -> None:
        """Of one that has ended."""
        with writing(self.path):
            (self.path / _STATE).unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else starts or ends the head meanwhile.

        Raises:
            OutputError: somebody does.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o700)
            lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    "another `red-ray up` or `down` is at work on this machine; wait for it"
                ) from error
            yield
        finally:
            os.close(lock)


def start_head(folder: HeadFolder, *, port: int, n_cpus: int | None) -> Head:
    """Start a head, reachable from this machine alone, and wait until it answers.

    Args:
        folder: keeps what is known of it; this process is `alone` with it.
        port: of the dashboard; a free one.
        n_cpus: logical processors; None for all.

    Raises:
        OutputError: a file cannot be written.
        RunError: it did not come up; nothing of it is left.
    """
    mark = secrets.token_hex(8)
    environment = environment_of_head(mark)
    place = Path(tempfile.mkdtemp(prefix="rr-", dir=_short_place()))
    temp = place / "ray"
    process = None
    try:
        process = _spawn(_command(temp, port, n_cpus), environment, folder)
        url = f"http://{LOOPBACK}:{port}"
        head = Head(
            pid=process.pid,
            created_s=psutil.Process(process.pid).create_time(),
            mark=mark,
            address="",
            dashboard=url,
            token_file=_token_file_of(environment),
            folder=str(temp),
            log=str(folder.log),
            n_cpus=n_cpus,
        )
        folder.write(head)  # so that it is found should this process end before it answers
        address = _wait_until_up(process, temp, url, _headers_of(environment), folder.log)
        head = replace(head, address=address)
        folder.write(head)
    except BaseException:
        if process is not None:
            end_processes(process.pid, mark)
            process.wait()
        shutil.rmtree(place, ignore_errors=True)
        folder.forget()
        raise
    process.returncode = 0  # else Python warns that it runs on, as it shall
    return head


def end_head(folder: HeadFolder, head: Head) -> int:
    """End a head, or what one that died has left; how many processes had to be killed.

    SIGTERM to its own process alone, which ends the others: never `ray stop`, which would end every
    Ray of this machine.

    Args:
        folder: where it is known; this process is `alone` with it.
        head: alive or not.
    """
    n_killed = end_processes(head.pid if head.is_alive else None, head.mark)
    folder.keep_logs(Path(head.folder))
    shutil.rmtree(Path(head.folder).parent, ignore_errors=True)
    folder.forget()
    return n_killed


def end_processes(pid: int | None, mark: str) -> int:
    """SIGTERM to one process and SIGKILL to what it leaves; how many of those there were.

    Args:
        pid: of the parent of all; None where it is gone.
        mark: in the environment of all.
    """
    if pid is not None:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(pid)
            parent.terminate()
            _wait(lambda: not _runs(parent), END_S)
    # Ray's own watchers end what outlives its parent, within a second or two.
    _wait(lambda: not marked(mark), END_S / 10)
    left = marked(mark)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait(lambda: not marked(mark), END_S / 10)
    return len(left)


def marked(mark: str) -> list[psutil.Process]:
    """What runs and has the mark in its environment; processes of others cannot be looked into."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(HEAD_MARK) == mark and _runs(process):
                found.append(process)
    return found


def is_free(port: int) -> bool:
    """Whether nothing listens at a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nothing listens at now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _command(temp: Path, port: int, n_cpus: int | None) -> list[str]:
    """Ports that nobody need know are Ray's choice, so that several heads have room."""
    options: dict[str, object] = {
        "port": 0,
        "temp-dir": temp,
        "dashboard-host": LOOPBACK,
        "dashboard-port": port,
        "dashboard-agent-listen-port": 0,
        "dashboard-agent-grpc-port": 0,
        "runtime-env-agent-port": 0,
        "metrics-export-port": 0,
        "ray-client-server-port": free_port(),  # of a server that has no switch
        "min-worker-port": 0,
        "max-worker-port": 0,
    }
    if n_cpus is not None:
        options["num-cpus"] = n_cpus
    program = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    parts = [f"--{name}={value}" for name, value in options.items()]
    return [*program, "--disable-usage-stats", "--include-dashboard=true", *parts]


def _spawn(
    command: list[str], environment: dict[str, str], folder: HeadFolder
) -> subprocess.Popen[bytes]:
    with writing(folder.log):
        log = os.open(folder.log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    try:
        return subprocess.Popen(
            command,
            env=environment,
            cwd=folder.path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # neither Ctrl-C nor the terminal's end is meant for it
        )
    finally:
        os.close(log)


def _token_file_of(environment: dict[str, str]) -> str:
    return "" if "RAY_AUTH_TOKEN" in environment else environment["RAY_AUTH_TOKEN_PATH"]


def _short_place() -> str:
    wanted = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return wanted if len(wanted) <= SHORT else "/tmp"


def _headers_of(environment: dict[str, str]) -> dict[str, str]:
    path = _token_file_of(environment)
    try:
        token = Path(path).read_text("utf-8").strip() if path else environment["RAY_AUTH_TOKEN"]
    except OSError as error:
        raise OutputError(f"cannot read Ray's token {path!r}: {error.strerror}") from error
    return {"Authorization": f"Bearer {token}"}


def _wait_until_up(
    process: subprocess.Popen[bytes], temp: Path, url: str, headers: dict[str, str], log: Path
) -> str:
    """The address of a head that answers; jobs can be sent then."""
    address = temp / "ray_current_cluster"

    def is_up() -> bool:
        if process.poll() is not None:
            raise RunError(f"Ray's head did not start: {_last_words(log)} (all of it: {log})")
        return address.exists() and _answers(url, headers)

    if not _wait(is_up, START_S):
        raise RunError(
            f"Ray's head did not answer within {START_S:.0f} s; is the machine busy? see {log}"
        )
    return address.read_text("utf-8").strip()


def _answers(url: str, headers: dict[str, str]) -> bool:
    with suppress(httpx.HTTPError):
        answer = httpx.get(f"{url}/api/jobs/", headers=headers, timeout=5, trust_env=False)
        return answer.status_code == 200
    return False


def _last_words(log: Path) -> str:
    try:
        return last_line(log.read_text("utf-8", errors="replace"), "it says nothing")
    except OSError as error:
        return str(error.strerror)


def _wait(holds: Callable[[], bool], limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
