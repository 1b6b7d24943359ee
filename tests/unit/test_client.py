"""The client: its requests, when it asks again, how it cuts and joins, and what it says of faults.

The network is a function, time is a number; both clients go through the same tests.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

import red_ray
from red_ray.client import AsyncClient, Client
from red_ray.client.plans import CHANGE_WAITS_S, FEEDBACK_PER_CALL, cut
from red_ray.errors import (
    ConfigError,
    EndpointError,
    EndpointUnavailable,
    RequestRefused,
    UserError,
)
from serve.schemas import FeedbackRequest, LimitsInfo

Handler = Callable[[httpx.Request], httpx.Response]
SECRET = "s3cret-token"
LIMITS = {"texts_per_call": 4, "chars_per_text": 100, "body_bytes": 4096, "wait_s": 2.0}


@dataclass(frozen=True)
class Said:
    """What an endpoint says once; a `httpx.Response` could be used by one client only."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> httpx.Response:
        stream = httpx.ByteStream(self.body)
        return httpx.Response(self.status, headers=dict(self.headers), stream=stream)


def json_said(status: int, value: object) -> Said:
    return Said(status, json.dumps(value).encode())


class FakeTime:
    """Seconds that pass only in a sleep or in a request, and what was slept."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


class Blocking:
    """`AsyncClient` with the manner of `Client`, so that one test serves both."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        return lambda *given, **named: asyncio.run(method(*given, **named))


