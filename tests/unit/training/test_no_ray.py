"""The guard of the unit tests: with a stand-in for Ray, since importing it costs seconds."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest


@pytest.fixture(scope="module", autouse=True)
def stand_in():
    """Wider than a test, so that it is there before the guard looks for Ray."""
    ray = ModuleType("ray")
    ray.init = lambda **options: None
    ray.is_initialized = lambda: False
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", ray)
        yield


def test_a_unit_test_that_starts_ray_fails():
    import ray

    with pytest.raises(pytest.fail.Exception, match="must not start Ray"):
        ray.init(num_cpus=1)
