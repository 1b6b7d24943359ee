"""`red-ray down`: ends the head that `red-ray up` started."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from red_ray.cli.console import Output, guarded
from red_ray.cli.options import Json
from red_ray.cli.status import name_cluster
from red_ray.errors import ConfigError, RunError

if TYPE_CHECKING:
    from red_ray.actors.head import Head, HeadFolder


def down(
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also where something runs: jobs are stopped first, commands that joined cut off.",
        ),
    ] = False,
    endpoint: Annotated[
        bool,
        typer.Option(
            "--endpoint",
            help="Only the endpoint that `red-ray status` shows, as one whose command was killed.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """End the head that `red-ray up` started, and nothing else.

    Refused while jobs run on it or an endpoint answers there. Other Rays of this machine go on.
    """
    output = Output(as_json=as_json)
    if endpoint:
        _end_endpoint(output)
        return
    with guarded(output, stopped="stopped; `red-ray down` again makes sure that nothing is left"):
        from red_ray.actors.head import HeadFolder

        folder = HeadFolder()
        with folder.alone():
            head = folder.read()
            n_killed = _end(output, folder, head, force=force) if head else 0
        output.result({"ended": head is not None, "killed": n_killed, "logs": str(folder.jobs)})
        if head is None:
            output.note("no head is up on this machine")
        elif not as_json:
            output.out.print(
                f"the head with pid {head.pid} has ended; logs of its jobs are in {folder.jobs}",
                highlight=False,
                soft_wrap=True,
            )


def _end_endpoint(output: Output) -> None:
    """End what answers on the cluster that `red-ray status` is of; all else on it goes on."""
    with guarded(output, stopped="stopped; `red-ray status` shows whether it is down"):
        from red_ray.actors.head import HeadFolder
        from red_ray.actors.reach import check_address

        check_address()
        head = HeadFolder().read()
        if not name_cluster(head):
            raise ConfigError("no head is up on this machine, and RAY_ADDRESS names no cluster")
        from red_ray.actors.watch import Cluster

        with output.err.status("ending the endpoint"):
            ended = Cluster().end_endpoints()
        output.result({"ended": ended})
        if not ended:
            output.note("no endpoint is up there")
        elif not output.as_json:
            output.out.print("the endpoint is down; its processors are free", highlight=False)


def _end(output: Output, folder: HeadFolder, head: Head, *, force: bool) -> int:
    from red_ray.actors.head import end_head

    if head.is_alive:
        _make_idle(output, head, force=force)
    else:
        output.note(f"the head with pid {head.pid} had died; what it left is cleaned up")
    with output.err.status("ending Ray"):
        return end_head(folder, head)


def _make_idle(output: Output, head: Head, *, force: bool) -> None:
    """See that nothing runs there.

    Raises:
        ConfigError: something does, and may not be stopped.
    """
    os.environ.update(head.variables())
    from red_ray.actors.watch import Cluster

    try:
        cluster = Cluster()
        busy = cluster.busy()
        if busy and not force:
            raise ConfigError(
                f"{', '.join(busy)} on it: wait, stop a job by `ray job stop ID` and an endpoint "
                "by Ctrl-C or `red-ray down --endpoint`, or add --force, which stops jobs first "
                "and cuts off the rest (what was paid for is kept)"
            )
        with output.err.status("stopping what runs there"):
            left = cluster.stop_jobs()
        if left:
            output.note(f"jobs that did not end in time are cut off: {', '.join(left)}")
    except RunError as error:
        if not force:
            raise RunError(
                f"cannot see whether jobs run on it ({error}); --force ends it all the same"
            ) from error
