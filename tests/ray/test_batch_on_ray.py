"""Batch over Ray Data: the bytes of one process, whatever dies, and never a silent wait."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from red_ray.actors import batch
from red_ray.actors.batch import classify_on_ray
from red_ray.actors.cluster import fetch, start_actor
from red_ray.batch import SHARD_ROWS, Job, PartsFolder, RemoteParts, classify_here, read_shards
from red_ray.bundle import save_bundle
from red_ray.cli.app import app
from red_ray.errors import ConfigError, DataError, EncoderError
from red_ray.model import RedModel
from red_ray.run_folder import RunFolder
from tests.ray.runs import in_process, sample, wait_for_actors_to_end
from tests.ray.workers import Busy, dying, fake, without_encoder
from tests.unit.training.fakes import FakeEncoder, make_corpus, train

N_ROWS = 3 * SHARD_ROWS - 100
LIMIT_S = 240


@pytest.fixture(autouse=True)
def no_hang():
    """A run that hangs fails here, and not when somebody looks."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def names_are_free():
    """In place of the one of all tests: Ray Data's own actors stay until its last dataset."""


@pytest.fixture(scope="module", autouse=True)
def data_actors_end(cluster: None):
    """They do not end by themselves, and the tests after these wait for all actors to end."""
    import ray
    from ray.util import list_named_actors

    yield
    for actor in list_named_actors(all_namespaces=True):
        ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]))
    wait_for_actors_to_end()


@pytest.fixture(autouse=True)
def processors_are_free(cluster: None):
    """A pool that failed ends a moment after its error is forgotten."""
    import ray

    while ray.available_resources().get("CPU", 0) < 2:
        gc.collect()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def model() -> RedModel:
    trained = asyncio.run(train(make_corpus().job()))
    return replace(trained.model, encoder=FakeEncoder())


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    texts = make_corpus().test
    rows = [f"{texts[n % len(texts)]} x{n // 40}" for n in range(N_ROWS)]
    rows[7] = rows[-1] = ""
    return pd.DataFrame({"id": range(N_ROWS), "text": rows})


@pytest.fixture
def source(table: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "in.parquet"
    table.to_parquet(path)
    return path


def over_ray(model, source, target, load=fake, **options):
    """Classify on Ray; which shards were done there."""
    kind = PartsFolder if isinstance(target, Path) else RemoteParts
    with kind.open(target, Job.of(source, "", top_k=3), **options) as parts:
        done = classify_on_ray(model, source, parts.path, top_k=3, done=set(parts.done), load=load)
        numbers = []
        for finished in done:
            parts.add(finished)
            numbers.append(finished.shard)
        parts.finish()
    return sorted(numbers)


def here(model, source, target):
    with PartsFolder.open(target, Job.of(source, "", top_k=3)) as parts:
        list(classify_here(model, read_shards(source, "text"), parts))
        parts.finish()


def test_the_bytes_are_those_of_one_process(model, source, tmp_path):
    assert over_ray(model, source, tmp_path / "ray.csv") == [0, 1, 2]
    here(model, source, tmp_path / "local.csv")
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_the_bytes_are_the_same_at_an_address(model, source, tmp_path):
    """Workers write their parts there, and need no disk in common with the driver."""
    (tmp_path / "there").mkdir()
    assert over_ray(model, source, f"file://{tmp_path}/there/ray.csv") == [0, 1, 2]
    here(model, source, tmp_path / "local.csv")
    assert (tmp_path / "there" / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_only_what_is_missing_is_read_and_classified(model, source, tmp_path):
    target = tmp_path / "out.parquet"
    with PartsFolder.open(target, Job.of(source, "", top_k=3)) as parts:
        shards = list(read_shards(source, "text", {0, 2}))
        list(classify_here(model, shards, parts))
    assert over_ray(model, source, target, resume=True) == [0, 2]
    assert list(pd.read_parquet(target).id) == list(range(N_ROWS))


def test_a_killed_worker_loses_and_doubles_no_row(model, source, tmp_path):
    mark, target = tmp_path / "died", tmp_path / "out.parquet"
    assert over_ray(model, source, target, load=partial(dying, mark)) == [0, 1, 2]
    assert mark.exists()
    assert list(pd.read_parquet(target).id) == list(range(N_ROWS))


def test_an_error_of_a_worker_arrives_as_itself(model, source, tmp_path):
    with pytest.raises(EncoderError, match=r"^there is no such model here$"):
        over_ray(model, source, tmp_path / "out.csv", load=without_encoder)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_an_error_of_the_reader_comes_after_what_is_good(model, tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b"text\n" + (b"x" * 2000 + b"\n") * 4 * SHARD_ROWS + b"caf\xe9\n")
    with pytest.raises(DataError, match="not UTF-8"):
        over_ray(model, source, target)
    kept = {part.name for part in tmp_path.glob("out.csv.parts/part-*")}
    assert kept == {f"part-00000{shard}.parquet" for shard in range(3)}


def test_shards_larger_than_what_may_wait_get_through(model, table, tmp_path, monkeypatch):
    """The least that Ray Data lets through is one, however little room it is given."""
    monkeypatch.setattr(batch, "IN_STORE_BYTES", 2**20)
    source = tmp_path / "wide.parquet"
    table.assign(blob="x" * 1000).to_parquet(source)
    assert over_ray(model, source, tmp_path / "out.parquet") == [0, 1, 2]


def test_a_cluster_whose_processors_are_taken_is_refused_at_once(model, source, tmp_path):
    actor = start_actor(Busy, num_cpus=1)
    fetch(actor.ready.remote())
    with pytest.raises(ConfigError, match="has 1 free logical CPUs"):
        over_ray(model, source, tmp_path / "out.csv")


# --- the command -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose encoder is a real one."""
    folder = tmp_path_factory.mktemp("run")
    job = sample().job(loop={"max_iterations": 1})
    trained = in_process(job, folder / "ledger.sqlite")
    made = RunFolder.create(folder / "run", trained.model.config)
    save_bundle(trained.model, made.bundle, {})
    return made.path


def classify(run: Path, folder: Path, engine: str) -> Result:
    source = folder / "in.csv"
    pd.DataFrame({"text": sample().test.texts}).to_csv(source, index=False)
    target = folder / f"{engine}.csv"
    arguments = ["classify", run, "--input", source, "--output", target, "--engine", engine]
    return CliRunner().invoke(app, [str(one) for one in (*arguments, "--json")])


def test_the_command_gives_the_same_file_and_nothing_but_json_on_stdout(run, tmp_path):
    found = {}
    for engine in ("ray", "local"):
        result = classify(run, tmp_path, engine)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        found[engine] = json.loads(result.stdout) | {"seconds": 0}
    assert found["ray"] == found["local"]
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


def test_the_worker_needs_no_run_folder(run, tmp_path, monkeypatch):
    """The model travels: what is on the driver's disk need not be elsewhere."""
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    real = batch.classify_on_ray

    def without_folder(*args, **options):
        shutil.rmtree(moved)
        return real(*args, **options)

    monkeypatch.setattr(batch, "classify_on_ray", without_folder)
    assert classify(moved, tmp_path, "ray").exit_code == 0
