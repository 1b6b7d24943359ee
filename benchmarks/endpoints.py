"""The servers that are compared, each started as a process of its own and ended again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.bare import RUN
from benchmarks.cells import ROOT
from red_ray.encoding.encoder import available_processors

REPLICAS = available_processors()
START_S, END_S = 180.0, 90.0

# By default it ends a worker that is silent for 5 s, as one is that loads a model.
_UVICORN = (
    *("--log-level", "info", "--no-access-log", "--workers", str(REPLICAS)),
    *("--timeout-worker-healthcheck", "60"),
)
_UP = "Application startup complete"
# One thread for the linear algebra of each process, as Ray gives a replica with one processor.
_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_SETTINGS = ("RED_RAY_TOKENS", "RED_RAY_TOKEN", "RED_RAY_URL", "RED_RAY_SERVE", "RAY_ADDRESS")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A way to serve a run.

    Attributes:
        command: that serves a run at a port.
        environ: of it, beside this process's.
        up: what its log says `n_up` times when all its processes can answer.
    """

    command: Callable[[Path, int], tuple[str, ...]]
    environ: Callable[[Path], Mapping[str, str]]
    up: str
    n_up: int


def _uvicorn(factory: str) -> Callable[[Path, int], tuple[str, ...]]:
    command = ("uvicorn", "--factory", factory, *_UVICORN)
    return lambda _, port: (*command, "--port", str(port))


def _ours(*options: str) -> Endpoint:
    def command(run: Path, port: int) -> tuple[str, ...]:
        serve = ("red_ray.cli", "serve", str(run), "--port", str(port), "--json")
        return (*serve, "--replicas", str(REPLICAS), *options)

    return Endpoint(command, lambda _: {}, '"url"', 1)


ENDPOINTS: dict[str, Endpoint] = {
    "bare": Endpoint(
        _uvicorn("benchmarks.bare:app"), lambda run: {RUN: str(run)} | _THREADS, _UP, REPLICAS
    ),
    "bare, our app": Endpoint(
        _uvicorn("serve.local:app"),
        lambda run: {"RED_RAY_SERVE": json.dumps({"run": str(run)})} | _THREADS,
        _UP,
        REPLICAS,
    ),
    "ours": _ours(),
    "ours, plain proxy": _ours("--plain-proxy"),
    "ours, sharded": _ours("--set", "layout=sharded"),
}


@contextmanager
def running(name: str, run: Path, folder: Path) -> Iterator[str]:
    """Serve a copy of the run while the block runs; yields the URL of its classification.

    Raises:
        RuntimeError: it does not start; with the end of its log.
    """
    endpoint, port = ENDPOINTS[name], _free_port()
    own = folder / "run"
    shutil.copytree(run, own)  # its ledger is written to
    log = folder / "log"
    environ = {key: value for key, value in os.environ.items() if key not in _SETTINGS}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", *endpoint.command(own, port)],
            cwd=ROOT,
            env={**environ, **endpoint.environ(own)},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches us, and we end it
        )
    try:
        _await_up(process, endpoint, log, f"http://127.0.0.1:{port}/readyz")
        yield f"http://127.0.0.1:{port}/v1/classify"
    finally:
        _end(process)


def _await_up(process: subprocess.Popen[bytes], endpoint: Endpoint, log: Path, url: str) -> None:
    deadline_s = time.monotonic() + START_S
    while not (log.read_text().count(endpoint.up) >= endpoint.n_up and _answers(url)):
        if process.poll() is not None or time.monotonic() > deadline_s:
            end = "\n".join(log.read_text().splitlines()[-20:])
            raise RuntimeError(f"the server does not start; its log ends with\n{end}")
        time.sleep(0.5)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0).status_code == 200
    except httpx.TransportError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(END_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
