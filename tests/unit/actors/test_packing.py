"""How many experts share an actor: one each, until there are too many."""

from __future__ import annotations

import pytest

from red_ray.actors.packing import (
    ACTOR_BYTES,
    ACTORS_PER_NODE,
    MEMORY_SHARE,
    EncoderPlaces,
    encoder_places,
    experts_per_actor,
)

PLENTY = 1e12
MANY = 512.0


@pytest.mark.parametrize("n_experts", [1, 2, ACTORS_PER_NODE])
def test_one_actor_per_expert_by_default(n_experts):
    assert experts_per_actor(n_experts, n_nodes=1, n_cpus=MANY, free_bytes=PLENTY) == 1


@pytest.mark.parametrize(
    ("n_experts", "n_nodes", "per_actor"),
    [
        (ACTORS_PER_NODE + 1, 1, 2),
        (2 * ACTORS_PER_NODE, 1, 2),
        (2 * ACTORS_PER_NODE, 2, 1),
        (125, 1, 8),
    ],
)
def test_above_the_limit_they_share_as_few_as_fit(n_experts, n_nodes, per_actor):
    assert (
        experts_per_actor(n_experts, n_nodes=n_nodes, n_cpus=MANY, free_bytes=PLENTY) == per_actor
    )
    assert -(-n_experts // per_actor) <= ACTORS_PER_NODE * n_nodes


def test_little_memory_packs_more():
    room_for_three = 3.5 * ACTOR_BYTES / MEMORY_SHARE
    assert experts_per_actor(9, n_nodes=1, n_cpus=MANY, free_bytes=room_for_three) == 3
    assert experts_per_actor(9, n_nodes=1, n_cpus=MANY, free_bytes=0) == 9


def test_packing_is_told_in_one_log_line(caplog):
    with caplog.at_level("INFO"):
        experts_per_actor(8, n_nodes=1, n_cpus=MANY, free_bytes=PLENTY)
        assert not caplog.records
        experts_per_actor(32, n_nodes=1, n_cpus=MANY, free_bytes=PLENTY)
    (record,) = caplog.records
    assert (record.message, record.per_actor) == ("experts_packed", 2)


def test_a_stated_number_wins():
    assert experts_per_actor(100, n_nodes=1, n_cpus=MANY, free_bytes=0, wanted=1) == 1
    assert experts_per_actor(2, n_nodes=9, n_cpus=MANY, free_bytes=PLENTY, wanted=4) == 4


@pytest.mark.parametrize(
    ("n_experts", "n_cpus", "n_actors"),
    [(ACTORS_PER_NODE, 2, ACTORS_PER_NODE), (125, 2, 4), (125, 4, 8), (125, 64, 16), (125, 0.2, 1)],
)
def test_experts_that_share_actors_share_those_that_the_processors_keep_busy(
    n_experts, n_cpus, n_actors
):
    per_actor = experts_per_actor(n_experts, n_nodes=1, n_cpus=n_cpus, free_bytes=PLENTY)
    assert -(-n_experts // per_actor) == n_actors


@pytest.mark.parametrize(
    ("n_cpus", "n_gpus", "places"),
    [
        (0, 0, EncoderPlaces(1, 1, gpus=0)),
        (2, 0, EncoderPlaces(1, 2, gpus=0)),
        (16, 0, EncoderPlaces(4, 4, gpus=0)),
        (16, 2, EncoderPlaces(2, 8, gpus=1)),
        (2, 4, EncoderPlaces(4, 1, gpus=1)),
    ],
)
def test_encoders_are_on_cards_where_there_are_any_and_never_on_both(n_cpus, n_gpus, places):
    assert encoder_places(n_cpus=n_cpus, n_gpus=n_gpus) == places
