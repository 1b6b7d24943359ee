"""A trained model of the shared corpus, what its run would keep, and rows that it never saw."""

from __future__ import annotations

import asyncio

import pytest

from red_ray.core.text import text_key
from red_ray.training import Trained, TrainingJob
from tests.unit.training.fakes import Corpus, FakeEncoder, FakeValidator, run_config, train, truth

HELD = "family1_topic05"


def trained_without(corpus: Corpus, *held: str, **overrides: object) -> Trained:
    """A model that does not know some labels."""
    pairs = [*zip(corpus.texts, corpus.labels, strict=True)]
    kept = [(text, label) for text, label in pairs if label not in held]
    job = TrainingJob(
        tuple(text for text, _ in kept),
        tuple(label for _, label in kept),
        (),
        {},
        run_config(**overrides),
    )
    return asyncio.run(train(job))


def rows_of(corpus: Corpus, name: str) -> list[str]:
    pairs = zip(corpus.texts, corpus.labels, strict=True)
    return [text for text, label in pairs if label == name]


def halves(corpus: Corpus, name: str, first: str, second: str) -> dict[str, str | None]:
    """The rows of a label in turn to the one and to the other."""
    rows = rows_of(corpus, name)
    return {text_key(text): (first, second)[at % 2] for at, text in enumerate(rows)}


@pytest.fixture(scope="session")
def full(corpus: Corpus) -> Trained:
    return asyncio.run(train(corpus.job()))


@pytest.fixture(scope="session")
def asked(corpus: Corpus) -> Trained:
    """After a round with a judge, so that there are its rows, and texts that it refused."""
    job = corpus.job(loop={"max_iterations": 1}, judge={"top_k": 1})
    return asyncio.run(train(job, FakeValidator(truth(corpus))))


@pytest.fixture(scope="session")
def without(corpus: Corpus) -> Trained:
    return trained_without(corpus, HELD)


@pytest.fixture(scope="session")
def encoder() -> FakeEncoder:
    return FakeEncoder()
