"""What can be seen of a cluster, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from red_ray.actors.scrape import Figure

ENDED = "ENDED"
"""State of a command that joined and is gone: Ray says that it succeeded, however it ended."""

OVER = ("STOPPED", "SUCCEEDED", "FAILED", ENDED)
"""States of a job that runs no more."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster; `cpus` are logical processors, `memory_gb` what Ray may give."""

    name: str
    ip: str
    state: str
    is_head: bool
    cpus: float
    gpus: float
    memory_gb: float


@dataclass(frozen=True, slots=True)
class Job:
    """A submitted job, or a command that joined.

    Attributes:
        id: that `ray job stop` takes; of a command that joined Ray's own number.
        is_submitted: whether it was sent by `ray job submit`.
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED; ENDED of a command that joined.
        entrypoint: its command line; empty for a command that joined.
        start_s: in seconds since 1970; None before it began.
        end_s: None while it runs.
        said: the last line of its log, while it runs and where it failed.
        exit_code: None while it runs.
    """

    id: str
    is_submitted: bool
    status: str
    entrypoint: str
    start_s: float | None
    end_s: float | None
    said: str
    exit_code: int | None

    @property
    def is_over(self) -> bool:
        """Whether it runs no more."""
        return self.status in OVER


@dataclass(frozen=True, slots=True)
class Actor:
    """An actor that is not dead.

    Attributes:
        name: as people call it, as `expert-03: card_arrival, …`.
        kind: its class.
        state: ALIVE, RESTARTING, PENDING_CREATION or DEPENDENCIES_UNREADY.
        node: name of its machine.
        restarts: so far.
        memory_mb: its own, where it runs on this machine.
        cpu: processors that it keeps busy, where it runs on this machine.
    """

    name: str
    kind: str
    state: str
    pid: int
    node: str
    restarts: int
    memory_mb: float | None = None
    cpu: float | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An application of Ray Serve; `replicas` counts them by state, for each deployment."""

    name: str
    status: str
    route: str | None
    url: str
    deployments: dict[str, str]
    replicas: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Sight:
    """All that is seen of a cluster."""

    dashboard: str
    ray_version: str
    nodes: tuple[Node, ...]
    jobs: tuple[Job, ...]
    actors: tuple[Actor, ...]
    endpoints: tuple[Endpoint, ...]
    figures: tuple[Figure, ...]
