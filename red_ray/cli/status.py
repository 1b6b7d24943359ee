"""`red-ray status`: what runs on a cluster, without Prometheus and Grafana."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from red_ray.cli.console import Output, guarded
from red_ray.cli.options import Json
from red_ray.cli.show_status import show_status

if TYPE_CHECKING:
    from red_ray.actors.head import Head
    from red_ray.actors.sight import Sight

ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")


def status(as_json: Json = False) -> None:
    """Show jobs, actors, the loop, the judge's pool and the endpoint of a cluster.

    It is the one that RAY_ADDRESS names, else RAY_API_SERVER_ADDRESS, else the head that
    `red-ray up` started.
    """
    output = Output(as_json=as_json)
    with guarded(output, stopped="stopped"):
        from red_ray.actors.head import HeadFolder
        from red_ray.actors.reach import check_address

        check_address()
        head = HeadFolder().read()
        if not name_cluster(head):
            _tell_that_none_is_up(output, head)
            return
        with output.err.status("looking"):
            sight = _seen()
        ours = head if head is not None and head.dashboard == sight.dashboard else None
        output.result({"up": True, "pid": ours.pid if ours else None} | _as_json(sight))
        if not as_json:
            show_status(output.out, sight, ours, now_s=time.time())


def name_cluster(head: Head | None) -> bool:
    """Let the environment name one cluster; whether there is one to name.

    Args:
        head: of this machine: taken where nothing is named, if it is alive.
    """
    address, dashboard = (os.environ.get(one) for one in ADDRESSES)
    if address and (head is None or head.address != address):
        os.environ.pop("RAY_API_SERVER_ADDRESS", None)  # exported for another cluster, it would win
    elif address and head is not None:
        os.environ["RAY_API_SERVER_ADDRESS"] = head.dashboard
    elif not dashboard:
        if head is None or not head.is_alive:
            return False
        os.environ.update(head.variables())
    return True


def _seen() -> Sight:
    # Not before: Ray reads from the environment where the cluster is, and the token.
    from red_ray.actors.watch import Cluster

    return Cluster().sight()


def _as_json(sight: Sight) -> dict[str, Any]:
    return asdict(sight)


def _tell_that_none_is_up(output: Output, head: Head | None) -> None:
    output.result({"up": False})
    if head is not None:
        output.note(
            f"the head with pid {head.pid} has died (what it said last is in {head.log}); "
            "`red-ray up` cleans up and starts another one"
        )
    else:
        output.note("no head is up on this machine: `red-ray up` starts one")
