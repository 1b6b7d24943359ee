"""`red-ray serve` as the process that it is to its users, small runs for it, and clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import aiohttp
import httpx
import numpy as np
import psutil
import uvicorn

from red_ray.bundle import save_bundle
from red_ray.calibration import with_goal
from red_ray.config import Goal
from red_ray.data.demo import load_demo
from red_ray.encoding import SentenceEncoder
from red_ray.model import RedModel
from red_ray.run_folder import RunFolder
from red_ray.training import LocalFleet, TrainingJob
from red_ray.types import Decision
from serve.local import local_app
from serve.settings import ServeSettings
from tests.ray.runs import N_LABELS
from tests.ray.servers import free_port
from tests.unit.training.fakes import run_config, train

START_S = 240.0
"""A start takes fifteen seconds on two quiet processors."""
END_S = 90.0
POLL_S = 0.05

FLOAT32 = {"dtype": "float32"}
WITHIN = 1e-5
"""Confidences in float32 differ by less, whatever the batch they were in."""

REPLICA, DESK = "ray::ServeReplica:red_ray:Classifier", "ray::ServeReplica:red_ray:Desk"
POOL = "ray::ValidatorPoolActor"


def small_model(labels_from: int = 0, **sections: object) -> RedModel:
    """A model of the demo corpus's `N_LABELS` labels from that one on, 6 rows each, which sends
    some texts in ten to a judge.

    Args:
        labels_from: position of the first label.
        sections: of the configuration; the encoder works in float32 unless they say otherwise.
    """
    rows = load_demo(0).train
    names = sorted(set(rows.labels))[labels_from : labels_from + N_LABELS]
    pairs = [(t, y) for t, y in zip(rows.texts, rows.labels, strict=True) if y in names]
    pairs = [pair for name in names for pair in [p for p in pairs if p[1] == name][:6]]
    texts, labels = zip(*pairs, strict=True)
    job = TrainingJob(texts, labels, (), {}, run_config(**{"encoder": FLOAT32, **sections}))
    encoder = SentenceEncoder.load(job.config.encoder, n_threads=2)
    model = asyncio.run(train(job, fleet=LocalFleet(encoder, n_threads=2))).model
    model = with_goal(model, Goal(escalate_at_most=0.5), 0.8, None, lambda: encoder)
    return replace(model, encoder=encoder)


def make_run(path: Path, model: RedModel) -> str:
    """A finished run with this model, or the model in place of another; the bundle's id."""
    run = RunFolder(path) if path.exists() else RunFolder.create(path, model.config)
    return save_bundle(model, run.bundle, {})


def point_to(link: Path, run: Path) -> Path:
    """Let a link lead to the run, in one step."""
    new = link.with_name(f".{link.name}.new")
    new.symlink_to(run)
    new.replace(link)
    return link


def demo_texts(n_texts: int) -> list[str]:
    """Test texts of the demo corpus, those that fit no label among them."""
    demo = load_demo(0)
    texts = [*demo.test.texts, *demo.oos]
    order = np.random.default_rng(0).permutation(len(texts))
    return [texts[at] for at in order[:n_texts]]


@dataclass(frozen=True)
class Place:
    """A home and Ray's folder, which nothing else has: what runs there is told by it."""

    folder: Path
    ray: Path
    environment: dict[str, str]

    def processes(self) -> list[psutil.Process]:
        """All that runs with this place in its environment, whoever its parent is."""
        mark = f"RAY_TMPDIR={self.ray}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if mark in path.read_bytes().split(b"\0"):
                    found.append(psutil.Process(int(path.parent.name)))
        return found


