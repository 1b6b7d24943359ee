"""`red-ray serve`: a trained run over HTTP, on Ray Serve."""

from __future__ import annotations

import importlib
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from red_ray import errors
from red_ray.address import is_address, shown
from red_ray.cli.console import Output, catch_sigterm, guarded
from red_ray.cli.options import ConfigFile, Dashboard, Json, RunPath, Set, overrides_of
from red_ray.errors import OutputError, RedRayError, RunError, last_line
from red_ray.run_folder import RunFolder

if TYPE_CHECKING:
    from red_ray.model import RedModel
    from serve.settings import ServeSettings

LOOK_S = 1.0
"""Between two looks whether the endpoint is still there."""

USUAL_S = 20.0
"""A start that takes no longer is told nothing of, unless it waits for what may never come."""

START_S = 300.0
"""How long it may take to start; on two processors at load 14 it took 70 to 130 s."""

_LIVE = ("DEPLOYING", "RUNNING", "UNHEALTHY")
"""States of an application that somebody has on the cluster."""

SHORT = 17
"""Characters of a folder for temporary files in which there is room for a socket of HAProxy: its
path may have 97, and Ray adds 68 to the name of the folder that it is given."""

ANSWER_S = 60.0
"""How long a call may take beside the waits that are set."""


def serve(
    run: RunPath,
    host: Annotated[
        str, typer.Option(help="Where to listen; beyond this machine only with tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 8000,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Processes that answer.  [default: processors]")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Whom to ask about escalated texts in place of the run's judge; off: nobody.",
            metavar="SPEC",
        ),
    ] = None,
    config: ConfigFile = None,
    assignments: Set = None,
    plain_proxy: Annotated[
        bool, typer.Option("--plain-proxy", help="Ray's own proxy in place of HAProxy.")
    ] = False,
    dashboard: Dashboard = False,
    as_json: Json = False,
) -> None:
    """Answer over HTTP, with a page at /; Ctrl-C ends it. A new bundle in RUN is taken over.

    Tokens that may call stand in the environment variable RED_RAY_TOKENS.
    """
    output = Output(as_json=as_json)
    stopped = "stopped; no endpoint was started"
    with (
        guarded(output, stopped=lambda: stopped),
        tempfile.TemporaryDirectory(prefix="rr-", dir=_short_place()) as own,
    ):
        settings = _settings(run, judge, config, assignments)
        model = _checked(settings, host, port)
        n_replicas = replicas or _processors() // settings.threads or 1
        # Before Ray is imported: it reads its settings then.
        from red_ray.actors.environment import prepare_environment, prepare_serving

        prepare_environment()
        is_haproxy = prepare_serving(Path(own), _free_ports(), plain=plain_proxy)
        with _deployed(output, settings, host, port, n_replicas, dashboard=dashboard) as check:
            stopped = "the endpoint is down; what judge and people said is in the ledger"
            url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            facts = {
                "url": url,
                "bundle": model.bundle_id,
                "replicas": n_replicas,
                "layout": settings.layout,
                "proxy": "haproxy" if is_haproxy else "plain",
                "judge": _judge_of(settings),
                "pid": os.getpid(),
            }
            output.result(facts)
            if not as_json:
                _print(output, run, facts, model)
            _stay(check)


def _stay(check: Callable[[], None]) -> None:
    """Look now and then whether the endpoint is there, until it is stopped."""
    while True:
        time.sleep(LOOK_S)
        check()


def _short_place() -> str | None:
    """Where HAProxy's folder goes: the usual place, unless its name is too long for a socket's."""
    return None if len(tempfile.gettempdir()) <= SHORT else "/tmp"


def _settings(
    run: str, judge: str | None, file: Path | None, assignments: list[str] | None
) -> ServeSettings:
    from red_ray.config import merge, read_yaml
    from serve.settings import parse_settings

    place = run if is_address(run) else str(Path(run).absolute())
    given = overrides_of(assignments, {"run": place, "judge.spec": judge})
    return parse_settings(merge(read_yaml(file) if file else {}, given))


def _checked(settings: ServeSettings, host: str, port: int) -> RedModel:
    """Find what cannot work before Ray is started."""
    from red_ray.bundle import load_bundle
    from red_ray.encoding.files import find_model
    from red_ray.escalation import judge_of
    from serve.desk import truth_for
    from serve.gate import check_is_loopback, tokens_of_environment
    from serve.loaded import check_can_keep, judged, run_at

    if not tokens_of_environment():
        check_is_loopback(host)
    _check_is_free(host, port)
    folder = RunFolder.open(run_at(settings.run).path)
    model = load_bundle(folder.bundle)
    find_model(model.config.encoder.model, model.config.encoder.revision)
    config = judged(folder, settings)
    check_can_keep(settings.run, config)
    if config.judge.spec is not None:
        judge_of(config, model, truth_for(config, model, settings))
    return model


