"""A cluster of three nodes loses one after the other: runs, sweeps, batches and the endpoint."""

from __future__ import annotations

import csv
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from red_ray.data.demo import load_demo
from tests.killing import (
    PER_ROUND,
    Ended,
    Place,
    Told,
    answered,
    check_nothing_is_lost,
    said,
    served,
)
from tests.nodes import Nodes, lose_the_head, nodes, train_and_lose
from tests.services.serving import Clients, Served
from tests.services.serving import Place as ServingPlace
from tune.folder import Place as SweepPlace

RESULTS = Path(__file__).with_name("results") / "node_losses.md"

MOMENTS = {
    "encoding": said("Encoding"),
    "fitting": said("Fitting"),
    "in the middle of round 2": served(PER_ROUND + PER_ROUND // 2),
    "refitting after round 2": answered(2 * PER_ROUND),
    "final refit": said("full refit"),
}
HEAD = """\
| lost | answers kept | served | served twice | exit codes | s |
|---|---:|---:|---:|---|---:|
"""
SHARD_ROWS = 4096
STEADY_S = 20.0


@pytest.fixture(scope="module")
def three(here: Place, reference: Ended) -> Iterator[Nodes]:
    with nodes(here.ray, here.environment, n_workers=2) as made:
        yield made


@pytest.fixture
def joined(here: Place, three: Nodes) -> Place:
    """The same inputs; its commands join the nodes."""
    return replace(here, environment=three.environment)


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """A row for each loss in a training; kept when all of them were run."""
    rows: list[str] = []
    yield rows
    if len(rows) == len(MOMENTS) + 1:
        RESULTS.write_text(_intro() + HEAD + "".join(rows), encoding="utf-8")


@pytest.mark.parametrize("name", MOMENTS)
def test_a_worker_that_is_lost_costs_a_run_nothing(
    name: str, joined: Place, three: Nodes, reference: Ended, port: int, table: list[str]
) -> None:
    run = joined.folder / name.replace(" ", "-")
    if name == "encoding":
        joined = joined.with_cold_store(run.with_suffix(".store"))
    victim = "EncoderActor" if name == "encoding" else "RouterActor"
    told = train_and_lose(joined, three, run, port, MOMENTS[name], victim=victim)
    table.append(_row(f"a worker, {name}", told))
    assert told.codes == (0,)
    check_nothing_is_lost(told, reference)
    assert not told.doubled


def test_a_sweep_runs_the_settings_again_that_were_lost(joined: Place, three: Nodes) -> None:
    space = {"partition.strategy": ["similar", "random"], "noise.factor": [1, 2, 3, None]}
    base = {"partition": {"subset_size": 6, "umap_dim": None}, "judge": {"spec": "neighbours"}}
    base["loop"] = {"max_iterations": 3, "samples_per_iteration": 24, "uncertainty_threshold": 0.0}
    data = {part: f"{part}.csv" for part in ("train", "pool", "test")}
    given = {"data": data, "config": base, "space": space, "goals": [{"escalate_at_most": 0.3}]}
    file, out = joined.folder / "sweep.yaml", joined.folder / "sweep"
    file.write_text(yaml.safe_dump(given))
    command = joined.command("tune", str(file), "--out", str(out), "--json")
    while command.is_running and not any(one.has_ended for one in SweepPlace(out).records()):
        time.sleep(0.05)
    three.lose(three.workers[0])
    three.add_worker()
    assert command.wait() == 0, command.stderr
    records = SweepPlace(out).records()
    assert len(records) == 8
    assert all(one.has_ended for one in records)


def test_a_batch_loses_and_doubles_no_row(joined: Place, here: Place, three: Nodes) -> None:
    source = joined.folder / "many.csv"
    texts = _many(3 * SHARD_ROWS)
    _write(source, texts)
    run, parts = joined.folder / "reference", joined.folder / "nodes.csv.parts"
    arguments = ["classify", str(run), "--input", str(source), "--json", "--output"]
    command = joined.command(*arguments, f"{joined.folder / 'nodes.csv'}", "--engine", "ray")
    while command.is_running and not _n_lines(parts / "_manifest.jsonl"):
        time.sleep(0.05)
    assert command.is_running, command.stderr
    three.lose(three.workers[0])
    three.add_worker()
    assert command.wait(600) == 0, command.stderr
    alone = here.command(*arguments, f"{joined.folder / 'alone.csv'}", "--engine", "local")
    assert alone.wait(600) == 0, alone.stderr
    assert _labels(joined.folder / "nodes.csv") == _labels(joined.folder / "alone.csv")


def test_the_endpoint_answers_on(joined: Place, three: Nodes) -> None:
    """Of two replicas on two workers one is lost, with the calls that are under way there."""
    where = ServingPlace(joined.folder, joined.ray, joined.environment)
    options = ("--replicas", "2", "--plain-proxy", "--judge", "off")
    with Served(where, joined.folder / "reference", *options) as endpoint:
        bodies = [{"texts": [text]} for text in _many(64)]
        with Clients(endpoint.url, bodies, n_clients=4) as clients:
            clients.wait_for(50)
            three.lose(three.workers[0])
            three.add_worker()
            time.sleep(STEADY_S)
            n_before = len(clients.answered)
            clients.wait_for(50)
        late = clients.answered[n_before:]
        print(f"endpoint: {len(clients.answered)} calls, {len(clients.failed)} failed")
        assert all(one.status == 200 for one in late)
        # What was under way at the lost replica, of four clients, until the loss is noticed.
        assert len(clients.failed) <= 16, [one.status for one in clients.failed]


def test_a_head_that_is_lost_is_gone_on_from_elsewhere(
    here: Place, three: Nodes, reference: Ended, port: int, table: list[str]
) -> None:
    """All nodes and the command go at once; a new cluster resumes the run's folder. Last: the nodes
    of the other tests are gone."""
    joined = replace(here, environment=three.environment)
    told = lose_the_head(
        joined, three, here.folder / "head", port, MOMENTS["in the middle of round 2"]
    )
    table.append(_row("the head and all, in the middle of round 2", told))
    check_nothing_is_lost(told, reference)
    assert told.codes == (-signal.SIGKILL, 0)


def _many(n: int) -> list[str]:
    texts = [text for part in (load_demo(0).train, load_demo(0).test) for text in part.texts]
    return [f"{texts[at % len(texts)]} ({at})" for at in range(n)]


def _write(path: Path, texts: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text",), *((text,) for text in texts)])


def _labels(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def _n_lines(path: Path) -> int:
    return path.read_text("utf-8").count("\n") if path.exists() else 0


def _intro() -> str:
    return (
        f"A run of {3 * PER_ROUND} questions on three nodes of one machine (a head without "
        "processors, two workers), each compared with the run on one machine that nobody "
        "disturbed: same bundle, same answers, same history, no answer lost. All processes of the "
        "node end at once; another worker comes. Made by `make soak` "
        "(tests/soak/test_node_losses.py).\n\n"
    )


def _row(what: str, told: Told) -> str:
    codes = " ".join(map(str, told.codes))
    return (
        f"| {what} | {len(told.standing)} | {told.n_served} | {told.doubled.total()} | {codes} | "
        f"{told.seconds:.0f} |\n"
    )
