"""Calls that nobody sends on purpose: cases from the OpenAPI document, and odd bodies."""

from __future__ import annotations

import contextlib
import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import load_all_checks
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

FINE = frozenset({200, 307, 400, 401, 404, 405, 408, 411, 413, 414, 422, 431, 503})
"""What an endpoint may answer: above all neither 500, 502 nor 504."""

TELLING = ("Traceback", 'File "', "site-packages", "ray::", ".py")
"""Words of a traceback."""

OPERATIONS = ("POST /v1/classify", "POST /v1/feedback", "GET /v1/queue")
"""Those that take something; the others have one case each."""

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Raw:
    """A request as its bytes, and what it is."""

    name: str
    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] | None = None


def document_cases(
    url: str, *, n_cases: int, first_seed: int, headers: Mapping[str, str] | None = None
) -> Counter[tuple[str, int]]:
    """Call an endpoint with cases that fit its document, and others that do not.

    Args:
        url: of the endpoint.
        n_cases: in all, about: a call without parameters has one case.
        first_seed: decides all cases.
        headers: of every call.

    Returns:
        How often each operation answered with each status.

    Raises:
        AssertionError: an answer is no answer of ours, or does not fit the document.
    """
    load_all_checks()
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    counts: Counter[tuple[str, int]] = Counter()
    operations = [found.ok() for found in schema.get_all_operations()]
    each = n_cases // (2 * len(OPERATIONS))
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            n_examples = each if operation.label in OPERATIONS else 1
            with contextlib.suppress(Unsatisfiable):  # nothing to be wrong about
                _run(operation, mode, n_examples, first_seed, headers, counts)
    return counts


def _run(
    operation: Any,
    mode: GenerationMode,
    n_examples: int,
    first_seed: int,
    headers: Mapping[str, str] | None,
    counts: Counter[tuple[str, int]],
) -> None:
    @seed(first_seed)
    @settings(
        max_examples=n_examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case: Any) -> None:
        response = case.call(headers=dict(headers or {}))
        counts[operation.label, response.status_code] += 1
        check_fine(response.status_code, response.content, str(case.as_curl_command()))
        # A text of blanks or an unknown label fits the document and no model.
        case.validate_response(response, excluded_checks=[positive_data_acceptance])

    call()


def check_fine(status: int, content: bytes, about: str) -> None:
    """The answer is one of ours, and tells nothing of the inside."""
    assert status in FINE, (status, content[:300], about[:300])
    text = content.decode("utf-8", "replace")
    if status != 200:
        assert not [word for word in TELLING if word in text], (text[:300], about[:300])


