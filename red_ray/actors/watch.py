"""What runs on a cluster, from Ray's state and metrics; nothing is started or joined for it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from ray.util.state import list_actors, list_nodes
from ray.util.state.exception import RayStateApiException

from red_ray.actors.reach import JOIN_OWN, check_reachable
from red_ray.actors.scrape import living, scrape
from red_ray.actors.sight import ENDED, Actor, Endpoint, Job, Node, Sight
from red_ray.errors import RunError, last_line

MOST = 10_000
"""Actors and nodes that are asked for; as many as Ray's own limit lets through."""

N_FAILED = 3
"""Failed jobs, the newest ones, whose last words are asked for."""

LOOK_S = 0.3
"""Over which an actor's share of a processor is measured."""

STOP_S = 90.0
POLL_S = 0.2

_WITHIN_JOBS = ("JobSupervisor",)
"""Actors of Ray's that are no more than the job which they run."""

_SERVE_ROLES = {
    "ServeController": "serve: controller",
    "ProxyActor": "serve: proxy",
    "HAProxyManager": "serve: HAProxy",
}


class Cluster:
    """Looks at the cluster that RAY_API_SERVER_ADDRESS or RAY_ADDRESS names.

    Raises:
        ConfigError: RAY_ADDRESS is no address.
        RunError: in each method, where it cannot be reached.
    """

    def __init__(self) -> None:
        if not os.environ.get("RAY_API_SERVER_ADDRESS"):
            check_reachable()
        with _told():
            self._client = JobSubmissionClient()
        self.dashboard = self._client.get_address()

    def sight(self) -> Sight:
        """All that is there now."""
        with _told():
            nodes = list_nodes(limit=MOST, raise_on_missing_output=False)
            names = {one.node_id: one for one in nodes}
            found = list_actors(
                limit=MOST,
                detail=True,
                filters=[("state", "!=", "DEAD")],
                raise_on_missing_output=False,
            )
            kinds = [one.class_name for one in found]
            return Sight(
                dashboard=self.dashboard,
                ray_version=self._get("/api/version").get("ray_version", ""),
                nodes=tuple(_node(one) for one in nodes),
                jobs=self._jobs(),
                actors=_measured([_actor(one, names) for one in found], _here(names)),
                endpoints=self._endpoints(kinds),
                figures=tuple(living(scrape(self._targets()), kinds)),
            )

    def busy(self) -> list[str]:
        """What runs, a phrase for each; empty where the cluster is idle."""
        with _told():
            jobs = [job for job in self._jobs() if not job.is_over]
            endpoints = self._endpoints(self._kinds())
        told = [
            f"the job {job.id} runs" if job.is_submitted else f"a command (job {job.id}) runs"
            for job in jobs
        ]
        return told + [f"the endpoint {one.name!r} answers" for one in endpoints]

    def stop_jobs(self) -> list[str]:
        """Stop the submitted jobs as `ray job stop` does, and wait; those that did not end."""
        with _told():
            ids = [job.id for job in self._jobs() if job.is_submitted and not job.is_over]
            for job in ids:
                self._client.stop_job(job)
            end = time.monotonic() + STOP_S
            while ids and time.monotonic() < end:
                ids = [i for i in ids if not self._client.get_job_status(i).is_terminal()]
                time.sleep(POLL_S)
        return ids

    def end_endpoints(self) -> list[str]:
        """End all that Ray Serve runs, with whatever it started, and wait; names of what ended.

        Raises:
            RunError: it did not end in time.
        """
        with _told():
            kinds = self._kinds()
            if "ServeController" not in kinds:
                return []
            names = [one.name for one in self._endpoints(kinds)]
            client: Any = ServeSubmissionClient(self.dashboard)
            client.delete_applications()
            end = time.monotonic() + STOP_S
            while "ServeController" in self._kinds():
                if time.monotonic() > end:
                    raise RunError(f"the endpoint did not end within {STOP_S:.0f} s; try again")
                time.sleep(POLL_S)
        return names

    def _kinds(self) -> list[str]:
        """Classes of the actors that are alive."""
        alive = list_actors(filters=[("state", "=", "ALIVE")], limit=MOST)
        return [one.class_name for one in alive]

    def _jobs(self) -> tuple[Job, ...]:
        """The jobs, the newest first."""
        found = self._client.list_jobs()
        newest = sorted(found, key=lambda one: one.start_time or 0, reverse=True)
        failed = [one.submission_id for one in newest if one.status == JobStatus.FAILED]
        return tuple(self._job(one, failed[:N_FAILED]) for one in newest)

    def _job(self, one: JobDetails, failed: list[str | None]) -> Job:
        is_submitted = one.submission_id is not None
        status = JobStatus(one.status)
        log = ""
        if is_submitted and (not status.is_terminal() or one.submission_id in failed):
            with suppress(RuntimeError):  # none is there before it begins
                log = self._client.get_job_logs(str(one.submission_id))
        return Job(
            id=one.submission_id or one.job_id or "",
            is_submitted=is_submitted,
            status=status.value if is_submitted or not status.is_terminal() else ENDED,
            entrypoint=one.entrypoint,
            start_s=one.start_time / 1000 if one.start_time else None,
            end_s=one.end_time / 1000 if one.end_time else None,
            said=last_line(log, " ").strip(),
            exit_code=one.driver_exit_code,
        )

    def _endpoints(self, kinds: list[str]) -> tuple[Endpoint, ...]:
        # Where no controller is, the first question costs the dashboard eight seconds.
        if "ServeController" not in kinds:
            return ()
        details = ServeSubmissionClient(self.dashboard).get_serve_details()
        options = details.get("http_options") or {}
        url = f"http://{options.get('host', '')}:{options.get('port', '')}"
        applications = details.get("applications", {}).items()
        return tuple(_endpoint(name, one, url) for name, one in applications)

    def _targets(self) -> list[str]:
        found = self._get("/api/prometheus/sd")
        return [target for group in found for target in group["targets"]]

    def _get(self, path: str) -> Any:
        answer = httpx.get(self.dashboard + path, headers=_headers(), timeout=10, trust_env=False)
        return answer.raise_for_status().json()


