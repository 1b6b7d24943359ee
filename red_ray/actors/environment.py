"""What Ray must find in the environment before it is imported."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from red_ray.errors import OutputError

TOKEN_FILE = "auth_token"

_LOCAL_SETTINGS = {
    # Makes Ray bind its ports to 127.0.0.1 on Linux too; undocumented there, so a test holds it.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    # Zero GPUs asked for hides them from a worker: today's behaviour, without the notice of it.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def prepare_environment() -> None:
    """Set up a cluster of this machine: loopback, token authentication, no usage statistics.

    Call it before the first import of Ray, which reads its settings then. A cluster that is
    joined by RAY_ADDRESS has its own settings, and what the user has set wins.

    Raises:
        OutputError: the token file cannot be written.
    """
    if os.environ.get("RAY_ADDRESS"):
        return
    for name, value in _LOCAL_SETTINGS.items():
        os.environ.setdefault(name, value)
    if "RAY_AUTH_TOKEN" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN_PATH", str(_token_file()))


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
