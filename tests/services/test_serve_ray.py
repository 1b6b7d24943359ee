"""The endpoint on Ray Serve behind HAProxy: its answers, deaths, new bundles, and its end."""

from __future__ import annotations

import csv
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from red_ray.actors.environment import CALLS_PER_REPLICA, QUEUE_S
from red_ray.model import RedModel
from tests.ray.servers import Live, free_port
from tests.servers import OpenAIServer, by_text, hang, lie, steps
from tests.services.http_fuzz import odd_requests, send_broken, send_odd
from tests.services.serving import (
    DESK,
    POOL,
    REPLICA,
    WITHIN,
    Clients,
    Place,
    Served,
    check_consistent,
    check_same,
    demo_texts,
    listeners,
    make_run,
    place,
    point_to,
    small_model,
    until,
)

JUDGE_WAIT_S = 1.0


@dataclass
class Judge:
    """A judge that can be told what to do, or to go away."""

    port: int
    live: Live

    @property
    def server(self) -> OpenAIServer:
        server = self.live.server
        assert isinstance(server, OpenAIServer)
        return server

    def leave(self) -> None:
        self.live.__exit__()

    def return_(self) -> None:
        self.live = Live(self.port, by_text())
        self.live.__enter__()


@pytest.fixture(scope="module")
def models() -> tuple[RedModel, RedModel]:
    """Two that have no label in common."""
    judge = {"timeout_s": 2.0, "max_attempts": 1, "gold_share": 0.0}
    return small_model(0, judge=judge), small_model(12, judge=judge)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return demo_texts(300)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("serve"), OPENAI_API_KEY="sk-of-a-test") as made:
        yield made


@pytest.fixture(scope="module")
def bundles(here: Place, models: tuple[RedModel, RedModel]) -> dict[str, RedModel]:
    """The models by the ids of their bundles, in the runs `0` and `1`."""
    return {make_run(here.folder / str(at), model): model for at, model in enumerate(models)}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    port = free_port()
    made = Judge(port, Live(port, by_text()))
    made.live.__enter__()
    yield made
    made.leave()


@pytest.fixture(scope="module")
def served(here: Place, bundles: dict[str, RedModel], judge: Judge) -> Iterator[Served]:
    link = point_to(here.folder / "current", here.folder / "0")
    spec = f"openai:m@{judge.server.base_url}"
    options = ("--judge", spec, "--replicas", "2", "--set", f"judge.wait_s={JUDGE_WAIT_S}")
    with Served(here, link, *options) as made:
        yield made


@pytest.fixture
def clients(served: Served, texts: list[str]) -> Iterator[Clients]:
    """Eight that ask about texts which nobody escalates."""
    bodies = [{"texts": [text], "escalate": "never"} for text in texts]
    with Clients(served.url, bodies) as made:
        made.wait_for(50)
        yield made


def both_answer(served: Served) -> None:
    """Wait until two replicas are there and both report."""
    until(lambda: len(served.processes(REPLICA)) == 2)
    until(lambda: served.call("GET", "/v1/stats")["replicas"] == 2)


def test_it_says_what_it_is(served: Served, bundles: dict[str, RedModel]) -> None:
    facts = served.facts
    assert facts["url"] == served.url
    assert facts["pid"] == served.process.pid
    assert (facts["replicas"], facts["layout"], facts["proxy"]) == (2, "packed", "haproxy")
    assert facts["bundle"] == served.call("GET", "/readyz")["bundle"] == next(iter(bundles))
    assert served.stderr == ""


def test_the_answers_are_those_of_the_model_in_process(
    served: Served, models: tuple[RedModel, RedModel], texts: list[str]
) -> None:
    decisions = models[0].predict(texts)
    together = served.classify(texts[:256], escalate="never")["results"]
    alone = [served.classify([text], escalate="never")["results"][0] for text in texts[256:]]
    check_same([*together, *alone], decisions, within=WITHIN)


def test_the_answers_are_those_of_the_command(
    served: Served, here: Place, texts: list[str]
) -> None:
    source, target = here.folder / "texts.csv", here.folder / "answers.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text",), *((text,) for text in texts[:256])])
    program = Path(sys.executable).with_name("red-ray")
    arguments = [
        "classify",
        str(here.folder / "0"),
        "--input",
        str(source),
        "--output",
        str(target),
    ]
    subprocess.run([program, *arguments], env=here.environment, check=True, capture_output=True)
    with target.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    results = served.classify(texts[:256], escalate="never")["results"]
    for row, result in zip(rows, results, strict=True):
        assert (row["label"] or None, row["decision"]) == (result["label"], result["decision"])
        assert abs(float(row["confidence"]) - result["confidence"]) <= WITHIN


def test_nothing_listens_beyond_this_machine(served: Served) -> None:
    listening = listeners(served.place)
    assert served.port in {port for _, _, port in listening}
    assert {address for _, address, _ in listening} <= {"127.0.0.1", "::1"}


