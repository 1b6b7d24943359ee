"""Fewer trees: what a forest must keep to does not rest on their number."""

from collections.abc import Iterator

import pytest

from red_ray.experts import forest


@pytest.fixture(scope="session", autouse=True)
def few_trees() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "N_TREES", 25)
        yield