@contextmanager
def place(folder: Path, **variables: str) -> Iterator[Place]:
    """A place of its own; what still runs there at the end is killed. Ray's sockets need a short
    path."""
    ray = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
    ours = ("RAY_", "RED_RAY_", "OPENAI_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    environment |= {"HOME": str(folder), "RED_RAY_CACHE": str(folder / "store")}
    # For HAProxy's folder too, so that its end can be looked for.
    environment |= {"RAY_TMPDIR": str(ray), "TMPDIR": str(ray), **variables}
    made = Place(folder, ray, environment)
    try:
        yield made
    finally:
        for process in made.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(ray, ignore_errors=True)


class Served:
    """`red-ray serve` inside `with`, ready to answer at `url`.

    Args:
        place: where it runs.
        run: a run's folder, a link to one, or its address.
        options: of the command.
        variables: of its environment, beside the place's.
    """

    def __init__(self, place: Place, run: Path | str, *options: str, **variables: str) -> None:
        self.place = place
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.facts: dict[str, Any] = {}
        program = str(Path(sys.executable).with_name("red-ray"))
        self._command = [program, "serve", str(run), "--port", str(self.port), "--json", *options]
        self._environment = place.environment | variables
        self._out = place.folder / f"serve-{self.port}.out"
        self._err = place.folder / f"serve-{self.port}.err"

    def __enter__(self) -> Self:
        self.begin()
        end = time.monotonic() + START_S
        while not self._is_up():
            if self.process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise AssertionError(f"the endpoint did not start: {self.stderr}")
            time.sleep(POLL_S)
        self.facts = json.loads(self.stdout)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_S)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(END_S)

    def begin(self) -> None:
        """Start the command; a session of its own, as a terminal gives it one."""
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def press_ctrl_c(self) -> None:
        """What a terminal does: all of the session gets it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self, limit_s: float = END_S) -> int:
        """The exit code."""
        return self.process.wait(limit_s)

    @property
    def stdout(self) -> str:
        return self._out.read_text("utf-8")

    @property
    def stderr(self) -> str:
        """What it said, but for how long it starts on a busy machine."""
        lines = self._err.read_text("utf-8").splitlines(keepends=True)
        return "".join(one for one in lines if not one.startswith("starting the endpoint, for"))

    def processes(self, title: str) -> list[psutil.Process]:
        """Those whose title begins so, the oldest first."""
        found = [one for one in self.place.processes() if _title(one).startswith(title)]
        return sorted(found, key=psutil.Process.create_time)

    def kill(self, title: str) -> psutil.Process:
        """SIGKILL the oldest process with this title."""
        victim = self.processes(title)[0]
        victim.kill()
        return victim

    def classify(self, texts: Sequence[str], **options: Any) -> dict[str, Any]:
        """One call, which must be answered."""
        return self.call("POST", "/v1/classify", json={"texts": list(texts), **options})

    def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """One call, which must be answered."""
        answer = httpx.request(method, self.url + path, timeout=60, **options)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        found: dict[str, Any] = answer.json()
        return found

    def _is_up(self) -> bool:
        return self.stdout.endswith("}\n")


@contextmanager
def on_uvicorn(settings: ServeSettings) -> Iterator[str]:
    """The endpoint without Ray, in a thread; yields its URL."""
    place = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(local_app(settings), log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([place],), daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive())
    assert server.started, "the endpoint did not start"
    try:
        yield f"http://127.0.0.1:{place.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(END_S)
        place.close()


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def listeners(place: Place) -> set[tuple[int, str, int]]:
    """Process, address and port where something of the place listens."""
    found = set()
    for process in place.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in process.net_connections("tcp"):
                if one.status == psutil.CONN_LISTEN:
                    address = one.laddr.ip.removeprefix("::ffff:")
                    found.add((process.pid, address, one.laddr.port))
    return found


def until(holds: Callable[[], bool], limit_s: float = START_S) -> None:
    """Wait for it; not to see it in time is a failure."""
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class Answered:
    """One call: `status` is HTTP's, or the name of what went wrong on the way."""

    texts: tuple[str, ...]
    status: int | str
    body: Any
    told_to_wait: bool
    start_s: float
    seconds: float


@dataclass
class Clients:
    """So many clients inside `with`, who call one after the other and retry nothing.

    Attributes:
        bodies: of the calls, round and round, each client from another one on.
        pause_s: of a client between an answer and its next call.
        answered: what came of the calls so far.
    """

    url: str
    bodies: Sequence[Mapping[str, Any]]
    n_clients: int = 8
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    pause_s: float = 0.0
    answered: list[Answered] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(self.timeout_s + 30)
        assert not self._thread.is_alive(), "a call hangs"

    def wait_for(self, n_more: int, limit_s: float = START_S) -> None:
        """Go on when so many more calls were answered."""
        enough = len(self.answered) + n_more
        until(lambda: len(self.answered) >= enough, limit_s)

    @property
    def failed(self) -> list[Answered]:
        return [one for one in self.answered if one.status != 200]

    async def _run(self) -> None:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers=self.headers
        ) as session:
            await asyncio.gather(*(self._client(session, at) for at in range(self.n_clients)))

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        at = number * len(self.bodies) // self.n_clients
        while not self._stop.is_set():
            self.answered.append(await self._call(session, self.bodies[at % len(self.bodies)]))
            at += 1
            await asyncio.sleep(self.pause_s)

    async def _call(self, session: aiohttp.ClientSession, body: Mapping[str, Any]) -> Answered:
        start, waits, told = time.monotonic(), False, None
        status: int | str
        try:
            async with session.post(
                f"{self.url}/v1/classify",
                json=body,
                timeout=aiohttp.ClientTimeout(self.timeout_s),
            ) as response:
                raw = await response.read()
                status, waits = response.status, "Retry-After" in response.headers
            told = json.loads(raw) if status == 200 else raw.decode("utf-8", "replace")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            status, told = type(error).__name__, str(error)
        seconds = time.monotonic() - start
        return Answered(tuple(body["texts"]), status, told, waits, start, seconds)


def seen(result: Mapping[str, Any]) -> tuple[str | None, str]:
    """Label and decision of an answer's result."""
    return result["label"], result["decision"]


def check_same(
    results: Sequence[Mapping[str, Any]], decisions: Sequence[Decision], *, within: float
) -> None:
    """Label and decision are equal, and confidences within so much, alternatives included."""
    assert len(results) == len(decisions)
    for result, decision in zip(results, decisions, strict=True):
        assert seen(result) == (decision.label, decision.decision)
        assert abs(result["confidence"] - decision.confidence) <= within
        told = {one["label"]: one["confidence"] for one in result["alternatives"]}
        known = {one.label: one.confidence for one in decision.alternatives}
        assert told.keys() == known.keys()
        assert all(abs(told[label] - known[label]) <= within for label in known)


def check_consistent(answered: Sequence[Answered], models: Mapping[str, RedModel]) -> set[str]:
    """Every answer is what the bundle that it names says of the text; the bundles that were named.

    Args:
        answered: calls of one text each, all answered.
        models: by bundle.
    """
    found: dict[str, list[Answered]] = {}
    for one in answered:
        found.setdefault(one.body["bundle"], []).append(one)
    for bundle, ones in found.items():
        texts = sorted({one.texts[0] for one in ones})
        known = dict(zip(texts, models[bundle].predict(texts), strict=True))
        results = [one.body["results"][0] for one in ones]
        check_same(results, [known[one.texts[0]] for one in ones], within=WITHIN)
    return set(found)
