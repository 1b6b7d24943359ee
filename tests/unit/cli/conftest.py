"""A command line that never starts Ray and never loads a model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from red_ray.cli.app import app
from red_ray.run_folder import RunFolder
from red_ray.training import Trained
from tests.unit.cli.running import write_rows, write_run
from tests.unit.training.fakes import Corpus, FakeEncoder, FakeValidator, train, truth

Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command sets in the environment goes with the test, as does what it caches."""
    before = dict(os.environ)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RED_RAY_CACHE", str(tmp_path / "cache"))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that encode get the fake encoder."""

    class Loads:
        @staticmethod
        def load(config: object, *, n_threads: int | None = None) -> FakeEncoder:
            return FakeEncoder()

    monkeypatch.setattr("red_ray.model.SentenceEncoder", Loads)
    monkeypatch.setattr("red_ray.encoding.open_encoder", lambda config: FakeEncoder())


@pytest.fixture
def red_ray() -> Invoke:
    """Runs a command; its arguments may be paths."""

    def invoke(*args: object) -> Result:
        return CliRunner().invoke(app, [str(arg) for arg in args])

    return invoke


@pytest.fixture
def train_file(tmp_path: Path, corpus: Corpus) -> Path:
    rows = list(zip(corpus.texts, corpus.labels, strict=True))
    return write_rows(tmp_path / "train.csv", rows, "text", "label")


@pytest.fixture
def test_file(tmp_path: Path, corpus: Corpus) -> Path:
    rows = list(zip(corpus.test, corpus.test_labels, strict=True))
    return write_rows(tmp_path / "test.csv", rows, "text", "label")


@pytest.fixture(scope="session")
def trained(corpus: Corpus) -> Trained:
    """A run with two rounds of a judge that knows the truth."""
    job = corpus.job(loop={"max_iterations": 2}, judge={"spec": "simulated:1.0"})
    return asyncio.run(train(job, FakeValidator(truth(corpus))))


@pytest.fixture
def finished(tmp_path: Path, corpus: Corpus, trained: Trained) -> RunFolder:
    return write_run(tmp_path / "run", corpus, trained)
