"""Where the endpoint is, and who asks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from red_ray.errors import ConfigError

URL_VARIABLE, TOKEN_VARIABLE = "RED_RAY_URL", "RED_RAY_TOKEN"
DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint's base URL, and the headers that every request carries."""

    url: str
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def find(
        cls, url: str | None, token: str | None, environ: Mapping[str, str] | None = None
    ) -> Address:
        """From arguments, else from RED_RAY_URL and RED_RAY_TOKEN.

        Raises:
            ConfigError: no such URL or token can be.
        """
        known = os.environ if environ is None else environ
        token = token or known.get(TOKEN_VARIABLE)
        return cls(
            _checked_url(url or known.get(URL_VARIABLE) or DEFAULT_URL),
            {"Authorization": f"Bearer {_checked_token(token)}"} if token else {},
        )


def _checked_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(
            f"base_url (or {URL_VARIABLE}) {url!r} is no address; give one such as {DEFAULT_URL}"
        )
    if parsed.userinfo:
        raise ConfigError(
            f"base_url (or {URL_VARIABLE}) holds a user or a password, which messages would show; "
            f"give a token in {TOKEN_VARIABLE} instead"
        )
    if parsed.path.rstrip("/").endswith("/v1"):
        raise ConfigError(
            f"base_url (or {URL_VARIABLE}) {url!r} is where the API begins; leave its /v1 out"
        )
    return url


def _checked_token(token: str) -> str:
    """Checked here, as the HTTP library would show it in its error."""
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"the token (or {TOKEN_VARIABLE}) holds a space, a line end or a character outside "
            "ASCII; give it as the endpoint's operator did"
        )
    return token
