"""A cluster of three nodes: the run is that of one machine, and a lost node costs nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.killing import (
    PER_ROUND,
    Ended,
    Place,
    check_nothing_is_lost,
    said,
    served,
)
from tests.nodes import Nodes, nodes, train_and_lose

LATE = served(2 * PER_ROUND + PER_ROUND // 2)


@pytest.fixture(scope="module")
def three(here: Place) -> Iterator[Nodes]:
    with nodes(here.ray, here.environment, n_workers=2) as made:
        yield made


def test_workers_that_are_lost_in_mid_run_cost_nothing(
    here: Place, three: Nodes, reference: Ended, port: int
) -> None:
    joined = replace(here, environment=three.environment)
    told = train_and_lose(joined, three, here.folder / "run", port, said("Fitting"), LATE)
    assert told.codes == (0,)
    check_nothing_is_lost(told, reference)
    assert not told.doubled, "the pool and its coordinator are where the command is"
