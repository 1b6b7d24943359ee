"""One small Ray for the whole session, as the commands start it."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Test modules share helpers by `tests.…`, and `tests` is not installed.
sys.path.insert(0, str(Path(__file__).parents[2]))

from red_ray.actors.environment import prepare_environment
from red_ray.encoding import resolve

HOME = Path(tempfile.mkdtemp(prefix="red-ray-tests-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)


def prepare() -> None:
    """Set Ray up with a home of our own: the token of these tests stays in it.

    When this module is loaded, since a unit test of the same session may be what imports Ray.
    """
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        os.environ.pop(name, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(HOME))
        prepare_environment()


prepare()


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Ray with two processors; what is encoded goes to a store of its own."""
    import ray

    # A unit test of the same session may have played another machine.
    resolve._processor_flags.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RED_RAY_CACHE", str(HOME / "embeddings"))
        patch.delenv("OPENAI_API_KEY", raising=False)
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=150 * 2**20,
            log_to_driver=False,
            logging_level="warning",
        )
        yield
        ray.shutdown()


@pytest.fixture(autouse=True)
def names_are_free(cluster: None) -> Iterator[None]:
    """No test meets the actors of the one before."""
    from tests.ray.runs import wait_for_actors_to_end

    yield
    wait_for_actors_to_end()
