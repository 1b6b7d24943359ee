"""The endpoint with its experts in shards, behind Ray's own proxy, with tokens; and starts that
fail."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from red_ray.encoding.files import find_model
from red_ray.model import RedModel
from tests.services.serving import (
    REPLICA,
    START_S,
    WITHIN,
    Clients,
    Place,
    Served,
    check_same,
    demo_texts,
    listeners,
    make_run,
    place,
    small_model,
    until,
)

TOKENS = ("first-token-of-this-test", "second-token-of-this-test")
SHARD = "ray::ServeReplica:red_ray:Shard-"
OPTIONS = ("--replicas", "1", "--plain-proxy", "--set", "layout=sharded", "--set", "shards=2")
NO_HTTP = 0
CALLED = ("/v1/classify", "/v1/feedback", "/v1/model", "/v1/queue", "/v1/stats")


@pytest.fixture(scope="module")
def model() -> RedModel:
    return small_model()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, model: RedModel) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("sharded")) as made:
        make_run(made.folder / "run", model)
        yield made


@pytest.fixture(scope="module")
def served(here: Place) -> Iterator[Served]:
    with Served(here, here.folder / "run", *OPTIONS, RED_RAY_TOKENS=" ".join(TOKENS)) as made:
        yield made


@pytest.fixture(scope="module")
def headers() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[1]}"}


def test_the_experts_are_elsewhere(served: Served) -> None:
    assert (served.facts["layout"], served.facts["proxy"]) == ("sharded", "plain")
    assert len(served.processes(SHARD)) == 2


def test_the_answers_are_those_of_the_model_in_process(
    served: Served, model: RedModel, headers: dict[str, str]
) -> None:
    texts = demo_texts(300)
    body = {"texts": texts[:256], "escalate": "never"}
    together = served.call("POST", "/v1/classify", json=body, headers=headers)["results"]
    bodies = [{"texts": [text], "escalate": "never"} for text in texts[256:]]
    with Clients(served.url, bodies, headers=headers) as clients:
        until(lambda: len({one.texts for one in clients.answered}) == len(bodies))
    assert not clients.failed
    alone = {one.texts[0]: one.body["results"][0] for one in clients.answered}
    results = [*together, *(alone[text] for text in texts[256:])]
    check_same(results, model.predict(texts), within=WITHIN)


def test_without_a_token_nobody_gets_in_at_the_replicas_own_ports_either(
    served: Served, headers: dict[str, str]
) -> None:
    doors = [served.port, *ports_of(served, REPLICA)]
    assert len(doors) >= 3
    for port in doors:
        for path in CALLED:
            for given in ({}, {"Authorization": "Bearer wrong-token-of-this-test"}):
                method = "POST" if path in CALLED[:2] else "GET"
                assert status_of(port, method, path, given) in (401, NO_HTTP)
    assert status_of(served.port, "GET", "/v1/model", headers) == 200
    assert status_of(served.port, "GET", "/healthz", {}) == 200


def test_a_shard_that_dies_is_there_again(served: Served, headers: dict[str, str]) -> None:
    victim = served.kill(SHARD)
    until(lambda: {victim.pid}.isdisjoint(one.pid for one in served.processes(SHARD)))
    until(lambda: len(served.processes(SHARD)) == 2)
    body = {"texts": ["where is my parcel"]}
    statuses = set()

    def answers() -> bool:
        statuses.add(status_of(served.port, "POST", "/v1/classify", headers, body))
        return 200 in statuses

    until(answers)
    assert statuses <= {200, 503}


def test_ctrl_c_ends_it_and_a_second_one_too(served: Served) -> None:
    """As in a terminal: all processes of the session get it, twice."""
    served.press_ctrl_c()
    with contextlib.suppress(ProcessLookupError):
        served.press_ctrl_c()
    assert served.wait() == 128 + signal.SIGINT
    assert served.stderr.startswith("red-ray: the endpoint is down")
    assert served.stderr.count("\n") == 1
    until(lambda: not served.place.processes(), 30)


def test_nothing_runs_after_a_start_that_fails(here: Place, tmp_path: Path) -> None:
    """The encoder's folder is damaged after the training, as only a replica notices."""
    folder = tmp_path / "encoder"
    shutil.copytree(find_model("all-MiniLM-L6-v2"), folder)
    make_run(tmp_path / "run", small_model(encoder={"model": str(folder), "dtype": "float32"}))
    (weights,) = folder.glob("*.safetensors")
    os.truncate(weights, weights.stat().st_size // 2)
    code, told = failed_start(here, tmp_path / "run", "--replicas", "1")
    assert code == 2, told
    assert re.fullmatch(r"red-ray: the endpoint did not start: .*encoder.*\n", told)
    until(lambda: not here.processes(), 30)


def test_a_port_that_is_taken_is_told_before_anything_is_started(here: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, told = failed_start(here, here.folder / "run", "--port", str(port))
    assert code == 2
    assert told.startswith(f"red-ray: cannot listen on 127.0.0.1:{port} (Address already in use)")
    assert told.count("\n") == 1


def test_without_a_token_it_listens_on_this_machine_alone(here: Place) -> None:
    code, told = failed_start(here, here.folder / "run", "--host", "0.0.0.0")
    assert code == 2
    assert told.startswith("red-ray: the endpoint would listen on '0.0.0.0'")
    assert told.count("\n") == 1


def failed_start(here: Place, run: Path, *options: str) -> tuple[int, str]:
    """Exit code and stderr of an endpoint that does not come up; nothing is on stdout."""
    served = Served(here, run, *options)
    served.begin()
    try:
        code = served.wait(START_S)
    finally:
        served.__exit__()
    assert served.stdout == ""
    return code, served.stderr


def ports_of(served: Served, title: str) -> list[int]:
    """Where processes with this title listen."""
    pids = {one.pid for one in served.processes(title)}
    return sorted({port for pid, _, port in listeners(served.place) if pid in pids})


def status_of(
    port: int, method: str, path: str, headers: dict[str, str], body: object = None
) -> int:
    """Of the answer; `NO_HTTP` where what listens there does not speak it."""
    url = f"http://127.0.0.1:{port}{path}"
    try:
        return httpx.request(method, url, headers=headers, json=body, timeout=60).status_code
    except httpx.TransportError:
        return NO_HTTP