def test_only_the_user_may_open_what_haproxy_keeps(served: Served) -> None:
    (folder,) = served.place.ray.glob("rr-*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (socket,) = folder.rglob("admin.sock")
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600


def test_haproxy_runs_with_our_limits(served: Served) -> None:
    """They are written into the configuration that Ray makes, whose lines may change with it."""
    (folder,) = served.place.ray.glob("rr-*")
    (config,) = folder.rglob("haproxy.cfg")
    lines = [line.split() for line in config.read_text("utf-8").splitlines()]
    replicas = [line for line in lines if line[:1] == ["server"] and "backup" not in line]
    assert len(replicas) == 2
    assert all(line[line.index("maxconn") + 1] == str(CALLS_PER_REPLICA) for line in replicas)
    assert ["timeout", "queue", f"{QUEUE_S}s"] in lines
    errors = {line[1]: line[2] for line in lines if line[:1] == ["errorfile"]}
    assert {errors[code] for code in ("502", "503", "504")} == {str(folder / "away.http")}


def test_whatever_is_sent_is_answered(served: Served, models: tuple[RedModel, RedModel]) -> None:
    statuses = send_odd(served.url, odd_requests(models[0].labels[0]))
    assert statuses[200] > 20
    assert statuses[422] > 50
    send_broken(served.url)
    assert served.call("GET", "/readyz")["status"] == "ready"


def test_what_is_too_much_is_refused_and_then_all_is_well(served: Served, texts: list[str]) -> None:
    bodies = [{"texts": texts[:64], "escalate": "never"}]
    with Clients(served.url, bodies, n_clients=64) as many:
        many.wait_for(256)
    refused = [one for one in many.answered if one.status == 503]
    assert refused
    assert {one.status for one in many.answered} == {200, 503}
    assert all(one.told_to_wait for one in refused)
    served.classify(texts[:1])


def test_a_replica_that_dies_costs_no_call(served: Served, clients: Clients) -> None:
    both_answer(served)
    victim = served.kill(REPLICA)
    both_answer(served)
    assert victim.pid not in {one.pid for one in served.processes(REPLICA)}
    clients.wait_for(50)
    assert not clients.failed


def test_the_desk_that_dies_costs_no_call_about_a_text_that_needs_none(
    served: Served, clients: Clients, texts: list[str]
) -> None:
    served.classify(texts[:5], escalate="always")
    victim = served.kill(DESK)
    until(lambda: {victim.pid} != {one.pid for one in served.processes(DESK)} != set())
    both_answer(served)
    assert not clients.failed
    sources = [one["source"] for one in judged(served, texts[5:15])]
    assert sources == ["judge"] * 10


def test_the_judges_pool_that_dies_costs_no_call_about_a_text_that_needs_none(
    served: Served, clients: Clients, texts: list[str]
) -> None:
    served.classify(texts[15:20], escalate="always")
    served.kill(POOL)
    until(lambda: served.classify(texts[20:21], escalate="always") and bool(served.processes(POOL)))
    assert not clients.failed
    assert [one["source"] for one in judged(served, texts[21:25])] == ["judge"] * 4


def test_a_judge_that_is_away_hangs_or_lies_changes_nothing_for_the_others(
    served: Served, clients: Clients, judge: Judge, texts: list[str]
) -> None:
    judge.server.script = steps(then=lie())
    lied = served.classify(texts[30:34], escalate="always")["results"]
    assert {one["decision"] for one in lied} == {"abstain"}
    judge.server.script = steps(then=hang())
    slow = served.classify(texts[34:38], escalate="always", explain=True)["results"]
    assert {one["explanation"]["judge"]["outcome"] for one in slow} <= {"pending", "timeout"}
    judge.leave()
    away = served.classify(texts[38:42], escalate="always", explain=True)["results"]
    outcomes = {one["explanation"]["judge"]["outcome"] for one in away}
    assert outcomes <= {"error", "pending", "timeout"}
    judge.return_()
    clients.wait_for(50)
    assert not clients.failed


def test_a_bundle_that_is_swapped_costs_no_call(
    served: Served, clients: Clients, bundles: dict[str, RedModel]
) -> None:
    """By the link, then in place, as `red-ray thresholds` does it."""
    here, (first, second) = served.place.folder, bundles
    point_to(here / "current", here / "1")
    until(lambda: newest(clients) == {second})
    make_run(here / "1", bundles[first])
    until(lambda: newest(clients) == {first})
    assert not clients.failed
    assert check_consistent(clients.answered, bundles) == {first, second}


def test_it_ends_quietly_and_leaves_nothing(served: Served) -> None:
    served.process.send_signal(signal.SIGTERM)
    assert served.wait() == 128 + signal.SIGTERM
    assert served.stderr == (
        "red-ray: the endpoint is down; what judge and people said is in the ledger\n"
    )
    until(lambda: not served.place.processes(), 30)
    assert not list(served.place.ray.glob("rr-*"))


def judged(served: Served, texts: Sequence[str]) -> list[dict[str, object]]:
    """The results once the judge was heard on all of them; a call waits for it but briefly."""
    found: list[dict[str, object]] = []

    def has_spoken() -> bool:
        found[:] = served.classify(texts, escalate="always")["results"]
        return all(one["source"] == "judge" for one in found)

    until(has_spoken)
    return found


def newest(clients: Clients) -> set[str]:
    """The bundles of the newest answers: so many that every replica gave some of them."""
    return {one.body["bundle"] for one in clients.answered[-100:]}
