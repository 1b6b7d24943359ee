"""Several nodes of a Ray cluster on this machine, each a `ray start` that can be lost at once."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.killing import (
    Moment,
    Place,
    Told,
    answers,
    outliving,
    server_at,
    to_the_end,
    told_of,
    wait_for,
)
from tests.ray.servers import free_port
from tests.servers import ServerProcess

HEAD = "127.0.0.100"
"""Every node has an address of its own, all of them on loopback."""

ALIVE = """
import os
from ray._raylet import GcsClient
found = GcsClient(os.environ["RAY_ADDRESS"]).get_all_node_info().values()
print(*(node.node_manager_address for node in found if node.state == 0))
"""

START_S = 120.0
POLL_S = 0.1

NODE = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
    # A lost node is noticed in a second or two and not in fifteen.
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass
class Node:
    """One node: all the processes that a `ray start --block` began."""

    name: str
    process: subprocess.Popen[bytes]

    def processes(self) -> list[psutil.Process]:
        """It and whatever it started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            one = psutil.Process(self.process.pid)
            return [one, *one.children(recursive=True)]
        return []

    def titles(self) -> list[str]:
        """The command lines of its processes."""
        found = []
        for one in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(" ".join(one.cmdline()))
        return found

    def lose(self) -> list[psutil.Process]:
        """End all of it at once, as a power cut does; what there was."""
        gone = self.processes()
        for one in gone:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGSTOP)  # else one that is left would tell of the others
        for one in gone:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait(30)
        return gone


@dataclass
class Nodes:
    """A head without logical processors and workers with some; `environment` joins it.

    Attributes:
        folder: Ray's files.
        environment: what a command needs to join, beside its own.
    """

    folder: Path
    environment: dict[str, str]
    workers: list[Node] = field(default_factory=list)
    head: Node | None = None
    lost: list[psutil.Process] = field(default_factory=list)
    n_started: int = 0

    def start_head(self, *options: str) -> Node:
        """Start the head, and know how to join it."""
        port = free_port()
        ports = (f"--port={port}", f"--ray-client-server-port={free_port()}")
        arguments = ["--head", *ports, "--num-cpus=0", "--include-dashboard=false", *options]
        self.environment["RAY_ADDRESS"] = f"{HEAD}:{port}"
        self.head = self._start("head", HEAD, *arguments)
        self._wait_for(HEAD, self.head)
        return self.head

    def add_worker(self, n_cpus: int = 2) -> Node:
        """Start another node; it is there when the head knows it."""
        self.n_started += 1
        arguments = [f"--address={self.environment['RAY_ADDRESS']}", f"--num-cpus={n_cpus}"]
        name, address = f"worker-{self.n_started}", f"127.0.0.{100 + self.n_started}"
        node = self._start(name, address, *arguments)
        self.workers.append(node)
        self._wait_for(address, node)
        return node

    def lose(self, node: Node) -> None:
        """Lose a worker."""
        self.workers.remove(node)
        self.lost += node.lose()

    def worker_with(self, title: str) -> Node:
        """The worker that runs a process with this title; it may have yet to get it."""
        end = time.monotonic() + START_S
        while True:
            for node in self.workers:
                if any(one.startswith(title) for one in node.titles()):
                    return node
            assert time.monotonic() < end, f"no worker runs {title!r}"
            time.sleep(POLL_S)

    def lose_all(self) -> None:
        """Lose the head and every worker at once."""
        for node in (*self.workers, *([self.head] if self.head else [])):
            self.lost += node.lose()
        self.workers, self.head = [], None

    def alive(self) -> list[str]:
        """The addresses of the nodes that the head knows; none where it does not answer."""
        command = [sys.executable, "-c", ALIVE]
        found = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return found.stdout.split()

    def _wait_for(self, address: str, node: Node) -> None:
        end = time.monotonic() + START_S
        while address not in self.alive():
            assert node.process.poll() is None, self.log(node.name)
            assert time.monotonic() < end, self.log(node.name)
            time.sleep(POLL_S)

    def log(self, name: str) -> str:
        """What a node's `ray start` said."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def _start(self, name: str, address: str, *arguments: str) -> Node:
        program = Path(sys.executable).with_name("ray")
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [
                    *(str(program), "start", "--block", f"--node-ip-address={address}"),
                    f"--dashboard-agent-listen-port={free_port()}",  # else one for all of a machine
                    *arguments,
                ],
                env={**self.environment, **NODE},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Node(name, process)


@contextmanager
def nodes(folder: Path, environment: Mapping[str, str], *, n_workers: int) -> Iterator[Nodes]:
    """A head and so many workers, with a token of their own.

    Args:
        folder: Ray's files; a short path, since its sockets are in it.
        environment: of all nodes.
        n_workers: beside the head.
    """
    token = folder / "token"
    token.write_text(secrets.token_hex(32), "ascii")
    token.chmod(0o600)
    joined = dict(environment) | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    made = Nodes(folder, joined)
    try:
        made.start_head()
        for _ in range(n_workers):
            made.add_worker()
        yield made
    finally:
        made.lose_all()
        outliving(made.lost)


def train_and_lose(
    place: Place, nodes: Nodes, run: Path, port: int, *moments: Moment, victim: str = "RouterActor"
) -> Told:
    """Train on the nodes; at each moment the worker with an actor is lost, and another one comes.

    Args:
        place: of the inputs; its commands join the nodes.
        nodes: a head and workers.
        run: the run's folder.
        port: of the judge's server.
        moments: when a worker is lost.
        victim: the actor's class.
    """
    began_s = time.monotonic()
    with ServerProcess(run.with_suffix(".journal"), *server_at(port)) as server:
        command = place.train(run, server.base_url)
        standing: dict[str, tuple[str, str | None]] = {}
        for moment in moments:
            wait_for(moment, command, server, run)
            standing |= answers(run)
            nodes.lose(nodes.worker_with(f"ray::{victim}"))
            nodes.add_worker()
        codes, command = to_the_end(command, place, run)
        journal = [line["text"] for line in server.served()]
    seconds = time.monotonic() - began_s
    return told_of(command, run, codes, standing, journal, nodes.lost, seconds)


def lose_the_head(place: Place, nodes: Nodes, run: Path, port: int, moment: Moment) -> Told:
    """Train on the nodes; all of them and the command are lost, and others go on with the run."""
    began_s = time.monotonic()
    with ServerProcess(run.with_suffix(".journal"), *server_at(port)) as server:
        command = place.train(run, server.base_url)
        wait_for(moment, command, server, run)
        workers = [*command.kill("everything"), *nodes.lost]
        nodes.lose_all()
        first = command.wait()
        standing = answers(run)
        nodes.start_head()
        for _ in range(2):
            nodes.add_worker()
        codes, command = to_the_end(place.resume(run), place, run)
        journal = [line["text"] for line in server.served()]
    seconds = time.monotonic() - began_s
    return told_of(command, run, (first, *codes), standing, journal, workers, seconds)
