"""A command line that never starts Ray: files to give it, and a finished run without a model."""

from __future__ import annotations

import asyncio
import csv
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from red_ray.bundle import save_bundle
from red_ray.cli.app import app
from red_ray.data.text import text_key
from red_ray.evaluation.details import run_details
from red_ray.run_folder import RunFolder
from red_ray.training import Trained
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
    """Commands that encode get the fake encoder: no unit test loads a model."""

    class Loads:
        @staticmethod
        def load(config: object) -> FakeEncoder:
            return FakeEncoder()

    monkeypatch.setattr("red_ray.model.SentenceEncoder", Loads)
    monkeypatch.setattr("red_ray.encoding.open_encoder", lambda config: FakeEncoder())


@pytest.fixture
def red_ray() -> Invoke:
    """Runs a command; its arguments may be paths."""

    def invoke(*args: object) -> Result:
        return CliRunner().invoke(app, [str(arg) for arg in args])

    return invoke


def write_rows(path: Path, rows: Sequence[Sequence[str]], *header: str) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def one_line(result: Result, code: int, *words: str) -> str:
    """The command ended with `code` and one line of ours on stderr that holds `words`."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("red-ray: ")
    for word in words:
        assert word in lines[0]
    return lines[0]


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
    """A finished run without a scorecard, as a command leaves it."""
    return write_run(tmp_path / "run", corpus, trained)


def write_run(path: Path, corpus: Corpus, trained: Trained) -> RunFolder:
    run = RunFolder.create(path, trained.model.config)
    run.write_seen(text_key(text) for text in (*corpus.texts, *corpus.pool))
    for iteration in trained.iterations:
        run.append(iteration)
    save_bundle(trained.model, run.bundle, {"timing_s": {"total": 1.0}})
    run.write_json("details.json", run_details(trained, trained.model.config.judge.spec))
    return run



def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
