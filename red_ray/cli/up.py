"""`red-ray up`: a head of Ray on this machine, for jobs and for commands that join it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from red_ray.cli.console import Output, guarded
from red_ray.cli.options import Json
from red_ray.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from red_ray.actors.head import Head, HeadFolder


def up(
    port: Annotated[
        int | None,
        typer.Option(
            min=1024,
            max=65535,
            help="Where its dashboard listens.  [default: 8265, or a free one where that is taken]",
        ),
    ] = None,
    num_cpus: Annotated[
        int | None,
        typer.Option(min=1, help="Logical processors.  [default: those of the machine]"),
    ] = None,
    export: Annotated[
        bool,
        typer.Option(
            "--export", help='Print shell lines alone, for eval "$(red-ray up --export)".'
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Start a Ray head that only this machine reaches; one that is up already stays.

    Jobs sent to it by `ray job submit` find red-ray. Any other command runs on it
    only where RAY_ADDRESS names it, as after eval "$(red-ray up --export)"; else
    it starts a Ray of its own. A judge's key, as OPENAI_API_KEY, must be set here
    for jobs to have it.
    """
    output = Output(as_json=as_json)
    with guarded(output, stopped="stopped; no head was started"):
        if export and as_json:
            raise ConfigError("--export and --json both want stdout; leave one out")
        from red_ray.actors.head import HeadFolder

        folder = HeadFolder()
        with folder.alone():
            head, is_new = _head(output, folder, port, num_cpus)
        facts = {"new": is_new, "pid": head.pid, "log": head.log, "num_cpus": head.n_cpus}
        facts |= {"address": head.address, "dashboard": head.dashboard}
        output.result(facts | {"variables": head.variables()})
        if export:
            typer.echo("\n".join(_exports(head)))
        elif not as_json:
            _print(output, head, is_new=is_new)


def _head(
    output: Output, folder: HeadFolder, port: int | None, num_cpus: int | None
) -> tuple[Head, bool]:
    """The head that is up now, and whether it was started for this."""
    from red_ray.actors.head import end_head, start_head

    head = folder.read()
    if head is not None and head.is_alive:
        _tell_what_differs(output, head, port, num_cpus)
        return head, False
    if head is not None:
        end_head(folder, head)
        output.note(f"the head with pid {head.pid} had died; what it left is cleaned up")
    chosen = _port(output, port)
    with output.err.status("starting Ray"):
        return start_head(folder, port=chosen, n_cpus=num_cpus), True


def _tell_what_differs(output: Output, head: Head, port: int | None, num_cpus: int | None) -> None:
    other_port = port is not None and not head.dashboard.endswith(f":{port}")
    if other_port or num_cpus not in (None, head.n_cpus):
        output.note("a head is up already, and keeps its settings: `red-ray down` ends it")


def _port(output: Output, port: int | None) -> int:
    from red_ray.actors.head import DASHBOARD_PORT, free_port, is_free

    if port is not None and not is_free(port):
        raise OutputError(f"port {port} is taken on this machine; take another --port")
    if port is not None or is_free(DASHBOARD_PORT):
        return port or DASHBOARD_PORT
    chosen = free_port()
    output.note(f"port {DASHBOARD_PORT} is taken; the dashboard listens at {chosen}")
    return chosen


def _exports(head: Head) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in head.variables().items()]


def _print(output: Output, head: Head, *, is_new: bool) -> None:
    out = output.out
    token = head.token_file or "RAY_AUTH_TOKEN"
    lines = (
        f"[bold]{head.dashboard}[/]   {'Ray is up' if is_new else 'Ray is up already'}, for this "
        f"machine alone (pid {head.pid})",
        f"[dim]its page asks once for the token in {token}[/]",
        "",
        "To send jobs to it, and to run commands on it, from a shell:",
        "",
        '    [bold]eval "$(red-ray up --export)"[/]   or',
        "",
        *(f"    [dim]{line}[/]" for line in _exports(head)),
        "",
        "    ray job submit --working-dir . -- red-ray train … --out /an/absolute/path",
        "",
        "`red-ray status` shows what runs there, `red-ray down` ends it",
    )
    for line in lines:
        out.print(line, soft_wrap=True, highlight=False)