def _headers() -> dict[str, str]:
    token, path = os.environ.get("RAY_AUTH_TOKEN"), os.environ.get("RAY_AUTH_TOKEN_PATH")
    if os.environ.get("RAY_AUTH_MODE") != "token" or not (token or path):
        return {}
    return {"Authorization": f"Bearer {token or Path(str(path)).read_text('utf-8').strip()}"}


@contextmanager
def _told() -> Iterator[None]:
    """Translate what can go wrong on the way."""
    try:
        yield
    except AuthenticationError as error:
        raise RunError(
            f"the cluster asks for another token than this shell has: `{JOIN_OWN}` sets that of "
            "the head of `red-ray up`; for another cluster set RAY_AUTH_MODE=token and its file in "
            "RAY_AUTH_TOKEN_PATH"
        ) from error
    except (
        RayStateApiException,
        RayError,
        RuntimeError,
        ConnectionError,
        OSError,
        ValueError,
        httpx.HTTPError,
    ) as error:
        where = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
        raise RunError(f"the cluster at {where} does not answer: {last_line(error)}") from error


def _node(one: Any) -> Node:
    has = one.resources_total
    return Node(
        name=one.node_name,
        ip=one.node_ip,
        state=one.state,
        is_head=one.is_head_node,
        cpus=has.get("CPU", 0.0),
        gpus=has.get("GPU", 0.0),
        memory_gb=round(_gigabytes(has.get("memory", 0)), 1),
    )


def _gigabytes(size: Any) -> float:
    """Ray tells sizes to people, as `15.046 GiB`."""
    if not isinstance(size, str):
        return float(size) / 2**30
    number, _, unit = size.partition(" ")
    return float(number) / {"GiB": 1, "MiB": 2**10, "KiB": 2**20}.get(unit, 2**30)


def _actor(one: Any, nodes: dict[str, Any]) -> Actor:
    return Actor(
        name=_name(one),
        kind=one.class_name,
        state=one.state,
        pid=int(one.pid or 0),
        node=nodes[one.node_id].node_name if one.node_id in nodes else "",
        restarts=int(one.num_restarts or 0),
    )


def _name(one: Any) -> str:
    """What people call an actor; Serve's own names hold ids."""
    kind = one.class_name
    if kind.startswith("ServeReplica:"):
        return f"serve: replica of {kind.rpartition(':')[2]}"
    return str(_SERVE_ROLES.get(kind) or one.name or kind)


def _here(nodes: dict[str, Any]) -> set[str]:
    """Names of the nodes that are this machine."""
    addresses = {one.address for found in psutil.net_if_addrs().values() for one in found}
    return {one.node_name for one in nodes.values() if one.node_ip in addresses}


def _measured(actors: list[Actor], here: set[str]) -> tuple[Actor, ...]:
    """The actors but those within jobs, with memory and load where their process is in reach."""
    shown = [one for one in actors if one.kind not in _WITHIN_JOBS]
    processes = {one.pid: _process(one.pid) for one in shown if one.node in here}
    before = {pid: _busy_s(process) for pid, process in processes.items()}
    start = time.monotonic()
    if any(processes.values()):
        time.sleep(LOOK_S)
    seconds = time.monotonic() - start
    found = []
    for one in shown:
        process = processes.get(one.pid)
        used, after = before.get(one.pid), _busy_s(process)
        if process is not None and used is not None and after is not None:
            one = replace(
                one, memory_mb=_memory_mb(process), cpu=round((after - used) / seconds, 2)
            )
        found.append(one)
    return tuple(sorted(found, key=lambda one: (one.kind, one.name)))


def _process(pid: int) -> psutil.Process | None:
    """The process of an actor; None where the number is that of something else here."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if (process.cmdline() or [""])[0].startswith("ray::"):
            return process
    return None


def _busy_s(process: psutil.Process | None) -> float | None:
    if process is None:
        return None
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return None


def _memory_mb(process: psutil.Process) -> float | None:
    with suppress(psutil.Error):
        return round(float(process.memory_full_info().uss) / 2**20, 1)
    return None


def _endpoint(name: str, one: dict[str, Any], url: str) -> Endpoint:
    deployments = one.get("deployments", {})
    replicas: dict[str, dict[str, int]] = {}
    for deployment, details in deployments.items():
        counts = replicas.setdefault(deployment, {})
        for replica in details.get("replicas", []):
            counts[replica["state"]] = counts.get(replica["state"], 0) + 1
    route = one.get("route_prefix")
    return Endpoint(
        name=name,
        status=one["status"],
        route=route,
        url=url + (route or ""),
        deployments={key: details["status"] for key, details in deployments.items()},
        replicas=replicas,
    )
