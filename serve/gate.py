"""What stands before the application: request ids, tokens, the size of a body."""

from __future__ import annotations

import hmac
import json
import os
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from red_ray.errors import ConfigError

Headers = Sequence[tuple[bytes, bytes]]
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKENS = "RED_RAY_TOKENS"
"""Environment variable: bearer tokens that may call, apart by spaces or commas."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")

MIN_TOKEN_CHARS = 16
"""Shorter ones can be guessed."""

OPEN = ("/", "/healthz", "/readyz", "/docs", "/openapi.json", "/favicon.ico")
"""What needs no token: it tells nothing of model or texts. So is everything under `/page/`."""

REQUEST_ID = "x-request-id"

_FINE_ID = re.compile(r"[\x21-\x7e]{1,128}")

_SECURITY = [
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


def tokens_of_environment() -> tuple[str, ...]:
    """The tokens that may call; none where none are set.

    Raises:
        ConfigError: one is too short.
    """
    found = tuple(re.split(r"[\s,]+", os.environ.get(TOKENS, "").strip()))
    tokens = tuple(token for token in found if token)
    for at, token in enumerate(tokens):
        if len(token) < MIN_TOKEN_CHARS:
            raise ConfigError(
                f"token {at + 1} in {TOKENS} has {len(token)} characters; take at least "
                f"{MIN_TOKEN_CHARS}, as `python -c 'import secrets; print(secrets.token_hex(32))'` "
                "gives"
            )
    return tokens


def check_is_loopback(host: str) -> None:
    """Refuse an address that other machines reach, where no token is asked for.

    Raises:
        ConfigError: it is one.
    """
    if host not in LOOPBACK:
        raise ConfigError(
            f"the endpoint would listen on {host!r}, where other machines can call it, and no "
            f"token is set: put some into {TOKENS}, apart by spaces, or listen on 127.0.0.1"
        )


class Gate:
    """ASGI: names each request, lets through who may call, and cuts off bodies that are too large.

    Args:
        app: what is behind it.
        tokens: who may call; none lets everybody through.
        body_bytes: the most that a body may have.
        tells_request_id: whether answers carry the request's id.
    """

    def __init__(
        self,
        app: App,
        *,
        tokens: Sequence[str] = (),
        body_bytes: int,
        tells_request_id: bool = True,
    ) -> None:
        self._app = app
        self._tokens = [token.encode() for token in tokens]
        self._body_bytes = body_bytes
        self._tells_request_id = tells_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        name = _request_id(headers)
        added = [(REQUEST_ID.encode(), name.encode())] if self._tells_request_id else []
        exchange = _Exchange(name, [*added, *_SECURITY], self._body_bytes, receive, send)
        scope.setdefault("state", {})["request_id"] = name
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await exchange.refuse(*refusal)
            return
        with suppress(_TooLargeError):  # or the application took it for a body it cannot read
            await self._app(scope, exchange.receive, exchange.send)
        if exchange.is_too_large:
            await exchange.refuse(413, _too_large("more", self._body_bytes))

    def _refusal(self, scope: Scope, headers: Mapping[bytes, bytes]) -> tuple[int, str] | None:
        if not self._may_call(scope["path"], headers):
            return 401, "a bearer token is needed: send the header `Authorization: Bearer TOKEN`"
        stated = headers.get(b"content-length", b"0")
        if not stated.isdigit():
            return 400, "the header Content-Length is no number"
        if int(stated) > self._body_bytes:
            return 413, _too_large(f"{int(stated):,} bytes", self._body_bytes)
        return None

    def _may_call(self, path: str, headers: Mapping[bytes, bytes]) -> bool:
        if not self._tokens or path in OPEN or path.startswith(("/page/", "/docs/")):
            return True
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        # All of them, always: the time must not tell which one came close.
        fits = [hmac.compare_digest(given.strip(), token) for token in self._tokens]
        return kind.lower() == b"bearer" and any(fits)


class _TooLargeError(Exception):
    """A body went over the limit while it came in."""


class _Exchange:
    """One request and its answer, on their way through the gate."""

    def __init__(
        self, request_id: str, headers: Headers, body_bytes: int, receive: Receive, send: Send
    ) -> None:
        self._request_id = request_id
        self._headers = headers
        self.is_too_large = False
        self._left_bytes = body_bytes
        self._receive = receive
        self._send = send
        self._has_begun = False

    async def receive(self) -> Message:
        """The next part of the request; an error where there is too much of it."""
        message = await self._receive()
        self._left_bytes -= len(message.get("body", b""))
        if self._left_bytes < 0:
            self.is_too_large = not self._has_begun
            raise _TooLargeError
        return message

    async def send(self, message: Message) -> None:
        """Pass on a part of the answer, with our headers."""
        if self.is_too_large:
            return  # what the application makes of half a body
        if message["type"] == "http.response.start":
            self._has_begun = True
            message["headers"] = [*message["headers"], *self._headers]
        await self._send(message)

    async def refuse(self, status: int, detail: str) -> None:
        """Answer in the application's place."""
        self.is_too_large = False
        body = json.dumps({"detail": detail, "request_id": self._request_id}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _too_large(found: str, limit: int) -> str:
    return f"the body has {found}; at most {limit:,} bytes are taken: send fewer texts at a time"


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(REQUEST_ID.encode(), b"").decode("latin-1")
    return given if _FINE_ID.fullmatch(given) else uuid.uuid4().hex
