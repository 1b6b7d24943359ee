"""The endpoint under what may befall it, on Banking77: deaths, new bundles, bad judges, load."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.data import data_folder, load
from red_ray.bundle import load_bundle
from red_ray.model import RedModel
from tests.ray.servers import Live, free_port
from tests.servers import by_text, hang, lie, steps
from tests.services.serving import (
    DESK,
    POOL,
    REPLICA,
    WITHIN,
    Answered,
    Clients,
    Place,
    Served,
    check_consistent,
    check_same,
    place,
    point_to,
    seen,
    until,
)

pytestmark = pytest.mark.data

RESULTS = Path(__file__).with_name("results") / "serving.md"
KILLS, SWAPS = 10, 5
MOST_FAILED = 0.001
NEAR = 0.01
"""In bfloat16 the batch changes a confidence by less; so near a threshold a decision may change."""
BETWEEN_S = 5.0
"""Of steady load between two events."""
JUDGE_WAIT_S = 5.0

HEAD = """\
| what befell it | calls | failed | p50 ms | p99 ms | longest ms |
|---|---:|---:|---:|---:|---:|
"""
SAME_HEAD = """\

| same answers on all test texts | texts | different | largest difference |
|---|---:|---:|---:|
"""


class Table:
    """Rows of the result file, which is written anew with each of them; those of tests that are not
    run stay."""

    def __init__(self) -> None:
        self.befell: dict[str, str] = {}
        self.same: dict[str, str] = {}
        text = RESULTS.read_text("utf-8") if RESULTS.exists() else ""
        for rows, head in ((self.befell, HEAD), (self.same, SAME_HEAD)):
            for line in text.partition(head)[2].splitlines(keepends=True):
                if not line.startswith("| "):
                    break
                rows[line.split(" | ")[0].removeprefix("| ")] = line

    def add(self, what: str, answered: Sequence[Answered]) -> None:
        ms = [1e3 * one.seconds for one in answered if one.status == 200]
        p50, p99, most = np.percentile(ms, [50, 99, 100])
        failed = sum(one.status != 200 for one in answered)
        row = f"| {what} | {len(answered)} | {failed} | {p50:.0f} | {p99:.0f} | {most:.0f} |\n"
        self.befell[what] = row
        self._write()

    def add_same(self, what: str, n_texts: int, different: int, largest: float) -> None:
        self.same[what] = f"| {what} | {n_texts} | {different} | {largest:.1e} |\n"
        self._write()

    def _write(self) -> None:
        RESULTS.parent.mkdir(exist_ok=True)
        intro = (
            "The endpoint on Ray Serve behind HAProxy, two replicas, 8 clients that retry nothing. "
            "Made by `make soak` (tests/soak/test_serving_soak.py), a row when its test ran last; "
            "times are of a machine with other work beside it.\n\n"
        )
        parts = [intro, HEAD, *self.befell.values(), SAME_HEAD, *self.same.values()]
        RESULTS.write_text("".join(parts), encoding="utf-8")


@pytest.fixture(scope="module")
def table() -> Table:
    return Table()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("soak"), OPENAI_API_KEY="sk-of-a-test") as made:
        yield made


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(load("banking77", 10, 0)[2].rows.texts)


def trained(here: Place, name: str, *options: str) -> Path:
    """A run of Banking77, by the command."""
    run = here.folder / name
    if not run.exists():
        train = data_folder() / "banking77" / "train.csv"
        command(
            here, "train", "--train", train, "--samples-per-class", "10", "--out", run, *options
        )
    return run


def command(here: Place, *arguments: object) -> None:
    """A `red-ray` command, which must succeed."""
    program = Path(sys.executable).with_name("red-ray")
    done = subprocess.run(
        [str(program), *map(str, arguments)],
        env=here.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def run(here: Place) -> Path:
    return trained(here, "float32", *settings_of("float32"), "--set", "judge.timeout_s=20")


def settings_of(dtype: str) -> tuple[str, ...]:
    return ("--set", f"encoder.dtype={dtype}", "--goal", "catch_errors=0.9")


@pytest.fixture(scope="module")
def judge() -> Iterator[Live]:
    with_port = Live(free_port(), by_text())
    with_port.__enter__()
    yield with_port
    with_port.__exit__()


@pytest.fixture(scope="module")
def served(here: Place, run: Path, judge: Live) -> Iterator[Served]:
    link = point_to(here.folder / "current", run)
    options = ["--judge", f"openai:m@{judge.server.base_url}", "--replicas", "2"]
    with Served(here, link, *options, "--set", f"judge.wait_s={JUDGE_WAIT_S}") as made:
        yield made


@pytest.fixture
def clients(served: Served, texts: list[str]) -> Iterator[Clients]:
    """Eight that ask about texts which nobody escalates."""
    with calls_without_judge(served, texts) as made:
        time.sleep(BETWEEN_S)
        yield made


def both_answer(served: Served) -> None:
    until(lambda: len(served.processes(REPLICA)) == 2)
    until(lambda: served.call("GET", "/v1/stats")["replicas"] == 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_everybody_gives_the_same_answers(
    dtype: str, here: Place, texts: list[str], table: Table
) -> None:
    run = trained(here, dtype, *settings_of(dtype))
    model = load_bundle(run / "bundle")
    known = model.predict(texts)
    doubtful = near_a_change(model, texts)
    asked = {
        "packed": answers_of(here, run, texts, "--replicas", "2"),
        "sharded": answers_of(
            here, run, texts, "--replicas", "2", "--set", "layout=sharded", "--set", "shards=2"
        ),
        "classify": by_command(here, run, texts),
    }
    for name, results in asked.items():
        if dtype == "float32" and name != "classify":
            check_same(results, known, within=WITHIN)
        pairs = list(zip(results, known, strict=True))
        others = [
            at for at, (told, one) in enumerate(pairs) if seen(told) != (one.label, one.decision)
        ]
        apart = max(abs(told["confidence"] - one.confidence) for told, one in pairs)
        table.add_same(f"{name}, {dtype}", len(texts), len(others), apart)
        assert dtype == "bfloat16" or (not others and apart <= WITHIN)
        assert {*others} <= doubtful


def answers_of(here: Place, run: Path, texts: list[str], *options: str) -> list[dict[str, Any]]:
    """Of an endpoint: the first half in large calls, the others one by one by many clients."""
    half = len(texts) // 2
    with Served(here, run, *options) as served:
        results: list[dict[str, Any]] = []
        for at in range(0, half, 256):
            told = served.classify(texts[at : min(at + 256, half)], escalate="never")
            results += told["results"]
        bodies = [{"texts": [text], "escalate": "never"} for text in texts[half:]]
        with Clients(served.url, bodies, n_clients=32) as clients:
            until(lambda: len({one.texts for one in clients.answered}) == len({*texts[half:]}))
        assert not clients.failed
    alone = {one.texts[0]: one.body["results"][0] for one in clients.answered}
    return [*results, *(alone[text] for text in texts[half:])]


def by_command(here: Place, run: Path, texts: list[str]) -> list[dict[str, Any]]:
    """Of `red-ray classify`."""
    source, target = here.folder / "texts.csv", here.folder / f"{run.name}.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text",), *((text,) for text in texts)])
    command(here, "classify", run, "--input", source, "--output", target)
    with target.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {**row, "label": row["label"] or None, "confidence": float(row["confidence"])}
        for row in rows
    ]


def near_a_change(model: RedModel, texts: list[str]) -> set[int]:
    """Rows so near to a threshold or to a tie that rounding may decide."""
    (assessment,) = model.assessments([texts])
    two_best = np.sort(assessment.distribution, axis=1)[:, -2:]
    distances = [np.diff(two_best, axis=1)[:, 0], np.abs(assessment.none - model.thresholds.none)]
    if model.thresholds.escalate is not None:
        distances.append(np.abs(model.answer_risk(assessment) - model.thresholds.escalate))
    return set(np.flatnonzero(np.min(distances, axis=0) < NEAR).tolist())


def test_replicas_that_die(served: Served, clients: Clients, table: Table) -> None:
    for _ in range(KILLS):
        victim = served.kill(REPLICA)
        until(lambda pid=victim.pid: pid not in {one.pid for one in served.processes(REPLICA)})
        both_answer(served)
        time.sleep(BETWEEN_S)
    clients.__exit__()
    table.add(f"a replica killed {KILLS} times", clients.answered)
    assert len(clients.failed) <= MOST_FAILED * len(clients.answered), clients.failed[:3]


def test_the_desk_and_the_pool_that_die(
    served: Served, clients: Clients, texts: list[str], table: Table
) -> None:
    for title in (DESK, POOL, DESK, POOL):
        served.classify(texts[:3], escalate="always")
        until(lambda title=title: bool(served.processes(title)))
        served.kill(title)
        time.sleep(BETWEEN_S)
    clients.__exit__()
    table.add("desk and judge's pool killed twice each", clients.answered)
    assert not clients.failed


def test_bundles_that_are_swapped(
    served: Served, clients: Clients, here: Place, run: Path, texts: list[str], table: Table
) -> None:
    other = trained(here, "other", *settings_of("float32"), "--seed", "1")
    models: dict[str, RedModel] = {}

    def swap_to(next_run: Path) -> None:
        model = load_bundle(next_run / "bundle")
        models[model.bundle_id] = model
        until_all_are_of(clients, model.bundle_id)
        time.sleep(BETWEEN_S / 2)

    swap_to(run)
    for at in range(SWAPS - 2):
        point_to(here.folder / "current", (other, run)[at % 2])
        swap_to((other, run)[at % 2])
    for share in ("0.95", "0.85"):
        command(here, "thresholds", other, "--goal", f"catch_errors={share}")
        swap_to(other)
    clients.__exit__()
    table.add(f"a bundle swapped {SWAPS} times", clients.answered)
    assert not clients.failed, clients.failed[:3]
    assert check_consistent(clients.answered, models) == set(models)
    assert len(models) == 4


def until_all_are_of(clients: Clients, bundle: str) -> None:
    """So many newest answers that every replica gave some of them."""
    until(lambda: {one.body["bundle"] for one in clients.answered[-100:]} == {bundle})


def test_judges_that_are_slow_away_or_lie(
    served: Served, judge: Live, texts: list[str], table: Table
) -> None:
    """Four clients ask the judge, eight ask about texts that need none; now and then they alone."""
    need_none = "texts that need no judge"
    scripts = {
        "answers in 50 ms": by_text(delay_s=0.05),
        "answers in 3 s": by_text(delay_s=3.0),
        "lies": steps(then=lie()),
        "hangs": steps(then=hang()),
        "is away": None,  # the last one: nobody asks for a while who was away
    }
    fresh = iter(range(0, len(texts), 400))
    with calls_without_judge(served, texts) as clients:
        time.sleep(2 * BETWEEN_S)
    table.add(f"{need_none}, nobody asks one", clients.answered)
    for name, script in scripts.items():
        if script is None:
            judge.__exit__()
        else:
            judge.server.script = script
        first, n_asked = next(fresh), judge.server.n_requests
        bodies = [{"texts": [text], "escalate": "always"} for text in texts[first : first + 400]]
        with (
            Clients(served.url, bodies, n_clients=4, pause_s=0.2) as asking,
            calls_without_judge(served, texts) as clients,
        ):
            time.sleep(2 * BETWEEN_S)
        table.add(f"{need_none}, beside one that {name}", clients.answered)
        table.add(f"texts about which it is asked, it {name}", asking.answered)
        assert not clients.failed
        assert not asking.failed
        assert (judge.server.n_requests > n_asked) == (script is not None)
    with calls_without_judge(served, texts) as clients:
        time.sleep(2 * BETWEEN_S)
    table.add(f"{need_none}, nobody asks one, again", clients.answered)


def calls_without_judge(served: Served, texts: list[str]) -> Clients:
    return Clients(served.url, [{"texts": [text], "escalate": "never"} for text in texts])


def test_too_much(served: Served, texts: list[str], table: Table) -> None:
    with Clients(served.url, [{"texts": texts[:64], "escalate": "never"}], n_clients=128) as many:
        time.sleep(3 * BETWEEN_S)
    table.add("128 clients with 64 texts a call", many.answered)
    refused = [one for one in many.answered if one.status == 503]
    assert {one.status for one in many.answered} <= {200, 503}
    assert all(one.told_to_wait for one in refused)
    with Clients(served.url, [{"texts": [text]} for text in texts]) as after:
        time.sleep(BETWEEN_S)
    table.add("afterwards, 8 clients", after.answered)
    assert not after.failed


def test_another_run_by_serve_deploy(
    served: Served, clients: Clients, here: Place, run: Path, table: Table
) -> None:
    """First the same application from a file, with other replicas and no judge, then another run in
    place."""
    other = trained(here, "other", *settings_of("float32"), "--seed", "1")
    for user_config in (None, {"run": str(other)}, {"run": str(run)}):
        deploy(here, served, user_config)
        chosen = run if user_config is None else Path(user_config["run"])
        until_all_are_of(clients, load_bundle(chosen / "bundle").bundle_id)
        time.sleep(BETWEEN_S / 2)
    clients.__exit__()
    table.add("`serve deploy`, then twice another run", clients.answered)
    assert not clients.failed, clients.failed[:3]


DEPLOY = """
import json, sys
import ray
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema
ray.init(address="auto", namespace="serve", log_to_driver=False)
client = _get_global_client()
client.deploy_apps(ServeDeploySchema.model_validate(json.loads(sys.argv[1])), _blocking=True)
"""
"""What `serve deploy` has done: the command itself needs the dashboard."""


def deploy(here: Place, served: Served, user_config: dict[str, str] | None) -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "serve" / "config.yaml").read_text())
    (app,) = config["applications"]
    app["args"] = {"run": str(here.folder / "float32"), "judge": {"spec": "off"}}
    classifier, _ = app["deployments"]
    # The cluster has as many processors as replicas: those of before and after need room at once.
    classifier |= {"num_replicas": 2, "ray_actor_options": {"num_cpus": 0}}
    classifier.pop("autoscaling_config")
    if user_config is not None:
        classifier["user_config"] = user_config
    config["http_options"] |= {"port": served.port}
    token = Path(here.environment["HOME"]) / ".cache" / "red_ray" / "auth_token"
    environment = here.environment | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    subprocess.run([sys.executable, "-c", DEPLOY, json.dumps(config)], env=environment, check=True)


def test_nothing_outlives_an_endpoint_that_is_killed(here: Place, run: Path) -> None:
    """HAProxy neither, which would keep the port."""
    before = {one.pid for one in here.processes()}
    with Served(here, run, "--replicas", "1") as killed:
        killed.process.kill()
        killed.wait()
    until(lambda: {one.pid for one in here.processes()} <= before)
    with socket.create_server(("127.0.0.1", killed.port)):
        pass