class Endpoint:
    """Answers as ours does: a text's label is the text, so that order shows.

    Attributes:
        script: responses or errors that come first, in turn; None: answer as usual.
        bundles: the bundle of each classification, in turn; the last one stays.
    """

    def __init__(self, *script: Said | Exception | None) -> None:
        self.script = list(script)
        self.bundles = ["b1"]
        self.seen: list[httpx.Request] = []
        self.texts: list[list[str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        scripted = self.script.pop(0) if self.script else None
        if isinstance(scripted, Exception):
            raise scripted
        return scripted.response() if scripted else self.usual(request)

    def usual(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/v1/model"):
            return httpx.Response(200, json=MODEL)
        if request.url.path == "/v1/queue":
            return httpx.Response(200, json={"n_open": 0, "items": []})
        if request.url.path == "/v1/feedback":
            given = json.loads(request.content)["answers"]
            return httpx.Response(200, json={"kept": len(given), "bundle": "b1"})
        return self.classified(json.loads(request.content)["texts"])

    def classified(self, texts: list[str]) -> httpx.Response:
        self.texts.append(texts)
        bundle = self.bundles.pop(0) if len(self.bundles) > 1 else self.bundles[0]
        results = [result(text) for text in texts]
        return httpx.Response(200, json={"bundle": bundle, "results": results})

    def paths(self) -> list[str]:
        return [request.url.path for request in self.seen]


def result(text: str) -> dict[str, Any]:
    return {
        "label": text,
        "confidence": 0.9,
        "decision": "accept",
        "source": "model",
        "alternatives": [],
        "expert": "e",
    }


MODEL = {
    "bundle": "b1",
    "run": "r",
    "loaded_at": "2025-01-01T00:00:00Z",
    "layout": "packed",
    "encoder": "m",
    "dtype": "float32",
    "labels": [],
    "n_experts": 1,
    "thresholds": {"escalate": None, "none": 0.5},
    "curve": [],
    "promised_share": None,
    "judge": None,
    "limits": LIMITS,
    "scorecard": None,
    "versions": {},
}
STATS = {
    "started_at": "2025-01-01T00:00:00Z",
    "replicas": 2,
    "requests": 1,
    "texts": 1,
    "errors": 0,
    "refused": 0,
    "decisions": {},
    "sources": {},
    "texts_per_s": 1.0,
    "p50_ms": None,
    "p99_ms": None,
    "escalation": {
        "share": None,
        "n_texts": 0,
        "promised": None,
        "estimate": False,
        "low": None,
        "high": None,
        "alarm": False,
    },
    "judge": None,
    "history": [],
}


def busy(status: int = 503, wait: str | None = None) -> Said:
    return Said(status, headers={} if wait is None else {"Retry-After": wait})


def refusal(status: int, detail: str) -> Said:
    return json_said(status, {"detail": detail, "request_id": "r7"})


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RED_RAY_URL", raising=False)
    monkeypatch.delenv("RED_RAY_TOKEN", raising=False)


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest, time: FakeTime) -> Callable[..., Any]:
    """Makes a client of a handler, with any further settings."""

    def client(handler: Handler, *address: str, **settings: Any) -> Any:
        transport = httpx.MockTransport(handler)
        if request.param == "sync":
            settings.pop("calls_in_flight", None)
            made: Any = Client(
                *address, transport=transport, clock=time.clock, sleep=time.sleep, **settings
            )
            return made
        sleep = time.sleep_async
        return Blocking(
            AsyncClient(*address, transport=transport, clock=time.clock, sleep=sleep, **settings)
        )

    return client


def labels(answer: Any) -> list[str | None]:
    return [one.label for one in answer.results]


# What it asks


def test_one_text_is_one_request_with_the_options(make):
    endpoint = Endpoint()
    answer = make(endpoint).classify(["a"], top_k=2, escalate="never", explain=True)
    assert endpoint.paths() == ["/v1/classify"]
    assert json.loads(endpoint.seen[0].content) == {
        "texts": ["a"],
        "top_k": 2,
        "escalate": "never",
        "explain": True,
    }
    assert endpoint.seen[0].headers["Content-Type"] == "application/json"
    assert (answer.bundle, labels(answer)) == ("b1", ["a"])


def test_the_address_is_given_or_of_the_environment_or_of_this_machine(make, monkeypatch):
    endpoint = Endpoint()
    make(endpoint).model()
    monkeypatch.setenv("RED_RAY_URL", "http://known.example:1/base/")
    make(endpoint).model()
    make(endpoint, "https://given.example").model()
    assert [str(request.url) for request in endpoint.seen] == [
        "http://127.0.0.1:8000/v1/model",
        "http://known.example:1/base/v1/model",
        "https://given.example/v1/model",
    ]


def test_the_token_is_sent_given_before_known(make, monkeypatch):
    endpoint = Endpoint()
    make(endpoint).model()
    monkeypatch.setenv("RED_RAY_TOKEN", "known")
    make(endpoint).model()
    make(endpoint, token=SECRET).model()
    sent = [request.headers.get("Authorization") for request in endpoint.seen]
    assert sent == [None, "Bearer known", f"Bearer {SECRET}"]


@pytest.mark.parametrize("token", ["has space", "ends\n", "ümlaut"])
def test_a_token_that_no_header_can_hold_is_refused_unshown(make, token):
    with pytest.raises(ConfigError, match="RED_RAY_TOKEN") as caught:
        make(Endpoint(), token=token)
    assert token.strip() not in str(caught.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://[::1"])
def test_what_is_no_address_is_refused(make, url, monkeypatch):
    monkeypatch.setenv("RED_RAY_URL", "not one either")
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:8000"):
        make(Endpoint(), url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1", "http://h/below/v1/"])
def test_an_address_with_the_apis_own_beginning_is_refused(make, url):
    with pytest.raises(ConfigError, match="leave its /v1 out"):
        make(Endpoint(), url)


def test_a_password_in_the_address_is_refused_unshown(make):
    with pytest.raises(ConfigError, match="password") as caught:
        make(Endpoint(), f"http://me:{SECRET}@host")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["timeout_s", "attempts", "total_time_s", "texts_per_call"])
def test_a_bound_of_nothing_is_refused(make, name):
    with pytest.raises(ConfigError, match=f"{name} is 0"):
        make(Endpoint(), **{name: 0})


def test_no_call_in_flight_would_be_none_ever():
    with pytest.raises(ConfigError, match="calls_in_flight is 0"):
        AsyncClient(calls_in_flight=0)


def test_one_string_is_no_list_of_texts(make):
    with pytest.raises(TypeError, match="put it into a list"):
        make(Endpoint()).classify("a text")


def test_texts_are_strings(make):
    with pytest.raises(TypeError, match=r"texts\[1\] is a NoneType"):
        make(Endpoint()).classify(["a", None])


def test_half_of_a_surrogate_pair_is_sent_as_the_encoder_has_it(make):
    endpoint = Endpoint()
    make(endpoint).classify(["a\ud800b", "ä😀"])
    assert endpoint.texts == [["a?b", "ä😀"]]


def test_no_texts_are_no_classification_but_name_the_bundle(make):
    endpoint = Endpoint()
    answer = make(endpoint).classify([])
    assert (answer.bundle, answer.results) == ("b1", [])
    assert endpoint.paths() == ["/v1/model"]


def test_queue_and_stats_are_typed(make):
    endpoint = Endpoint(None, None, json_said(200, STATS))
    client = make(endpoint)
    assert client.queue().n_open == 0
    client.queue(limit=7)
    assert client.stats().replicas == 2
    assert [str(request.url.raw_path, "ascii") for request in endpoint.seen] == [
        "/v1/queue",
        "/v1/queue?limit=7",
        "/v1/stats",
    ]


def test_feedback_is_cut_and_summed(make):
    endpoint = Endpoint()
    given = {f"t{n}": None if n % 2 else "card" for n in range(6)}
    assert make(endpoint).feedback(given).kept == 6
    sent = [json.loads(request.content)["answers"] for request in endpoint.seen[1:]]
    assert [len(part) for part in sent] == [4, 2]
    assert {one["text"]: one["label"] for part in sent for one in part} == given


def test_no_feedback_is_none_kept(make):
    endpoint = Endpoint()
    assert make(endpoint).feedback({}).kept == 0
    assert endpoint.paths() == ["/v1/model"]


def test_feedback_of_one_call_fits_the_schema():
    FeedbackRequest(answers=[{"text": "t", "label": None}] * FEEDBACK_PER_CALL)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("came", "ready"),
    [
        (Said(200), True),
        (Said(503), False),
        (Said(429), False),
        (Said(500), False),
        (httpx.ConnectError("refused"), False),
        (httpx.ReadTimeout("late"), False),
    ],
)
def test_ready_is_asked_once(make, time, came, ready):
    endpoint = Endpoint(came)
    assert make(endpoint).is_ready() is ready
    assert endpoint.paths() == ["/readyz"]
    assert time.slept_s == []


def test_a_stranger_is_not_merely_not_ready(make):
    """Else whoever waits for it would wait for ever."""
    with pytest.raises(RequestRefused, match="404"):
        make(Endpoint(Said(404))).is_ready()


def test_it_closes_its_connections_on_leaving():
    class Transport(httpx.MockTransport):
        closed = 0

        def close(self) -> None:
            self.closed += 1

        async def aclose(self) -> None:
            self.closed += 1

    async def enter(transport: Transport) -> None:
        async with AsyncClient(transport=transport):
            pass

    transport = Transport(Endpoint())
    with Client(transport=transport):
        assert transport.closed == 0
    assert transport.closed == 1
    asyncio.run(enter(transport))
    assert transport.closed == 2


# Many texts


def test_texts_are_cut_by_the_endpoints_limit_and_joined_in_order(make):
    endpoint = Endpoint()
    client = make(endpoint)
    texts = [f"t{n}" for n in range(10)]
    assert labels(client.classify(iter(texts))) == texts
    assert sorted(endpoint.texts) == [texts[:4], texts[4:8], texts[8:]]
    client.classify(texts)
    assert endpoint.paths().count("/v1/model") == 1, "limits are asked for once"


@pytest.mark.parametrize(("asked", "most"), [(2, 2), (99, 4)])
def test_fewer_texts_per_call_can_be_asked_for_but_not_more(make, asked, most):
    endpoint = Endpoint()
    make(endpoint, texts_per_call=asked).classify([f"t{n}" for n in range(9)])
    assert max(map(len, endpoint.texts)) == most


def test_parts_fit_into_a_body():
    limits = LimitsInfo(texts_per_call=100, chars_per_text=1000, body_bytes=4096, wait_s=1.0)
    texts = ["ß" * 500, "x", '"' * 900, "y", "z" * 9000, "w"]
    parts = [texts[part] for part in cut(texts, limits, None)]
    assert parts == [["ß" * 500, "x", '"' * 900, "y"], ["z" * 9000], ["w"]]
    for part in parts:
        if len(part) > 1:
            assert len(json.dumps({"texts": part}, ensure_ascii=False).encode()) <= 4096


def test_wrong_number_of_results_is_not_zipped_away(make):
    answer = {"bundle": "b", "results": [result("a")]}
    endpoint = Endpoint(None, json_said(200, answer))
    with pytest.raises(EndpointError, match="1 results for 2 texts"):
        make(endpoint).classify(["a", "b"])


def test_parts_of_an_older_bundle_are_asked_for_anew(make, time):
    endpoint = Endpoint()
    endpoint.bundles = ["b1", "b1", "b2"]
    texts = [f"t{n}" for n in range(12)]
    answer = make(endpoint).classify(texts)
    assert (answer.bundle, labels(answer)) == ("b2", texts)
    assert len(endpoint.texts) == 5
    assert time.slept_s == []


def test_it_waits_while_replicas_differ(make, time):
    endpoint = Endpoint()
    endpoint.bundles = ["b1", "b2", "b1", "b1", "b2"]
    texts = [f"t{n}" for n in range(8)]
    answer = make(endpoint).classify(texts)
    assert (answer.bundle, labels(answer)) == ("b1", texts)
    assert time.slept_s == [CHANGE_WAITS_S[1]]


def test_bundles_that_keep_changing_are_an_error_that_names_them(make, time):
    endpoint = Endpoint()
    endpoint.bundles = [f"b{n % 7}" for n in range(99)]
    with pytest.raises(EndpointError, match=r"2 bundles \('b\d', 'b\d'\)"):
        make(endpoint).classify([f"t{n}" for n in range(8)])
    assert time.slept_s == list(CHANGE_WAITS_S[1:])


async def test_a_few_calls_are_in_flight_and_no_more():
    endpoint, in_flight, most = Endpoint(), 0, 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        for _ in range(20):
            await asyncio.sleep(0)
        in_flight -= 1
        return endpoint(request)

    client = AsyncClient(
        transport=httpx.MockTransport(handler), texts_per_call=1, calls_in_flight=3
    )
    texts = [f"t{n}" for n in range(10)]
    several = await asyncio.gather(client.classify(texts), client.classify(texts))
    assert most == 3
    assert [labels(answer) for answer in several] == [texts, texts]


async def test_order_is_that_of_the_texts_whoever_is_done_first():
    endpoint, release = Endpoint(), asyncio.Event()

    async def handler(request: httpx.Request) -> httpx.Response:
        if b'"t0"' in request.content:
            await release.wait()
        elif b'"t2"' in request.content:
            release.set()
        return endpoint(request)

    client = AsyncClient(transport=httpx.MockTransport(handler), texts_per_call=1)
    assert labels(await client.classify(["t0", "t1", "t2"])) == ["t0", "t1", "t2"]
    assert endpoint.texts[-1] == ["t0"]


async def test_one_failure_is_raised_bare_and_ends_the_other_calls():
    begun, ended = asyncio.Event(), []

    async def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/model":
            return httpx.Response(200, json=MODEL)
        if b'"bad"' in request.content:
            await begun.wait()
            return refusal(422, "no").response()
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.append(request)
        raise AssertionError("never released")

    client = AsyncClient(transport=httpx.MockTransport(handler), texts_per_call=1)
    with pytest.raises(RequestRefused, match="no"):
        await client.classify(["good", "bad"])
    assert len(ended) == 1


async def test_cancelling_passes_through():
    async def handler(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError("never released")

    client = AsyncClient(transport=httpx.MockTransport(handler))
    task = asyncio.create_task(client.classify(["a"]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_threads_share_a_client():
    client = Client(transport=httpx.MockTransport(Endpoint()))
    got: dict[int, list[str | None]] = {}

    def work(number: int) -> None:
        texts = [f"{number}-{n}" for n in range(9)]
        got[number] = labels(client.classify(texts))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {n: [f"{n}-{i}" for i in range(9)] for n in range(4)}


# When it asks again


FAULTS = [
    httpx.ConnectError("refused"),
    httpx.ConnectTimeout("late"),
    httpx.ReadTimeout("late"),
    httpx.ReadError("reset"),
    httpx.RemoteProtocolError("gone"),
    *(busy(status) for status in (408, 429, 502, 503, 504)),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: str(getattr(one, "status", repr(one))))
def test_what_may_pass_is_tried_again(make, time, fault):
    endpoint = Endpoint(fault, fault)
    assert labels(make(endpoint).classify(["a"])) == ["a"]
    assert len(endpoint.seen) == 3
    first, second = time.slept_s
    assert 0.25 <= first <= 0.5 <= second <= 1.0


def test_feedback_is_tried_again_too(make):
    endpoint = Endpoint(busy())
    assert make(endpoint).feedback({"t": "card"}).kept == 1


def test_waits_double_up_to_a_bound_and_differ(make, time):
    client = make(Endpoint(*[busy() for _ in range(98)]), attempts=99, total_time_s=1e6)
    client.classify(["a"])
    longest = [0.5, 1, 2, 4, 8] + [8] * 93
    assert all(most / 2 <= slept <= most for slept, most in zip(time.slept_s, longest, strict=True))
    assert len(set(time.slept_s)) == 98


@pytest.mark.parametrize(("value", "asked_s"), [("3", 3.0), ("0", 0.0), ("soon", 0.0)])
def test_it_waits_longer_than_it_is_asked_to(make, time, value, asked_s):
    make(Endpoint(busy(503, value))).classify(["a"])
    assert asked_s + 0.25 <= time.slept_s[0] <= asked_s + 0.5


def test_tries_are_bounded_in_number(make):
    endpoint = Endpoint(*FAULTS)
    with pytest.raises(EndpointUnavailable, match="gave up after 3 tries in"):
        make(endpoint, attempts=3).classify(["a"])
    assert len(endpoint.seen) == 3


def test_tries_are_bounded_in_time(make, time):
    """Also where each takes its time: the last one ends with the total."""

    def slow(request: httpx.Request) -> httpx.Response:
        limit_s = request.extensions["timeout"]["read"]
        limits_s.append(limit_s)
        time.now_s += limit_s
        raise httpx.ReadTimeout("late")

    limits_s: list[float] = []
    with pytest.raises(EndpointUnavailable, match="did not answer in time"):
        make(slow, attempts=99, timeout_s=10.0, total_time_s=25.0).classify(["a"])
    assert limits_s[:2] == [10.0, 10.0]
    assert 1.0 <= limits_s[2] < 5.0
    assert time.now_s <= 26.0


def test_a_wait_that_would_end_too_late_is_not_begun(make, time):
    endpoint = Endpoint(busy(503, "120"))
    with pytest.raises(EndpointUnavailable) as caught:
        make(endpoint, total_time_s=60.0).classify(["a"])
    assert time.slept_s == []
    assert (caught.value.status, caught.value.retry_after_s) == (503, 120.0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422, 500, 301])
def test_what_no_other_try_can_change_is_not_tried_again(make, time, status):
    endpoint = Endpoint(Said(status))
    with pytest.raises((RequestRefused, EndpointError)) as caught:
        make(endpoint).classify(["a"])
    assert not isinstance(caught.value, EndpointUnavailable)
    assert len(endpoint.seen) == 1
    assert caught.value.status == status


# What it says


@pytest.mark.parametrize("status", [401, 413, 422])
def test_a_refusal_carries_the_endpoints_word(make, status):
    with pytest.raises(RequestRefused, match="257 texts, at most 256 are taken") as caught:
        make(Endpoint(refusal(status, "257 texts,\nat most 256 are taken"))).classify(["a"])
    message = str(caught.value)
    assert f"HTTP {status}" in message
    assert "request r7" in message
    assert len(message.splitlines()) == 1
    assert isinstance(caught.value, UserError)


def test_a_refusal_of_a_later_part_says_where_that_begins(make):
    endpoint = Endpoint(None, None, refusal(422, "texts[1] is empty; give a text"))
    with pytest.raises(RequestRefused, match=r"texts\[1\] is empty.* is texts\[4\] of yours"):
        make(endpoint, calls_in_flight=1).classify([f"t{n}" for n in range(8)])


@pytest.mark.parametrize(
    ("status", "remedy"), [(401, "RED_RAY_TOKEN"), (413, "shorter"), (404, "address")]
)
def test_a_refusal_without_a_word_says_what_to_do(make, status, remedy):
    page = Said(status, b"<html>nginx</html>")
    with pytest.raises(RequestRefused, match=remedy) as caught:
        make(Endpoint(page)).classify(["a"])
    assert "nginx" not in str(caught.value)


def test_a_list_of_faults_is_not_shown_as_it_quotes_the_texts(make):
    told = json_said(422, {"detail": [{"msg": "bad", "input": "my secret text"}]})
    with pytest.raises(RequestRefused) as caught:
        make(Endpoint(told)).classify(["my secret text"])
    assert "secret" not in str(caught.value)


def test_an_endpoint_that_is_away_is_named_with_its_remedy(make):
    endpoint = Endpoint(*[httpx.ConnectError("refused")] * 9)
    with pytest.raises(EndpointUnavailable, match="red-ray serve") as caught:
        make(endpoint, "http://away.example").classify(["a"])
    assert "http://away.example" in str(caught.value)
    assert caught.value.status is None
    assert isinstance(caught.value.__cause__, EndpointUnavailable)


def test_an_overloaded_one_says_so(make):
    told = [refusal(503, "the queue is full") for _ in range(2)]
    with pytest.raises(EndpointUnavailable, match="the queue is full") as caught:
        make(Endpoint(*told), attempts=2).classify(["a"])
    assert caught.value.status == 503


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b"", b'{"bundle": 3, "results": []}'])
def test_another_servers_success_is_an_error(make, body):
    with pytest.raises(EndpointError, match="one version") as caught:
        make(Endpoint(Said(200, body))).classify(["a"])
    assert caught.value.status == 200


def test_a_traceback_does_not_quote_the_answer(make):
    said = json_said(200, {"bundle": {"private": 1}, "results": []})
    with pytest.raises(EndpointError) as caught:
        make(Endpoint(said)).classify(["a"])
    assert "private" not in "".join(traceback.format_exception(caught.value))


def test_a_body_that_cannot_be_unpacked_is_an_error(make):
    broken = Said(200, b"no gzip", {"Content-Encoding": "gzip"})
    with pytest.raises(EndpointError, match="cannot be read"):
        make(Endpoint(broken)).classify(["a"])


def every_error() -> Sequence[Exception]:
    return (
        RequestRefused("no", 422),
        EndpointError("no", 500),
        EndpointUnavailable("no", 503, 2.5),
    )


@pytest.mark.parametrize("error", every_error(), ids=lambda one: type(one).__name__)
def test_errors_keep_what_they_know_through_a_pickle(error):
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert (str(back), vars(back)) == ("no", vars(error))
    assert back.status == error.status


def test_texts_and_tokens_are_in_no_log_message_or_picture(make, caplog):
    caplog.set_level(logging.DEBUG)
    client = make(Endpoint(busy(), refusal(422, "no")), token=SECRET)
    with pytest.raises(RequestRefused) as caught:
        client.classify(["my private text"])
    inside = getattr(client, "client", client)
    shown = [caplog.text, str(caught.value), repr(inside), repr(vars(inside))]
    assert not any(word in text for text in shown for word in (SECRET, "private"))


# The package


def test_the_clients_are_at_the_top():
    assert red_ray.Client is Client
    assert red_ray.AsyncClient is AsyncClient
    with pytest.raises(AttributeError, match="Clyent"):
        red_ray.Clyent  # noqa: B018


def test_importing_red_ray_stays_cheap_and_the_client_brings_no_model():
    code = (
        "import sys, red_ray; assert 'httpx' not in sys.modules; red_ray.Client; "
        "heavy = {'ray', 'torch', 'numpy', 'sklearn', 'sqlalchemy', 'fastapi'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
