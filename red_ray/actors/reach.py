"""Whether RAY_ADDRESS names a place that can be reached; Ray is not imported."""

from __future__ import annotations

import os
import re
import socket

from red_ray.errors import ConfigError, RunError

REACH_S = 5.0
"""How long a connection may take; Ray itself tries for most of a minute, without a word."""

JOIN_OWN = 'eval "$(red-ray up --export)"'
"""What lets a shell join the head of this machine: its address and its token."""

_BY_RAY = ("auto", "local")
"""Words for which Ray looks itself."""

_ADDRESS = re.compile(
    r"(?:(?P<scheme>ray|https?)://)?(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:/\s\[\]]+))"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
_PORTS = {"ray": 10001, "http": 80, "https": 443}


def check_address() -> None:
    """Refuse a RAY_ADDRESS that is none; without one all is well.

    Raises:
        ConfigError: it is no address.
    """
    _place_of(os.environ.get("RAY_ADDRESS", ""))


def check_reachable() -> None:
    """Look whether anybody listens where RAY_ADDRESS says; without one all is well.

    Raises:
        ConfigError: it is no address.
        RunError: nobody listens there.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    place = _place_of(address)
    if place is None:
        return
    try:
        socket.create_connection(place, timeout=REACH_S).close()
    except OSError as error:
        raise RunError(
            f"no Ray cluster answers at RAY_ADDRESS={address!r} ({error.strerror or error}): start "
            f"it, set another address (`{JOIN_OWN}` for the head of `red-ray up`), or unset "
            "RAY_ADDRESS and RAY_API_SERVER_ADDRESS"
        ) from error


def _place_of(address: str) -> tuple[str, int] | None:
    """Host and port; None where there is no address, or Ray finds them itself."""
    if not address or address in _BY_RAY:
        return None
    found = _ADDRESS.fullmatch(address)
    port = int(found["port"] or _PORTS.get(found["scheme"] or "", 0)) if found else 0
    if found is None or not 0 < port < 2**16:
        raise ConfigError(
            f"RAY_ADDRESS={address!r} is no address of a Ray cluster: set it as 127.0.0.1:6379 or "
            f"ray://host:10001, or unset it (`{JOIN_OWN}` sets that of the head of `red-ray up`)"
        )
    return found["six"] or found["host"], port
