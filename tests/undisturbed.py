"""Fixtures of the tests that lose parts of a run: where it is, and what it must come to all the
same. The conftest of a folder takes them; a module may have its own in their place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.killing import Ended, Place, place, run_undisturbed
from tests.ray.servers import free_port


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Inputs, a home, and Ray's folder."""
    with place(tmp_path_factory.mktemp("here")) as made:
        yield made


@pytest.fixture(scope="module")
def port() -> int:
    """One for all: the judge's address is part of a question's key and of the bundle."""
    return free_port()


@pytest.fixture(scope="module")
def reference(here: Place, port: int) -> Ended:
    """The run on one machine that nobody disturbs."""
    return run_undisturbed(here, here.folder / "reference", port)