def _judge_of(settings: ServeSettings) -> str | None:
    from serve.loaded import judged, run_at

    return judged(run_at(settings.run), settings).judge.spec


@contextmanager
def _deployed(
    output: Output,
    settings: ServeSettings,
    host: str,
    port: int,
    replicas: int,
    *,
    dashboard: bool,
) -> Iterator[Callable[[], None]]:
    """The endpoint on Ray while the block runs; yields a function that looks whether it is there.

    Raises:
        RedRayError: it did not start, or another one is there.
    """
    import ray.serve

    from red_ray.actors.cluster import ray_session
    from serve.deployments import APP, application

    n_shards = settings.shards if settings.layout == "sharded" else 0
    n_cpus = replicas * settings.threads + n_shards
    waits_s = settings.limits.wait_s + settings.judge.wait_s
    ray_serve: Any = ray.serve
    with _apart(), _closed_in_silence() as stack:
        with output.doing("starting Ray and the endpoint") as tell:
            stack.enter_context(ray_session(num_cpus=n_cpus, dashboard=dashboard))
            _silence()
            catch_sigterm()
            clear_the_way(ray_serve)
            stack.callback(_end, ray_serve, APP)
            with _telling_why(ray_serve, APP):
                options = {"host": host, "port": port, "request_timeout_s": ANSWER_S + waits_s}
                logs = {"encoding": "JSON", "log_level": "WARNING", "enable_access_log": False}
                ray_serve.start(http_options=options, logging_config=logs)
                deployments = application(settings, replicas=replicas, starts=1)
                come_up(ray_serve, deployments, APP, tell)
        yield lambda: _check_is_there(ray_serve, APP)


@contextmanager
def _closed_in_silence() -> Iterator[ExitStack]:
    """A stack at whose end nothing is printed: Ray tells on stdout that Serve's controller ends."""
    stack = ExitStack()
    try:
        yield stack
    finally:
        with redirect_stdout(StringIO()):
            stack.close()


def clear_the_way(ray_serve: Any) -> None:
    """See that no other endpoint is on the cluster: it has one proxy, at one port.

    What an earlier one left without an application is ended: it would keep its own port.

    Raises:
        OutputError: one is.
    """
    status = ray_serve.status()
    there = [name for name, one in status.applications.items() if one.status in _LIVE]
    if there:
        raise OutputError(
            f"an endpoint ({', '.join(there)}) is on this cluster already, {_where()}: stop its "
            "`red-ray serve`, or, where that is gone, end it by `red-ray down --endpoint`; or "
            "unset RAY_ADDRESS to serve beside the cluster"
        )
    if status.proxies:
        ray_serve.shutdown()


def _where() -> str:
    from ray.serve.context import _get_global_client  # no public call tells it

    client = _get_global_client(raise_if_no_controller_running=False)
    return (
        f"at http://{client.http_config.host}:{client.http_config.port}" if client else "starting"
    )


@contextmanager
def _telling_why(ray_serve: Any, app: str) -> Iterator[None]:
    """Turn what Serve says where an application fails into one line."""
    from ray.exceptions import RayError

    try:
        yield
    except (RuntimeError, RayError) as error:
        raise _told_by(f"{error}\n{_why(ray_serve, app)}") from error


def come_up(
    ray_serve: Any,
    deployments: Any,
    app: str,
    tell: Callable[[str], None],
    *,
    limit_s: float = START_S,
) -> None:
    """Deploy an application and wait until it answers, telling what it waits for.

    On a thread, since Serve waits for ever where a replica finds no processor; it ends with the
    application.

    Raises:
        RunError: it did not come up in time.
        Exception: whatever Serve raised.
    """
    done: Future[None] = Future()

    def deploy() -> None:
        try:
            ray_serve.run(deployments, name=app, route_prefix="/")
            done.set_result(None)
        except Exception as error:  # noqa: BLE001 (raised again where it is waited for)
            done.set_exception(error)

    begun_s = time.monotonic()
    threading.Thread(target=deploy, name="deploy", daemon=True).start()
    while not wait([done], timeout=LOOK_S).done:
        seconds = time.monotonic() - begun_s
        why = _waits_for(ray_serve, app)
        if why or seconds >= USUAL_S:
            tell(f"starting the endpoint, for {seconds:.0f} s{why}")
        if seconds > limit_s:
            raise RunError(f"the endpoint did not come up within {limit_s:.0f} s{why}")
    done.result()


