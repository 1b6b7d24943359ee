"""One call of the endpoint: its request, and what its response means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from red_ray.errors import EndpointError, EndpointUnavailable, RedRayError, RequestRefused
from red_ray.retry_after import retry_after_s
from serve.schemas import ErrorAnswer

Answer = TypeVar("Answer", bound=BaseModel)

BUSY = (408, 429, 502, 503, 504)
_MOST_CHARS = 500  # of a server's word in a message of one line


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """What is asked of the endpoint; it may be asked again, as no call adds to an earlier one.

    Attributes:
        path: from the base URL on.
        answer: type of the body that comes back.
        given: the request's body.
        place: which part of what the user gave it is; a refusal that counts within it says so.
    """

    method: Literal["GET", "POST"]
    path: str
    answer: type[Answer]
    given: Mapping[str, Any] | None = None
    params: Mapping[str, int] = field(default_factory=dict)
    place: str = ""

    def request(self, timeout_s: float) -> dict[str, Any]:
        """Arguments of `httpx.Client.request`; made for each try, so that bodies do not pile up."""
        body = None if self.given is None else json_bytes(self.given)
        headers = {} if body is None else {"Content-Type": "application/json"}
        return {
            "method": self.method,
            "url": self.path,
            "content": body,
            "headers": headers,
            "params": self.params,
            "timeout": timeout_s,
        }

    def read(self, response: httpx.Response) -> Answer:
        """The answer in a response.

        Raises:
            RequestRefused: 4xx, with the endpoint's word on it.
            EndpointUnavailable: 408, 429, 502 to 504.
            EndpointError: any other status, or a body that is no such answer.
        """
        if response.status_code != 200:
            raise _status_error(response, self.place)
        try:
            return self.answer.model_validate_json(response.content)
        except ValidationError as error:
            raise EndpointError(
                f"{response.url} answered {error.error_count()} values of another kind than a "
                f"{self.answer.__name__}; check the address, and that client and endpoint are "
                "of one version",
                response.status_code,
            ) from None  # the validation error quotes the body


def json_bytes(value: object) -> bytes:
    """A value as a JSON body, with "?" for half of a surrogate pair, as the encoder has it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def is_ready(response: httpx.Response) -> bool:
    """Whether a response to `/readyz` says that requests are taken.

    Raises:
        RequestRefused: 4xx: it is no endpoint of ours, or does not let us in.
    """
    if 400 <= response.status_code < 500 and response.status_code not in BUSY:
        raise _status_error(response)
    return response.status_code == 200


def transport_error(url: str, error: httpx.HTTPError) -> EndpointError:
    """A failure below HTTP in our terms."""
    if isinstance(error, httpx.TimeoutException):
        return EndpointUnavailable(f"{url} did not answer in time ({type(error).__name__})")
    if isinstance(error, httpx.ConnectError):
        return EndpointUnavailable(
            f"nothing answers at {url}; start the endpoint with `red-ray serve RUN`, or give its "
            "address as base_url or in RED_RAY_URL"
        )
    if isinstance(error, httpx.TransportError):
        return EndpointUnavailable(f"the connection to {url} broke ({type(error).__name__})")
    return EndpointError(f"what {url} answered cannot be read ({type(error).__name__})")


def _status_error(response: httpx.Response, place: str = "") -> RedRayError:
    status = response.status_code
    told = f"{response.url} answered HTTP {status!r}"
    word = _detail(response)
    if status in BUSY:
        asked_s = retry_after_s(response.headers.get("Retry-After"), datetime.now(UTC))
        return EndpointUnavailable(f"{told}: {word or 'it is overloaded'}", status, asked_s)
    if 400 <= status < 500:
        return RequestRefused(f"{told}: {word or _REMEDIES.get(status, _CHECK)}{place}", status)
    return EndpointError(f"{told}: {word or _CHECK}", status)


_CHECK = "check that the address is that of a red-ray endpoint"
_REMEDIES = {
    401: "give a valid token, as `token` or in RED_RAY_TOKEN",
    413: "the request is too large; send fewer or shorter texts",
}


def _detail(response: httpx.Response) -> str:
    """What our endpoint says is wrong, in one line; a proxy or a stranger says nothing."""
    try:
        told = ErrorAnswer.model_validate_json(response.content)
    except ValidationError:
        return ""
    line = " ".join(told.detail.split())[:_MOST_CHARS]
    return f"{line} (request {told.request_id})" if told.request_id else line
