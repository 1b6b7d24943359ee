"""A run that an endpoint can answer from, whose model escalates half of the test texts."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from red_ray.core.text import encodable
from red_ray.model import RedModel
from tests.unit.serve.endpoints import Sorts, copy, write_run_of
from tests.unit.test_escalation import with_threshold
from tests.unit.training.fakes import Corpus, FakeEncoder, train


class Encoder(FakeEncoder):
    """Takes any text, as a real one does."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode([encodable(text) for text in texts])


@pytest.fixture(scope="session")
def half(corpus: Corpus) -> RedModel:
    """A model with a goal, which half of the test texts reach."""
    model = asyncio.run(train(corpus.job())).model
    assessment = model.assess(corpus.test, FakeEncoder().encode(corpus.test))
    middle = float(np.median(model.answer_risk(assessment)))
    found = with_threshold(model, middle)
    # Said by words, so that an explanation can name them.
    described = tuple(f"about {name}" for name in model.labels)
    return dataclasses.replace(found, descriptions=described)


@pytest.fixture(scope="session")
def sorts(half: RedModel, corpus: Corpus) -> Sorts:
    """The test texts by what that model decides."""
    decisions = half.predict(corpus.test)
    pairs = list(zip(corpus.test, decisions, strict=True))
    return Sorts(
        sure=tuple(text for text, one in pairs if one.decision != "escalate"),
        doubtful=tuple(text for text, one in pairs if one.decision == "escalate"),
    )


@pytest.fixture(scope="session")
def half_run(half: RedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its run; not to be changed."""
    return write_run_of(half, tmp_path_factory.mktemp("runs") / "half")


@pytest.fixture
def served(half_run: Path, tmp_path: Path, encoders: list[FakeEncoder]) -> Path:
    """A run to serve, with the fake encoder in place of its own."""
    del encoders
    return copy(half_run, tmp_path / "served")


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch) -> list[FakeEncoder]:
    """Every encoder that an endpoint loads."""
    made: list[FakeEncoder] = []

    class Loads:
        @staticmethod
        def load(config: object, *, n_threads: int) -> FakeEncoder:
            del config, n_threads
            made.append(Encoder())
            return made[-1]

    monkeypatch.setattr("red_ray.model.SentenceEncoder", Loads)
    monkeypatch.setattr("red_ray.model.RedModel.check_encoder", lambda *_: None)
    return made
