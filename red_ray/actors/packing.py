"""How many encoders there are, and how many experts share an actor."""

from __future__ import annotations

import logging
from dataclasses import dataclass

logger = logging.getLogger(__name__)

ACTORS_PER_NODE = 16
"""Above this, starting the processes costs more than they gain (48 s for 32 on two cores)."""

ACTORS_PER_CPU = 2
"""Where experts share actors at all: more processes than that fit no faster, and each takes
`ACTOR_BYTES` and a second of a processor to start (16 on two cores: 2.3 GB, 22 s)."""

MEMORY_SHARE = 0.6
"""Share of the free memory that expert actors may take together."""

ACTOR_BYTES = 160 * 2**20
"""Memory of one expert actor with scikit-learn: 141 MB measured, and some room."""

ENCODERS_PER_CPU = 0.25
"""One encoder for four processors: each runs its own threads, and loading one takes seconds."""


@dataclass(frozen=True, slots=True)
class EncoderPlaces:
    """How many encoders a cluster holds, and the threads and cards of each."""

    n_encoders: int
    n_threads: int
    gpus: int


def encoder_places(*, n_cpus: float, n_gpus: int) -> EncoderPlaces:
    """An encoder for each card where there are any, else one for some processors.

    Never some of both: what unlike devices round would differ from text to text.

    Args:
        n_cpus: logical processors of the cluster.
        n_gpus: its cards.
    """
    n_encoders = n_gpus or max(1, int(n_cpus * ENCODERS_PER_CPU))
    return EncoderPlaces(n_encoders, max(1, int(n_cpus / n_encoders)), gpus=1 if n_gpus else 0)


def experts_per_actor(
    n_experts: int,
    *,
    n_nodes: int,
    n_cpus: float,
    free_bytes: float,
    wanted: int | str = "auto",
) -> int:
    """One actor for each expert while a node has room for them, else as few as keep it busy.

    Args:
        n_experts: experts to place; the gate has an actor of its own.
        n_nodes: machines of the cluster.
        n_cpus: processors of all of them together.
        free_bytes: free memory of all of them together.
        wanted: `auto`, or a number that wins.
    """
    if wanted != "auto":
        return int(wanted)
    by_memory = int(free_bytes * MEMORY_SHARE / ACTOR_BYTES)
    most = ACTORS_PER_NODE * n_nodes
    if n_experts > most:
        most = min(most, int(ACTORS_PER_CPU * n_cpus))
    n_actors = max(1, min(n_experts, most, by_memory))
    per_actor = -(-n_experts // n_actors)
    if per_actor > 1:
        logger.info("experts_packed", extra={"n_experts": n_experts, "per_actor": per_actor})
    return per_actor