def _waits_for(ray_serve: Any, app: str) -> str:
    """What an application waits for that does not come up: processors, or its own start."""
    if "to be scheduled" not in _why(ray_serve, app):
        return ""
    from red_ray.actors.cluster import free_cpus, room

    return (
        f": replicas wait for processors, and {free_cpus():g} of the {room().n_cpus:g} that the "
        "cluster has are free; wait for those who use them, or take fewer --replicas"
    )


def _end(ray_serve: Any, app: str) -> None:
    """Let the replicas finish what is under way; what else Serve started ends with Ray, or here.

    Not `serve.shutdown` at once: it kills the proxy first, and with it what is under way. And not
    in this thread: where Ray itself was ended, as by a signal to all processes of a service, the
    call would wait for it for a minute, and then end this process.
    """
    import ray

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    ending = threading.Thread(target=_delete, args=(ray_serve, app), daemon=True)
    ending.start()
    while ending.is_alive() and _listens(host.strip("[]"), int(port)):
        ending.join(LOOK_S / 4)


def _delete(ray_serve: Any, app: str) -> None:
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    # A second Ctrl-C ends Ray under it: then its parts are gone.
    with suppress(RayError, RayServeException, TimeoutError, AttributeError):
        ray_serve.delete(app)
        if os.environ.get("RAY_ADDRESS") and not ray_serve.status().applications:
            ray_serve.shutdown()  # the cluster stays, and with it would the proxy's port


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=LOOK_S):
            return True
    except OSError:
        return False


@contextmanager
def _apart() -> Iterator[None]:
    """Ray's processes, where it is started here, get process groups of their own.

    `timeout` and `kill %1` send SIGTERM to all of our group: Ray would be gone before the endpoint
    could be ended.
    """
    services: Any = importlib.import_module("ray._private.services")
    before = services.ConsolePopen
    services.ConsolePopen = partial(before, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = before


def _why(ray_serve: Any, app: str) -> str:
    """What Serve says of the deployments that do not come up; empty where it is gone itself."""
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    with suppress(RayError, RayServeException):
        status = ray_serve.status().applications.get(app)
        return "\n".join(one.message for one in status.deployments.values()) if status else ""
    return ""


def _told_by(text: str) -> RedRayError:
    """The error of ours that a replica raised, as Serve quotes it; else the last line of all."""
    told = re.findall(r"^(?:red_ray\.)?errors\.(\w+): (.+)$", text, re.MULTILINE)
    kind = getattr(errors, told[-1][0], None) if told else None
    if isinstance(kind, type) and issubclass(kind, RedRayError):
        return kind(f"the endpoint did not start: {told[-1][1]}")
    return RunError(f"the endpoint did not start: {last_line(text, 'Ray Serve says nothing')}")


def _check_is_there(ray_serve: Any, app: str) -> None:
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    ended = "the endpoint is there no more: something else ended it"
    try:
        status = ray_serve.status().applications.get(app)
    except (RayError, RayServeException) as error:
        raise RunError(f"{ended} ({last_line(error)})") from error
    if status is None:
        raise RunError(ended)


def _silence() -> None:
    """Serve tells of its steps through a logger of its own.

    For good: after a second Ctrl-C nobody waits for the thread that ends the endpoint, and it would
    find the logger talking again.
    """
    import logging

    logging.getLogger("ray.serve").setLevel(logging.ERROR)


def _check_is_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            gone = ", or end an endpoint whose command is gone by `red-ray down --endpoint`"
            raise OutputError(
                f"cannot listen on {host}:{port} ({error.strerror}); take another --port"
                + (gone if os.environ.get("RAY_ADDRESS") else "")
            ) from error


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _print(output: Output, run: str, facts: dict[str, Any], model: RedModel) -> None:
    out = output.out
    url, proxy = facts["url"], "HAProxy" if facts["proxy"] == "haproxy" else "Ray's proxy"
    count = f"{facts['replicas']} replica{'s' if facts['replicas'] != 1 else ''}"
    judge = facts["judge"] or "none"
    if model.thresholds.escalate is None:
        place = shown(run) if is_address(run) else run
        judge += f" (no goal, so nothing is escalated: `red-ray thresholds {place} --goal …`)"
    lines = (
        f"[bold]{url}[/]   the page; API at {url}/docs",
        f"bundle {facts['bundle'][:16]}…   {len(model.labels)} labels   {count}, "
        f"{facts['layout']}, behind {proxy}",
    )
    for line in lines:
        out.print(line, soft_wrap=True, highlight=False)
    out.print(f"judge {judge}", soft_wrap=True, highlight=False, markup=False)
    out.print("Ctrl-C ends it", style="dim")
