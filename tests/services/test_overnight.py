"""A night of real commands against a judge that fails: kills, faults, a budget, and quiet logs."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from red_ray.judges.prompts import NONE_OPTION
from tests.killing import (
    PER_ROUND,
    Command,
    Ended,
    Place,
    Point,
    answers,
    asking_after,
    check,
    ended,
    kill_at,
    outliving,
    place,
    query,
    run_and_kill,
    served,
    wait_for,
)
from tests.ray.servers import Live, free_port
from tests.servers import (
    FAULTS,
    OpenAIServer,
    Received,
    ServerProcess,
    Step,
    hang,
    ok,
    right_option,
    says,
    status,
)

KEY = "sk-zqx0123456789keykeykey"
MARKER = "zqxwordofauser"

POINTS = [
    Point(target, "in the middle of round 2", served(PER_ROUND + PER_ROUND // 2))
    for target in ("everything", "pool", "expert")
]

EVERY_FAULT = (*FAULTS, status(429), hang())
RESULTS = {
    "answer": "answer",
    "status 429": "http_429",
    "status 500": "http_500",
    "loading": "http_503",
    "reset": "unreachable",
    "hang": "timeout",
}
"""What the ledger calls what the server did; any other fault is an answer, and unreadable."""

ANSWERED = ("label", "none")
BUDGET = 80


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("overnight"), OPENAI_API_KEY=KEY, marker=MARKER) as made:
        yield made


@pytest.fixture(scope="module")
def port() -> int:
    """One for all: the judge's address is part of a question's key and of the bundle."""
    return free_port()


@pytest.fixture(scope="module")
def workers() -> Iterator[list[psutil.Process]]:
    """What ran when something was killed."""
    found: list[psutil.Process] = []
    yield found
    outliving(found)


@dataclass
class Pair:
    """Two trainings of one run at once."""

    first: Ended
    second_code: int
    second_stderr: str


@pytest.fixture(scope="module")
def pair(here: Place, port: int) -> Pair:
    run = here.folder / "undisturbed"
    with ServerProcess(run.with_suffix(".journal"), "--port", str(port)) as server:
        first = here.train(run, server.base_url)
        wait_for(served(1), first, server, run)
        with server.paused():  # else a quick machine is done before the second has begun
            second = here.train(run, server.base_url)
            code = second.wait()
        assert first.wait() == 0, first.stderr
    return Pair(ended(first, run), code, second.stderr)


def test_a_run_that_another_process_trains_is_refused(pair: Pair) -> None:
    assert pair.second_code == 2
    assert pair.second_stderr.startswith("red-ray: another process is training in ")
    assert "\n" not in pair.second_stderr


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_a_kill_loses_nothing_and_buys_only_what_was_in_flight_again(
    point: Point, here: Place, port: int, pair: Pair, workers: list[psutil.Process]
) -> None:
    """All kills are in tests/soak. The run beside which another was started comes out the same."""
    told = run_and_kill(point, here, here.folder / point.target, port)
    workers += told.workers
    check(told, point, pair.first)
    assert told.in_flight.total() <= 8
    assert bool(told.in_flight) == (point.target != "expert")


class Faulty:
    """Fails three requests in ten, with each fault in its turn; remembers what it answered."""

    def __init__(self) -> None:
        self.given: dict[str, str] = {}

    def __call__(self, number: int, received: Received) -> Step:
        tens, ones = divmod(number, 10)
        if ones in (1, 4, 8):
            return EVERY_FAULT[(3 * tens + (1, 4, 8).index(ones)) % len(EVERY_FAULT)]
        self.given[received.text] = right_option(received)
        return Step(name="answer", label=self.given[received.text])


@dataclass
class Noisy:
    """A run at a judge that fails three times in ten, until its budget is used up."""

    code: int
    stderr: str
    run: Path
    served: Counter[str]
    given: dict[str, str]


@pytest.fixture(scope="module")
def noisy(here: Place) -> Noisy:
    run, script = here.folder / "noisy", Faulty()
    with Live(free_port(), script) as server:
        limits = {"judge__timeout_s": 3, "judge__budget_calls": BUDGET}
        command = here.train(run, server.base_url, **limits, loop__max_iterations=9)
        code = command.wait()
    return Noisy(code, command.stderr, run, server.served, script.given)


def test_a_run_whose_judge_fails_three_times_in_ten_ends_well(noisy: Noisy) -> None:
    assert noisy.code == 0, noisy.stderr
    assert set(noisy.served) == {step.served_as for step in EVERY_FAULT} | {"answer"}


def test_every_fault_is_in_the_ledger_under_its_name(noisy: Noisy) -> None:
    rows = query(noisy.run, "SELECT result, count(*) FROM requests GROUP BY result")
    counted: Counter[str] = Counter()
    for result, n_requests in rows:
        counted["answer" if result in ("label", "none") else result] += n_requests
    expected: Counter[str] = Counter()
    for kind, n_requests in noisy.served.items():
        expected[RESULTS.get(kind, "unreadable")] += n_requests
    assert counted == expected


def test_no_label_comes_of_what_could_not_be_read(noisy: Noisy) -> None:
    rows = query(noisy.run, "SELECT text, outcome, label FROM verdicts")
    stated = {text: label or NONE_OPTION for text, outcome, label in rows if outcome in ANSWERED}
    assert len(stated) > BUDGET // 2
    assert stated.items() <= noisy.given.items()
    assert all(label is None for _, outcome, label in rows if outcome not in ANSWERED)


def test_a_budget_is_used_up_to_the_last_request_retries_included(noisy: Noisy) -> None:
    assert noisy.served.total() == BUDGET
    assert "stopped: budget" in noisy.stderr


def test_a_budget_holds_over_restarts(
    here: Place, tmp_path: Path, workers: list[psutil.Process]
) -> None:
    run, budget = tmp_path / "run", 64
    with ServerProcess(tmp_path / "journal", "--delay-ms", "100", "--faults", "0.3") as server:
        command = here.train(run, server.base_url, judge__budget_calls=budget)
        for target, n_requests in (("driver", 8), ("driver", 36), ("pool", 56)):
            workers += kill_at(asking_after(n_requests), target, command, server, run)
            if target == "driver":
                command = here.resume(run)
        assert command.wait() == 0, command.stderr
        n_served = len(server.served())
    ((n_left, n_unknown),) = query(run, "SELECT count(*), count(*) - count(result) FROM requests")
    assert "stopped: budget" in command.stderr
    assert n_left == budget
    assert n_left - n_unknown <= n_served <= budget


def quoting(number: int, received: Received) -> Step:
    """Says the text and the key back wherever an answer or an error has room for it."""
    words = f"{received.text} {received.authorization}"
    wrong = (says(words), status(500, message=words), status(429, message=words), ok(words))
    return ok() if number % 3 else wrong[number // 3 % len(wrong)]


def refusing(_: int, received: Received) -> Step:
    return status(401, message=f"{received.text} {received.authorization}")


@dataclass
class Quoted:
    """Runs whose judge says all that it was told back: one ends well, one is refused."""

    commands: list[Command]
    codes: list[int]
    cmdlines: set[str]
    ray: Path
    received: list[Received]


@pytest.fixture(scope="module")
def quoted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quoted]:
    folder = tmp_path_factory.mktemp("quoted")
    with place(folder, OPENAI_API_KEY=KEY, marker=MARKER) as own:
        result = Quoted([], [], set(), own.ray, [])
        for script in (quoting, refusing):
            with Live(free_port(), script) as server:
                run = folder / script.__name__
                command = own.train(run, server.base_url, judge__timeout_s=10)
                watch(command, server, result)
                result.codes.append(command.wait())
                result.commands.append(command)
                result.received += server.received
        yield result


def watch(command: Command, server: OpenAIServer, result: Quoted) -> None:
    """Look at all command lines while the judge is asked; then an expert dies with its rows."""
    while command.is_running and server.n_requests < PER_ROUND + 4:
        if server.n_requests:
            result.cmdlines.update(command.titles())
        time.sleep(0.01)
    if command.is_running:
        command.kill("expert")


def test_the_judge_was_told_key_and_texts(quoted: Quoted) -> None:
    """Else the tests below would find nothing because there was nothing."""
    assert quoted.codes == [0, 1]
    assert all(one.authorization == f"Bearer {KEY}" for one in quoted.received)
    assert all(MARKER in one.text for one in quoted.received)


def test_no_log_holds_a_key_or_a_word_of_a_user(quoted: Quoted) -> None:
    files = [path for path in quoted.ray.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len([path for path in files if re.match("worker-.*err", path.name)]) >= 10
    telling = [
        str(path)
        for path in files
        if any(word.encode() in path.read_bytes() for word in (KEY, MARKER))
    ]
    assert not telling


def test_no_command_line_holds_a_key(quoted: Quoted) -> None:
    assert any("ray::ValidatorPoolActor" in line for line in quoted.cmdlines)
    assert not [line for line in quoted.cmdlines if KEY in line or MARKER in line]


def test_what_a_command_prints_holds_no_key_and_no_text(quoted: Quoted) -> None:
    for command in quoted.commands:
        assert command.lines
        assert not [word for word in (KEY, MARKER) if word in command.stderr + command.stdout]


def test_a_run_folder_holds_no_key(quoted: Quoted, here: Place, pair: Pair) -> None:
    files = [path for path in (here.folder / "undisturbed").rglob("*") if path.is_file()]
    assert any(MARKER.encode() in path.read_bytes() for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert answers(here.folder / "undisturbed") == pair.first.answers
