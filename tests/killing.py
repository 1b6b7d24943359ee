"""Runs `red-ray` as the process that it is to its users, and kills parts of it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from red_ray.run_folder import RunFolder
from tests.ray.runs import sample
from tests.servers import ServerProcess, hash_of

SETTINGS = {
    "expert.per_actor": 1,
    "router.gate": "false",
    "partition.subset_size": 6,
    "loop.max_iterations": 3,
    "loop.samples_per_iteration": 24,
    "loop.recalibrate_every": 2,
    "loop.uncertainty_threshold": 0,
    "judge.concurrency": 8,
    "judge.gold_share": 0.125,
}
PER_ROUND = 27
"""Questions, 3 planted ones among them."""

TITLES = {
    "coordinator": "ray::CoordinatorActor",
    "pool": "ray::ValidatorPoolActor",
    "expert": "ray::ExpertActor",
    "router": "ray::RouterActor",
    "encoder": "ray::EncoderActor",
}
SURVIVED = ("pool", "expert", "encoder", "router", "coordinator")
"""Whose death the run does not notice."""

WHOLE = ("driver", "everything")
"""Whose death ends the command at once; a driver's actors live on for some seconds."""

LIMIT_S = 180.0
POLL_S = 0.003


class Command:
    """A `red-ray` command that runs; its lines are read as they come."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        program = Path(sys.executable).with_name("red-ray")
        self.lines: list[str] = []
        self.stdout = ""
        self._process = subprocess.Popen(
            [str(program), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=read, daemon=True) for read in (self._read, self._listen)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def stderr(self) -> str:
        return "\n".join(self.lines)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """The exit code."""
        code = self._process.wait(limit_s)
        for reader in self._readers:
            reader.join(limit_s)
        return code

    def workers(self) -> list[psutil.Process]:
        """All processes that it started."""
        with _gone_is_fine():
            return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def titles(self) -> list[str]:
        """The command lines of the processes that it started."""
        return [_title(one) for one in self.workers()]

    def kill(self, target: str) -> list[psutil.Process]:
        """SIGKILL the driver, one actor, or all at once; what else was running then."""
        workers = self.workers()
        if target in WHOLE:
            self._process.kill()
            for one in workers if target == "everything" else ():
                with _gone_is_fine():
                    one.kill()
            return workers
        victim = next(one for one in workers if _title(one).startswith(TITLES[target]))
        os.kill(victim.pid, signal.SIGKILL)
        return workers

    def has(self, target: str) -> bool:
        """Whether the actor `target` can be told by its title yet."""
        return target in WHOLE or any(title.startswith(TITLES[target]) for title in self.titles())

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            self.stdout = lines.read()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self.lines.extend(line.rstrip("\n") for line in lines)


@dataclass(frozen=True)
class Place:
    """Inputs, a home, and Ray's folder: all that commands share.

    `marker` is a word that every text of the inputs holds.
    """

    folder: Path
    ray: Path
    marker: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)

    def write_inputs(self) -> None:
        rows = sample()
        for name, part in (("train", rows.train), ("test", rows.test)):
            pairs = zip(part.texts, part.labels, strict=True)
            labelled = [(self._marked(text), label) for text, label in pairs]
            _write_rows(self.folder / f"{name}.csv", labelled, "text", "label")
        pool = [(self._marked(text),) for text in rows.pool]
        _write_rows(self.folder / "pool.csv", pool, "text")

    def train(self, run: Path, address: str, *options: str, **settings: object) -> Command:
        """Start a training; `settings` have two underscores for the dot of a key."""
        return self.command(*self.training(run, address, "--json", *options, **settings))

    def training(self, run: Path, address: str, *options: str, **settings: object) -> list[str]:
        """The arguments of a training, see `train`."""
        chosen = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
        parts = [f"{key}={value}" for key, value in chosen.items()]
        inputs = [(f"--{name}", f"{self.folder / name}.csv") for name in ("train", "pool", "test")]
        arguments = ["train", *(part for pair in inputs for part in pair)]
        arguments += ["--judge", f"openai:m@{address}", "--out", str(run), *options]
        return [*arguments, *(part for one in parts for part in ("--set", one))]

    def resume(self, run: Path) -> Command:
        return self.command("resume", str(run), "--json")

    def command(self, *arguments: str) -> Command:
        self.commands.append(Command(list(arguments), self.environment))
        return self.commands[-1]

    def with_cold_store(self, store: Path) -> Place:
        """The same with nothing encoded yet."""
        return replace(self, environment=self.environment | {"RED_RAY_CACHE": str(store)})

    def _marked(self, text: str) -> str:
        return f"{text} {self.marker}".strip()


@contextmanager
def place(folder: Path, *, marker: str = "", **variables: str) -> Iterator[Place]:
    """A place of its own; Ray's folder is short, since its sockets are in it."""
    ray = Path(tempfile.mkdtemp(prefix="rr-", dir="/tmp"))
    ours = ("RAY_", "RED_RAY_", "OPENAI_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    environment |= {"HOME": str(folder), "RED_RAY_CACHE": str(folder / "store")}
    environment |= {"RAY_TMPDIR": str(ray), **variables}
    made = Place(folder, ray, marker, environment)
    made.write_inputs()
    try:
        yield made
    finally:
        for command in made.commands:
            if command.is_running:  # a test failed before its end
                outliving(command.kill("everything"))
                command.wait()
        shutil.rmtree(ray, ignore_errors=True)


Moment = Callable[[Command, Any, Path], bool]
"""Of a command, its server and its run's folder: whether it has come."""


def said(words: str) -> Moment:
    """Once the driver has told a step."""
    return lambda command, *_: any(words in line for line in command.lines)


def served(n_requests: int) -> Moment:
    """Once the server has so many requests."""
    return lambda _, server, __: len(server.served()) >= n_requests


def answered(n_answers: int) -> Moment:
    """Once so many answers are in the ledger: with a round's last one its refit begins."""
    return lambda _, __, run: len(answers(run)) >= n_answers


def asking_after(n_requests: int) -> Moment:
    """Once the command has begun to ask and the server has so many requests, old ones included."""
    begun, enough = said("Calibrating"), served(n_requests)
    return lambda *seen: begun(*seen) and enough(*seen)


def started(target: str) -> Moment:
    """Once the actor is there."""
    return lambda command, *_: command.has(target)


def appeared(*names: str) -> Moment:
    """Once one of these files of the run is there."""
    return lambda _, __, run: any((run / name).exists() for name in names)


def wait_for(moment: Moment, command: Command, server: Any, run: Path) -> None:
    """Watch until the moment comes; the command must not end before."""
    end = time.monotonic() + LIMIT_S
    while not moment(command, server, run):
        assert command.is_running, command.stderr
        assert time.monotonic() < end, command.stderr
        time.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class Point:
    """Who is killed, and when."""

    target: str
    name: str
    moment: Moment
    is_cold: bool = False

    def __str__(self) -> str:
        return f"{self.target}: {self.name}"


@dataclass(frozen=True, slots=True)
class Ended:
    """What a finished run came to."""

    bundle: str
    answers: dict[str, tuple[str, str | None]]
    history: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a kill.

    `in_flight`: questions whose request left before the kill and has no verdict of its own;
    `doubled`: requests that the server got for a text beyond the first. `workers`: the processes
    that ran at the kill.
    """

    codes: tuple[int, ...]
    standing: dict[str, tuple[str, str | None]]
    ended: Ended
    n_served: int
    doubled: Counter[str]
    in_flight: Counter[str]
    workers: list[psutil.Process]
    seconds: float


def run_undisturbed(place: Place, run: Path, port: int) -> Ended:
    """The run that all others must come to."""
    with ServerProcess(run.with_suffix(".journal"), *server_at(port)) as server:
        command = place.train(run, server.base_url)
        assert command.wait() == 0, command.stderr
    return ended(command, run)


def run_and_kill(point: Point, place: Place, run: Path, port: int) -> Told:
    """Train, kill at the point, go on until the run is finished."""
    began_s = time.monotonic()
    if point.is_cold:
        place = place.with_cold_store(run.with_suffix(".store"))
    with ServerProcess(run.with_suffix(".journal"), *server_at(port)) as server:
        command = place.train(run, server.base_url)
        workers = kill_at(point.moment, point.target, command, server, run)
        standing = answers(run)
        codes, command = to_the_end(command, place, run)
        journal = [line["text"] for line in server.served()]
    seconds = time.monotonic() - began_s
    return told_of(command, run, codes, standing, journal, workers, seconds)


def to_the_end(command: Command, place: Place, run: Path) -> tuple[tuple[int, ...], Command]:
    """The exit codes of a command and of those that went on with it, and the last of them."""
    codes = [command.wait()]
    while codes[-1] != 0 and len(codes) < 3:
        command = place.resume(run)
        codes.append(command.wait())
    assert codes[-1] == 0, command.stderr
    return tuple(codes), command


def told_of(
    command: Command,
    run: Path,
    codes: tuple[int, ...],
    standing: dict[str, tuple[str, str | None]],
    journal: list[str],
    workers: list[psutil.Process],
    seconds: float,
) -> Told:
    """What came of a kill; `journal` are the texts that the server was asked about."""
    return Told(
        codes=codes,
        standing=standing,
        ended=ended(command, run),
        n_served=len(journal),
        doubled=Counter(journal) - Counter(set(journal)),
        in_flight=without_result(run),
        workers=workers,
        seconds=seconds,
    )


def kill_at(
    moment: Moment, target: str, command: Command, server: Any, run: Path
) -> list[psutil.Process]:
    """Wait for the moment and kill; what else was running then."""
    wait_for(moment, command, server, run)
    wait_for(started(target), command, server, run)
    workers = command.kill(target)
    if target in WHOLE:
        assert command.wait() == -signal.SIGKILL
    return workers


def check(told: Told, point: Point, reference: Ended) -> None:
    """Nothing is lost, nothing else is bought, and the run comes to the same."""
    cut_short = -signal.SIGKILL if point.target in WHOLE else 1
    assert told.codes == ((0,) if point.target in SURVIVED else (cut_short, 0))
    check_nothing_is_lost(told, reference)


def check_nothing_is_lost(told: Told, reference: Ended) -> None:
    """As `check`, however often it was begun."""
    assert told.ended == reference
    assert told.standing.items() <= told.ended.answers.items()
    assert told.n_served == len(reference.answers) + told.doubled.total()
    assert told.doubled <= told.in_flight


def ended(command: Command, run: Path) -> Ended:
    steps = [
        {name: getattr(one, name) for name in one.__slots__ if not name.endswith("_s")}
        for one in RunFolder(run).iterations()
    ]
    return Ended(json.loads(command.stdout)["bundle"], answers(run), steps)


def answers(run: Path) -> dict[str, tuple[str, str | None]]:
    """Outcome and label by the question's key, of those that are answered."""
    rows = query(run, "SELECT key, outcome, label FROM verdicts")
    return {key: (outcome, label) for key, outcome, label in rows if outcome in ("label", "none")}


def without_result(run: Path) -> Counter[str]:
    """Requests of which nobody knows what came, by the hash of their text."""
    rows = query(
        run,
        "SELECT text FROM requests JOIN verdicts USING (key) WHERE requests.result IS NULL",
    )
    return Counter(hash_of(text) for (text,) in rows)


def query(run: Path, statement: str) -> list[tuple[Any, ...]]:
    """What the run's ledger answers; nothing where there is none yet."""
    ledger = run / "ledger.sqlite"
    if not ledger.exists():
        return []
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=10)) as connection:
        try:
            return connection.execute(statement).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise


def outliving(workers: list[psutil.Process], limit_s: float = 120.0) -> list[str]:
    """The titles of those that do not end by themselves; they are ended here.

    Ray's agents of a node look for a killed head for a minute.
    """
    end = time.monotonic() + limit_s
    while (left := [one for one in workers if lives(one)]) and time.monotonic() < end:
        time.sleep(0.1)
    titles = [_title(one).strip() for one in left]
    for one in left:
        with _gone_is_fine():
            one.kill()
    return titles


def server_at(port: int) -> tuple[str, ...]:
    """Options of a judge's server that takes a tenth of a second for an answer."""
    return "--port", str(port), "--delay-ms", "100"


def lives(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended and that nobody asked about does not."""
    # Not `psutil.wait_procs`: it trips over a process whose number another one has by now.
    with _gone_is_fine():
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _title(process: psutil.Process) -> str:
    with _gone_is_fine():
        return " ".join(process.cmdline())
    return ""


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except psutil.NoSuchProcess:
        return


def _write_rows(path: Path, rows: list[Any], *header: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
