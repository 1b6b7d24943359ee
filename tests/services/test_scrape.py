"""What Prometheus finds on Ray's port while a training runs and an endpoint answers."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from red_ray.actors.environment import LOCAL_PORTS
from red_ray.bundle import load_bundle
from red_ray.run_folder import RunFolder
from tests.killing import Place, place
from tests.monitoring import used_names
from tests.ray.servers import free_port
from tests.servers import ServerProcess
from tests.services.serving import Served, demo_texts, make_run, small_model, until

SLOW_S = 180.0
LOOK_S = 0.5
N_TEXTS = 48
N_SERVED = N_TEXTS + 8
BUDGET = 200


PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "metrics-export-port",
    "ray-client-server-port",
)
"""Of a head: another one on this machine may have those that Ray takes by itself."""

Tags = frozenset[tuple[str, str]]


@dataclass
class Scraped:
    """What was ever seen on the ports, by name; of each series the last value."""

    seen: dict[str, dict[Tags, float]] = field(default_factory=lambda: defaultdict(dict))

    def scrape(self, discovery: Path) -> None:
        """Ask all that Ray names for Prometheus."""
        for group in json.loads(discovery.read_text("utf-8")):
            for target in group["targets"]:
                with suppress(httpx.ConnectError):  # the autoscaler's, where there is none
                    self._take(httpx.get(f"http://{target}/metrics", timeout=30).text)

    def _take(self, text: str) -> None:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.seen[sample.name][frozenset(sample.labels.items())] = sample.value

    def complete(self, discovery: Path) -> None:
        """Look until all is seen that should be, or for long enough."""
        end = time.monotonic() + SLOW_S / 4
        self.scrape(discovery)
        while not used_names() <= self.seen.keys() and time.monotonic() < end:
            time.sleep(LOOK_S)
            self.scrape(discovery)

    def total(self, name: str, **tags: str) -> float:
        """The sum of the series with these tags."""
        return sum(value for labels, value in self.seen[name].items() if labels >= tags.items())


@contextmanager
def head(place: Place) -> Iterator[Path]:
    """A head on loopback with a dashboard, which tells Prometheus where to look; that file."""
    ports = {name: free_port() for name in PORTS}
    token = place.folder / "token"
    token.write_text("0" * 64, "ascii")
    local = {LOCAL_PORTS: "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    # What is told every ten seconds by default would make this test long.
    place.environment.update(local, RAY_metrics_report_interval_ms="1000")
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    command += ["--num-cpus=4", "--disable-usage-stats", f"--object-store-memory={150 * 2**20}"]
    environment = place.environment | {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
    log = (place.folder / "head.log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    discovery = place.ray / "ray" / "prom_metrics_service_discovery.json"
    try:
        until(lambda: process.poll() is not None or discovery.exists(), SLOW_S)
        assert process.poll() is None, (place.folder / "head.log").read_text("utf-8")
        place.environment["RAY_ADDRESS"] = f"127.0.0.1:{ports['port']}"
        yield discovery
    finally:
        process.terminate()
        process.wait(SLOW_S)
        log.close()


@dataclass(frozen=True)
class Watched:
    """A training, an endpoint and a table classified on one Ray, and what was seen meanwhile.

    Attributes:
        scraped: what the ports told.
        place: where all of it ran.
        n_asked, n_served: requests that the judge of the training got, and that of the endpoint.
    """

    scraped: Scraped
    place: Place
    n_asked: int
    n_served: int

    def judge(self, model: str) -> str:
        """Its name."""
        names = {
            dict(tags)["judge"] for tags in self.scraped.seen["ray_red_ray_judge_requests_total"]
        }
        (found,) = (name for name in names if name.startswith(f"openai:{model}@"))
        return found

    def calls(self, model: str) -> float:
        """Its requests, as Prometheus knows them."""
        return self.scraped.total("ray_red_ray_judge_requests_total", judge=self.judge(model))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    scraped = Scraped()
    with (
        place(folder, OPENAI_API_KEY="sk-of-a-test") as here,
        ServerProcess(folder / "trained.journal", "--delay-ms", "100") as judge,
        ServerProcess(folder / "served.journal") as tier,
        head(here) as discovery,
    ):
        model = small_model(judge={"timeout_s": 10.0, "gold_share": 0.0})
        make_run(folder / "tickets", model)
        options = ("--judge", f"openai:tier@{tier.base_url}", "--replicas", "1")
        settings = {"judge__budget_calls": BUDGET, "loop__recalibrate_every": 1}
        settings["loop__plateau_patience"] = 9  # three rounds, whatever they bring
        prices = folder / "prices.yaml"
        prices.write_text("judge: {prices: {m: {input_usd: 1, output_usd: 2}}, budget_usd: 9}\n")
        with Served(here, folder / "tickets", *options) as endpoint:
            command = here.train(
                folder / "trained", judge.base_url, "--config", str(prices), **settings
            )
            texts = demo_texts(N_TEXTS)
            for at in range(0, N_TEXTS, 4):
                endpoint.classify(texts[at : at + 4])
            for _ in range(2):  # the second time the ledger answers
                endpoint.classify(texts[:4], escalate="always")
            while command.is_running:
                scraped.scrape(discovery)
                time.sleep(LOOK_S)
            assert command.wait() == 0, command.stderr
            classify(here, folder / "tickets", texts)
            counted = len(judge.served()), len(tier.served())
            scraped.complete(discovery)
        yield Watched(scraped, here, *counted)


def classify(here: Place, run: Path, texts: list[str]) -> None:
    """As the command does it, on Ray."""
    source, target = here.folder / "new.csv", here.folder / "decided.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text",), *((text,) for text in texts)])
    arguments = ("--input", str(source), "--output", str(target), "--engine", "ray", "--json")
    command = here.command("classify", str(run), *arguments)
    assert command.wait() == 0, command.stderr


def test_every_metric_of_dashboard_and_alarms_is_seen(watched: Watched) -> None:
    assert sorted(used_names() - watched.scraped.seen.keys()) == []


def test_a_run_tells_what_its_folder_says(watched: Watched) -> None:
    """What it counted in its last second may be lost: the coordinator ends with the run."""
    told, run = watched.scraped, {"run": "trained"}
    n_told = int(told.total("ray_red_ray_loop_iteration", **run))
    rounds = RunFolder(watched.place.folder / "trained").iterations()[:n_told]
    assert n_told >= 2
    assert told.total("ray_red_ray_loop_labels", **run) == rounds[-1].n_train
    answers = "ray_red_ray_loop_answers_total"
    assert told.total(answers, **run, outcome="label") == sum(one.n_labelled for one in rounds)
    assert told.total(answers, **run, outcome="none") == sum(one.n_none for one in rounds)
    refits = sum(len(one.experts_refitted) for one in rounds)
    assert told.total("ray_red_ray_loop_refits_total", **run) == refits
    judge_s = told.total("ray_red_ray_loop_step_seconds_total", **run, step="judge")
    assert judge_s == pytest.approx(sum(one.judge_s for one in rounds))


def test_a_judges_calls_are_those_that_its_server_got(watched: Watched) -> None:
    assert watched.calls("tier") == watched.n_served > 0
    assert 0 < watched.calls("m") <= watched.n_asked


def test_tokens_price_and_budget_follow_the_calls(watched: Watched) -> None:
    """The scripted server says 100 and 7 tokens of each."""
    told, judge, n_calls = watched.scraped, watched.judge("m"), watched.calls("m")
    assert told.total("ray_red_ray_judge_tokens_total", judge=judge) == 107 * n_calls
    cost_usd = told.total("ray_red_ray_judge_cost_usd_total", judge=judge)
    assert cost_usd == pytest.approx(n_calls * (100 * 1 + 7 * 2) / 1e6)
    spent = told.total("ray_red_ray_judge_budget_spent", judge=judge, budget="calls")
    assert 0 < spent <= watched.n_asked / BUDGET


def test_an_endpoint_tells_its_texts(watched: Watched) -> None:
    told, run = watched.scraped, {"run": "tickets"}
    assert told.total("ray_red_ray_serve_texts_total", **run) == N_SERVED
    assert told.total("ray_red_ray_serve_sources_total", **run) == N_SERVED
    assert told.total("ray_red_ray_serve_sources_total", **run, source="judge") > 0
    assert told.total("ray_red_ray_serve_calls_total", **run, result="answered") == N_SERVED / 4
    n_batches = told.total("ray_red_ray_serve_batches_total", **run)
    assert told.total("ray_red_ray_serve_batch_texts_count", **run) == n_batches == N_SERVED / 4
    assert told.total("ray_red_ray_serve_step_seconds_total", **run, step="encode") > 0
    assert told.total("ray_red_ray_judge_cached_total") >= 4
    share = told.total("ray_red_ray_serve_escalation_share", **run)
    assert 0 < share <= 1


def test_a_table_is_told_row_by_row(watched: Watched) -> None:
    rows = watched.scraped.total("ray_red_ray_classify_rows_total")
    assert rows == N_TEXTS


def test_no_tag_holds_a_label_or_a_text(watched: Watched) -> None:
    secret = {*demo_texts(N_TEXTS), *load_bundle(watched.place.folder / "tickets/bundle").labels}
    ours = [name for name in watched.scraped.seen if name.startswith("ray_red_ray_")]
    told = {value for name in ours for tags in watched.scraped.seen[name] for _, value in tags}
    assert len(told) > 20
    assert not [value for value in told if any(word in value for word in secret)]


def test_logs_say_run_actor_and_iteration(watched: Watched) -> None:
    lines = [
        json.loads(line)
        for path in watched.place.ray.glob("ray/session_2*/logs/worker-*.err")
        for line in path.read_text("utf-8").splitlines()
        if line.startswith("{")
    ]
    ended = [one for one in lines if one["message"] == "iteration_ended"]
    rounds = RunFolder(watched.place.folder / "trained").iterations()
    assert [(one["run"], one["actor"], one["iteration"]) for one in ended] == [
        ("trained", "coordinator", one.iteration) for one in rounds
    ]
    assert {"Classifier"} <= {one["actor"] for one in lines if one["message"] == "bundle_answers"}
