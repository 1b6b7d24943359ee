"""No unit test starts Ray; what they share: a corpus with many labels and an encoder for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Test modules share fakes by `tests.…`, and `tests` is not installed.
sys.path.insert(0, str(Path(__file__).parents[2]))

NO_RAY = "a unit test must not start Ray; such tests belong in tests/ray"


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that starts Ray, whether it was imported before the test or by it.

    Idea: Ray Serve's own unit tests, python/ray/serve/tests/unit/conftest.py.
    """
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "0")
    ray = sys.modules.get("ray")
    if ray is not None:
        monkeypatch.setattr(ray, "init", _refuse)
    yield
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
        pytest.fail(NO_RAY)


def _refuse(*args: object, **options: object) -> None:
    pytest.fail(NO_RAY)


@pytest.fixture(scope="session")
def corpus():
    """12 labels in three families, 5 rows each, with a pool and a test set."""
    from tests.unit.training.fakes import make_corpus

    return make_corpus()


@pytest.fixture(scope="session")
def encoder():
    """An encoder without a model: a text lies where its words lie."""
    from tests.unit.training.fakes import FakeEncoder

    return FakeEncoder()
