"""Joins a Ray cluster, or starts one on this machine that only this machine can reach."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from red_ray.actors.logs import job_config
from red_ray.actors.reach import JOIN_OWN, check_reachable
from red_ray.errors import RedRayError, RunError, last_line


@contextmanager
def ray_session(*, num_cpus: int | None = None, dashboard: bool = False) -> Iterator[str]:
    """Be connected to Ray for a while; yields the dashboard's address, empty without one.

    Inside a submitted job, or where RAY_ADDRESS names a cluster, that one is joined and left
    running. Else one is started on this machine, as `prepare_environment` set it up, and ended
    afterwards.
    A process that is connected already stays so.

    Args:
        num_cpus: logical processors of a cluster that is started here; None for all.
        dashboard: whether a cluster that is started here has one.
    """
    if ray.is_initialized():
        yield ""
        return
    context = _join() if os.environ.get("RAY_ADDRESS") else _start(num_cpus, dashboard)
    try:
        url = getattr(context, "dashboard_url", "") or ""
        yield f"http://{url}" if url else ""
    finally:
        ray.shutdown()


def _join() -> object:
    check_reachable()
    try:
        return ray.init(log_to_driver=False, logging_level=logging.WARNING, job_config=job_config())
    except AuthenticationError as error:
        raise RunError(
            f"the Ray cluster at {os.environ['RAY_ADDRESS']!r} asks for another token than this "
            f"shell has: `{JOIN_OWN}` sets that of the head of `red-ray up`; for another cluster "
            "set RAY_AUTH_MODE=token and its file in RAY_AUTH_TOKEN_PATH"
        ) from error
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise RunError(
            f"cannot join the Ray cluster at {os.environ['RAY_ADDRESS']!r} ({last_line(error)}); "
            "start it, or unset RAY_ADDRESS"
        ) from error


def _start(num_cpus: int | None, dashboard: bool) -> object:
    try:
        return ray.init(
            "local",  # else any head on this machine that Ray finds would be joined
            num_cpus=num_cpus,
            include_dashboard=dashboard,
            job_config=job_config(),
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except Exception as error:  # a node that is slow to start has no narrower class
        raise RunError(
            f"Ray did not start ({last_line(error)}); is the machine busy? try again"
        ) from error


@dataclass(frozen=True, slots=True)
class Room:
    """What a cluster has: machines, logical processors, cards, and free memory in bytes."""

    n_nodes: int
    n_cpus: float
    n_gpus: int
    free_bytes: float


def room() -> Room:
    """What the cluster that this process is connected to has."""
    api: Any = ray
    return Room(
        n_nodes=sum(bool(node["Alive"]) for node in api.nodes()),
        n_cpus=api.cluster_resources().get("CPU", 1.0),
        n_gpus=int(api.cluster_resources().get("GPU", 0.0)),
        free_bytes=api.available_resources().get("memory", 0.0),
    )


def free_cpus() -> float:
    """Logical processors of the cluster that nobody claims now."""
    api: Any = ray
    return float(api.available_resources().get("CPU", 0.0))


def on_this_node(*, must: bool) -> object:
    """Where an actor is placed: on the machine of this process, which lives as long as the run.

    Args:
        must: whether no other machine will do, should this one be lost.
    """
    node = str(ray.get_runtime_context().get_node_id())
    return NodeAffinitySchedulingStrategy(node, soft=not must)


def start_actor(kind: type, *args: Any, **options: Any) -> Any:
    """Make a plain class an actor; its handle is as untyped as Ray leaves it."""
    remote: Any = ray.remote(kind)
    return remote.options(**options).remote(*args)


def fetch(reference: Any) -> Any:
    """Wait for a result, or a list of them."""
    return ray.get(reference)


def cause_of(error: RayError) -> RedRayError:
    """The error of ours that a worker of a run raised; or that one died, and how to go on."""
    if (ours := raised_by_worker(error)) is not None:
        return ours
    died = next((one for one in _wrapped(error) if isinstance(one, RayActorError)), None)
    if died is None:
        return RunError(f"a worker of the run failed: {last_line(error)}")
    return RunError(
        f"a worker of the run died ({last_line(died)}); what was paid for is kept: "
        "`red-ray resume` goes on from there"
    )


def raised_by_worker(error: BaseException) -> RedRayError | None:
    """The error of ours that a worker raised, however deep Ray wrapped it, if there is one."""
    for one in _wrapped(error):
        if isinstance(one, RedRayError) and not isinstance(one, RayTaskError):
            return one
    return None


def _wrapped(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised for, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = getattr(cause, "cause", None) or cause.__cause__