ODD_TEXTS = {
    "empty": "",
    "blank": " \t\n\u00a0\u2003",
    "long": "word " * (MIB // 5),
    "long without a blank": "x" * MIB,
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "nul": "a\x00b",
    "half a surrogate pair": "a\ud800b",
    "the other half": "\udfff",
    "right to left": "\u202eevil\u202c שלום مرحبا \u200f",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈🤷🏽‍♀️" * 50,
    "combining": "Z" + "\u0300" * 5000,
    "markup": "<script>alert(1)</script>&lt;<!--\"'`{{7*7}}${7*7}]]>",
    "not characters": "\ufffe\uffff\U0010ffff\ufeff",
    "format": "%s%n{0}{} %00 \\u0000 \\",
    "lines": "a\r\nb\u2028c\u2029d\x0b\x0c\x85",
    "numbers": "1e400 NaN -0 ١٢٣",
}


def odd_requests(label: str) -> Iterator[Raw]:
    """Odd texts in every field that takes one, and bodies and headers that are none.

    Args:
        label: one that the model knows.
    """
    for name, text in ODD_TEXTS.items():
        yield _json(name, "classify", {"texts": [text, "fine"], "explain": True})
        yield _json(f"{name} as escalate", "classify", {"texts": ["a"], "escalate": text})
        yield _json(f"{name} as a key", "classify", {"texts": ["a"], text: 1})
        yield _json(f"{name} said", "feedback", {"answers": [{"text": text, "label": label}]})
        yield _json(f"{name} as label", "feedback", {"answers": [{"text": "a", "label": text}]})
        yield Raw(
            f"{name} as limit", "GET", "/v1/queue?limit=" + quote(text[:2000], errors="replace")
        )
        yield Raw(f"{name} as path", "GET", "/" + quote(text[:2000], errors="replace"))
    for name, value in _odd_values().items():
        for key in ("texts", "top_k", "escalate", "explain"):
            body = json.dumps({"texts": ["a"], key: "@"}).replace('"@"', value)
            yield _bytes(f"{name} as {key}", "classify", body.encode())
        yield _bytes(f"{name} as a body", "classify", value.encode())
        yield _bytes(f"{name} as answers", "feedback", b'{"answers": %s}' % value.encode())
    yield from _odd_bodies()


def _odd_values() -> dict[str, str]:
    return {
        "a number without end": "1" * 5000,
        "a great number": "1e400",
        "a great integer": str(2**63),
        "a negative number": "-1",
        "NaN": "NaN",
        "Infinity": "-Infinity",
        "null": "null",
        "true": "true",
        "an object": '{"a": 1}',
        "a list": "[]",
        "deep lists": "[" * 50_000 + "]" * 50_000,
        "deep objects": '{"a":' * 20_000 + "1" + "}" * 20_000,
        "a list of numbers": "[1, 2]",
        "many texts": json.dumps(["a"] * 5000),
        "two halves": '["\\ud83d\\ude00", "\\ud83d", "\\ude00"]',
    }


def _odd_bodies() -> Iterator[Raw]:
    good = b'{"texts": ["where is my parcel"]}'
    bodies = {
        "nothing": b"",
        "cut": good[:-4],
        "two": good * 2,
        "no UTF-8": b'{"texts": ["\xff\xfe\xed\xa0\x80"]}',
        "UTF-16": good.decode().encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + good,
        "zeros": bytes(1000),
        "a key twice": b'{"texts": ["a"], "texts": [1]}',
        "a trailing comma": b'{"texts": ["a",]}',
        "too large": b'{"texts": ["' + b"a" * 5 * MIB + b'"]}',
        "blanks": b" " * MIB,
    }
    for name, body in bodies.items():
        yield _bytes(name, "classify", body)
        yield _bytes(f"{name} as feedback", "feedback", body)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x", ""):
        headers = {"Content-Type": kind}
        yield Raw(f"as {kind!r}", "POST", "/v1/classify", good, headers)
    given = {
        "gzip": {"Content-Encoding": "gzip"},
        "a long id": {"X-Request-Id": "a" * 5000},
        "an odd id": {"X-Request-Id": "<b>\t%0d%0aSet-Cookie: a=b"},
        "an odd time-out": {"X-Request-Timeout-Seconds": "-1e400"},
        "a time-out that is none": {"X-Request-Timeout-Seconds": "soon"},
        "an odd token": {"Authorization": "Bearer \x7f" + "x" * 4000},
        "another host": {"Host": "evil.example"},
        "a range": {"Range": "bytes=-1,9999999-"},
    }
    for name, headers in given.items():
        yield Raw(
            name, "POST", "/v1/classify", good, {"Content-Type": "application/json"} | headers
        )
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"):
        yield Raw(method, method, "/v1/classify", b"")
    for path in ("//", "/v1/", "/v1/classify/", "/page/../../serve/app.py", "/page/%2e%2e/app.py"):
        yield Raw(path, "GET", path)


def _json(name: str, call: str, body: object) -> Raw:
    """As JSON writes it by default: half a surrogate pair is an escape in ASCII."""
    return _bytes(name, call, json.dumps(body).encode("ascii"))


def _bytes(name: str, call: str, body: bytes) -> Raw:
    return Raw(name, "POST", f"/v1/{call}", body, {"Content-Type": "application/json"})


def send_odd(url: str, requests: Iterator[Raw], *, timeout_s: float = 60.0) -> Counter[int]:
    """Send them one after the other; how often each status came back.

    Raises:
        AssertionError: an answer is no answer of ours.
    """
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=url, timeout=timeout_s) as client:
        for one in requests:
            answer = client.request(
                one.method, one.path, content=one.body, headers=dict(one.headers or {})
            )
            check_fine(answer.status_code, answer.content, one.name)
            statuses[answer.status_code] += 1
    return statuses


BROKEN = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no version": b"GET /\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "a length that is none": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    "a negative length": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
    b"Content-Length: 3\r\n\r\n{}",
    "a length and chunks": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "broken chunks": b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"zz\r\n",
    "a header without end": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "a path without end": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 5000 + b"\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
}
"""What no HTTP client sends."""


def send_broken(url: str) -> Counter[int]:
    """Send bytes that are no HTTP, and close; how often each status came back, 0 without any.

    Raises:
        AssertionError: an answer is no answer of ours.
    """
    place = urlsplit(url)
    statuses: Counter[int] = Counter()
    for name, data in BROKEN.items():
        answer = _exchange((place.hostname or "", place.port or 80), data)
        first = answer.split(b"\r\n", 1)[0].split()
        status = int(first[1]) if len(first) > 1 and first[0].startswith(b"HTTP/") else 0
        statuses[status] += 1
        assert status in FINE | {0, 101, 403, 426, 505}, (name, answer[:300])
    return statuses


def _exchange(address: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(address, timeout=5) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        return _read(connection.recv)


def _read(receive: Callable[[int], bytes]) -> bytes:
    """Up to 64 KiB; what comes later than the time-out does not matter here."""
    found = b""
    with contextlib.suppress(OSError):
        while len(found) < 1 << 16 and (part := receive(1 << 14)):
            found += part
    return found
