"""The contract over HTTP: what is answered, what is refused and how, and nothing else."""

from __future__ import annotations

import asyncio
import json
import logging

import httpx
import pytest

from red_ray.errors import EncoderError, RunError
from serve.app import make_app
from serve.scoring import Scored
from serve.service import Service
from serve.settings import ServeSettings
from tests.unit.judges.fakes import FakeJudge
from tests.unit.serve.endpoints import (
    Scripted,
    first_candidate,
    hanging,
    open_endpoint,
    opens,
    opens_one,
    raising,
    until,
)

FIELDS = {"label", "confidence", "decision", "source", "alternatives", "expert"}
ODD = {
    "half a surrogate pair": "\ud83d",
    "control characters": "\x00\x01\x1b[31m\x7f",
    "right to left": "\u202eأين بطاقتي؟\u202c",
    "emoji": "👩‍👩‍👧 🏴‍☠️" * 20,
    "no width": "\u200b\ufeff",
    "combining": "e" + "\u0301" * 500,
    "a line separator": "a\u2028\u2029b",
    "no character": "\uffff\ufffe",
    "quotes": '"\\"}]',
}


class Broken:
    """A scorer that fails as nobody expects, and says the text."""

    async def score(self, loaded: object, texts: object) -> Scored:
        raise ValueError(f"boom {texts!r}")

    async def warm(self, loaded: object) -> None:
        pass


class Held:
    """A scorer that waits."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def score(self, loaded: object, texts: object) -> Scored:
        await self.gate.wait()
        raise RunError("a shard is away")

    async def warm(self, loaded: object) -> None:
        pass


# --- classify ----------------------------------------------------------------------------------


async def test_a_result_has_the_fields_of_the_contract_and_no_other(served, corpus):
    async with open_endpoint(served, judge={"spec": "off"}) as endpoint:
        answer = await endpoint.answer(corpus.test)
        assert set(answer) == {"bundle", "results"}
        assert answer["bundle"] == endpoint.service.bundle
        assert len(answer["results"]) == len(corpus.test)
        for result in answer["results"]:
            assert set(result) == FIELDS
            assert result["decision"] in ("accept", "none", "escalate")
            assert result["source"] == "model"
            assert 0 <= result["confidence"] <= 1
            for one in result["alternatives"]:
                assert set(one) == {"label", "confidence"}


@pytest.mark.parametrize("top_k", [1, 3, 100])
async def test_the_endpoint_says_what_the_model_says_in_the_order_of_the_texts(
    served, half, corpus, top_k
):
    texts = [*corpus.test, *corpus.test[::-1]]
    wanted = half.predict(texts, top_k=top_k)
    async with open_endpoint(served, judge={"spec": "off"}, batch_texts=5) as endpoint:
        found = await endpoint.classify(texts, top_k=top_k)
    for result, decision in zip(found, wanted, strict=True):
        for name in ("label", "decision", "source", "expert"):
            assert result[name] == getattr(decision, name)
        assert result["confidence"] == pytest.approx(decision.confidence, abs=1e-5)
        assert [one["label"] for one in result["alternatives"]] == [
            one.label for one in decision.alternatives
        ]
        shares = [one["confidence"] for one in result["alternatives"]]
        wanted_shares = [one.confidence for one in decision.alternatives]
        assert shares == pytest.approx(wanted_shares, abs=1e-5)


async def test_calls_at_once_get_their_own_answers(served, half, corpus):
    wanted = [one.label for one in half.predict(corpus.test)]
    async with open_endpoint(served, judge={"spec": "off"}) as endpoint:
        calls = (endpoint.classify([text], escalate="never") for text in corpus.test)
        found = await asyncio.gather(*calls)
    assert [result["label"] for (result,) in found] == wanted


async def test_top_k_names_that_many_labels(served, sorts, half):
    async with open_endpoint(served) as endpoint:
        for top_k, n_labels in ((1, 1), (2, 2), (4, 4), (100, len(half.labels))):
            (result,) = await endpoint.classify(sorts.sure[:1], top_k=top_k)
            named = [result["label"], *(one["label"] for one in result["alternatives"])]
            named = [one for one in named if one is not None]
            assert len(named) == len(set(named)) == n_labels


async def test_an_explanation_comes_only_where_it_was_asked_for_and_is_whole(served, sorts):
    judge = FakeJudge(first_candidate)
    texts = [sorts.sure[0], sorts.doubtful[0]]
    async with open_endpoint(served, opens(judge)) as endpoint:
        for result in await endpoint.classify(texts):
            assert set(result) == FIELDS
        sure, doubtful = await endpoint.classify(texts, explain=True)
    assert set(sure) == set(doubtful) == FIELDS | {"explanation"}
    why, asked = sure["explanation"], doubtful["explanation"]
    assert why["judge"] is None, "told, and not left out: nobody was asked"
    assert why["risk"] < why["thresholds"]["escalate"] <= asked["risk"]
    assert [one["step"] for one in why["steps"]] == [
        "wait",
        "encode",
        "evidence",
        "decide",
        "explain",
    ]
    assert [one["step"] for one in asked["steps"]][-1] == "judge"
    assert all(step["ms"] >= 0 and "cost_usd" in step for step in asked["steps"])
    assert asked["judge"]["outcome"] == "label"
    assert asked["judge"]["label"] == doubtful["label"]
    assert {"error", "from_ledger", "requests", "latency_ms", "cost_usd"} <= set(asked["judge"])
    options = asked["judge"]["candidates"]
    assert options[0]["description"] == f"about {options[0]['label']}"
    assert options[0]["examples"]
    assert why["examples"]
    assert why["experts"]
    assert why["candidates"][0]["label"] == sure["label"]


# --- what is refused ---------------------------------------------------------------------------


async def refusal(endpoint, body):
    answer = await endpoint.post("/v1/classify", body)
    assert set(answer.json()) == {"detail", "request_id"}
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"texts": ["a"] * 6}, ("6 texts", "at most 5")),
        ({"texts": ["a", "b" * 1001]}, ("texts[1] has 1,001 characters", "at most 1,000")),
        ({"texts": ["a", " \t\n"]}, ("texts[1] is empty",)),
        ({"texts": [""]}, ("texts[0] is empty",)),
        ({"texts": []}, ("texts", "at least 1")),
        ({"texts": ["a"], "top_k": 0}, ("top_k", "greater than or equal to 1", "got 0")),
        ({"texts": ["a"], "top_k": 101}, ("top_k", "100", "got 101")),
        ({"texts": ["a"], "top_k": "3"}, ("top_k", "valid integer", "got '3'")),
        ({"texts": ["a"], "explain": 0.0}, ("explain", "valid boolean", "got 0.0")),
        ({"texts": ["a"], "escalate": "maybe"}, ("escalate", "'auto', 'never' or 'always'")),
        ({"texts": ["a"], "explain": "very"}, ("explain",)),
        ({"texts": "a"}, ("texts", "list")),
        ({"texts": [1]}, ("texts.0", "string")),
        ({"texts": [None]}, ("texts.0", "string")),
        ({}, ("texts", "required")),
        ({"texts": ["a"], "text": "a"}, ("text: unknown key; did you mean 'texts'?",)),
        ({"text": "a"}, ("texts", "required", "did you mean 'texts'?")),
        ({"texts": ["a"], "topk": 1}, ("topk: unknown key; did you mean 'top_k'?",)),
        ({"texts": ["a"], "zzz": 1}, ("zzz: unknown key",)),
        ([], ("the body",)),
        ("x", ("the body",)),
        (None, ("body",)),
    ],
)
async def test_what_cannot_be_used_is_refused_with_limit_and_value(served, body, words):
    limits = {"texts_per_call": 5, "chars_per_text": 1000}
    async with open_endpoint(served, limits=limits) as endpoint:
        status, detail = await refusal(endpoint, body)
    assert status == 422
    for word in words:
        assert word in detail
    assert "\n" not in detail


async def test_texts_of_exactly_the_limits_pass(served):
    limits = {"texts_per_call": 5, "chars_per_text": 1000}
    async with open_endpoint(served, limits=limits) as endpoint:
        await endpoint.classify(["b" * 1000] * 5, escalate="never")


async def test_without_a_limit_of_its_own_the_models_counts(served, half):
    most = half.config.max_chars
    async with open_endpoint(served) as endpoint:
        assert (await endpoint.get("/v1/model"))["limits"]["chars_per_text"] == most
        status, detail = await refusal(endpoint, {"texts": ["a" * (most + 1)]})
        await endpoint.classify(["a" * most], escalate="never")
    assert status == 422
    assert f"at most {most:,}" in detail


async def test_a_large_body_is_refused_with_limit_and_value(served):
    async with open_endpoint(served, limits={"body_bytes": 2000}) as endpoint:
        status, detail = await refusal(endpoint, {"texts": ["a" * 5000]})
    assert status == 413
    assert "at most 2,000 bytes" in detail


@pytest.mark.parametrize(
    ("raw", "kind", "told"),
    [
        (b'{"texts": [}', "application/json", "the body is no JSON, at character 11"),
        (b'{"texts": ["a"]}', None, "send content-type: application/json, which is missing"),
        (b'{"texts": ["a"]}', "text/plain", "application/json, not as 'text/plain'"),
        (b'{"texts": ["\xe9"]}', "application/json", "the body is not UTF-8"),
    ],
)
async def test_what_is_wrong_with_a_body_as_a_whole(served, raw, kind, told):
    headers = {"content-type": kind} if kind else {}
    async with open_endpoint(served) as endpoint:
        answer = await endpoint.client.post("/v1/classify", content=raw, headers=headers)
    assert answer.status_code in (400, 422)
    assert told in answer.json()["detail"]


async def test_a_judge_must_be_there_to_be_asked_about_every_text(served):
    async with open_endpoint(served, judge={"spec": "off"}) as endpoint:
        status, detail = await refusal(endpoint, {"texts": ["a"], "escalate": "always"})
    assert status == 422
    assert "this endpoint has none" in detail


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff\xfe",
        b"{",
        b"",
        b"[" * 100_000,
        b'{"texts": ["a"], "top_k": 1e999}',
        b'{"texts": ["a"], "top_k": NaN}',
        b'{"texts": ["a"], "top_k": ' + b"9" * 5000 + b"}",
        b'{"texts": [' + b"[" * 900 + b"]" * 900 + b"]}",
        b'{"\\ud800": 1, "texts": [1]}',
    ],
)
async def test_a_body_that_is_none_is_refused_in_one_short_line(served, raw):
    headers = {"content-type": "application/json"}
    async with open_endpoint(served) as endpoint:
        answer = await endpoint.client.post("/v1/classify", content=raw, headers=headers)
    assert answer.status_code in (400, 422)
    assert len(answer.json()["detail"]) < 400


@pytest.mark.parametrize(
    "body",
    [
        {"texts": [1] * 50_000},
        {"texts": ["a"]} | {f"key{at}": 1 for at in range(50_000)},
        {"a" * 100_000: 1, "texts": ["a"]},
    ],
    ids=["texts", "keys", "a long key"],
)
async def test_a_body_full_of_faults_is_told_one_of_them(served, body):
    """One for each would keep the endpoint busy for seconds."""
    async with open_endpoint(served) as endpoint:
        status, detail = await refusal(endpoint, body)
    assert status == 422
    assert "more" not in detail.split()
    assert len(detail) < 300


@pytest.mark.parametrize("kind", ODD)
async def test_odd_texts_are_answered(served, kind):
    judge = FakeJudge(first_candidate)
    body = json.dumps({"texts": [ODD[kind]], "escalate": "always", "explain": True})
    headers = {"content-type": "application/json"}
    async with open_endpoint(served, opens(judge)) as endpoint:
        answer = await endpoint.client.post("/v1/classify", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"][0]["source"] == "judge"
        said = json.dumps({"answers": [{"text": ODD[kind], "label": None}]})
        kept = await endpoint.client.post("/v1/feedback", content=said, headers=headers)
        if kind == "half a surrogate pair":  # which no queue shows
            assert kept.status_code == 422
            return
        assert kept.json()["kept"] == 1, kept.text
        again = await endpoint.client.post("/v1/classify", content=body, headers=headers)
        assert again.json()["results"][0]["source"] == "human"


@pytest.mark.parametrize("kind", ODD)
async def test_odd_texts_wait_for_a_person_and_are_told(served, kind):
    body = json.dumps({"texts": [ODD[kind]], "escalate": "always"})
    headers = {"content-type": "application/json"}
    async with open_endpoint(served, opens_one(raising(RunError("gone")))) as endpoint:
        answer = await endpoint.client.post("/v1/classify", content=body, headers=headers)
        assert answer.json()["results"][0]["decision"] == "abstain"
        assert len(await endpoint.queued()) == 1


# --- failures ----------------------------------------------------------------------------------


async def test_what_nobody_expected_is_one_line_without_text_or_traceback(served, sorts, caplog):
    text = sorts.sure[0]
    async with open_endpoint(served, scorer=Broken()) as endpoint:
        with caplog.at_level(logging.ERROR):
            answer = await endpoint.post("/v1/classify", {"texts": [text]})
        stats = await endpoint.get("/v1/stats")
    assert answer.status_code == 500
    assert set(answer.json()) == {"detail", "request_id"}
    assert text not in answer.text
    assert "boom" not in answer.text
    assert "Traceback" not in answer.text
    assert stats["errors"] == 1 == stats["requests"]
    assert "call_failed" in [record.message for record in caplog.records]
    # As every answer has them:
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_failure_of_ours_says_why_and_when_to_come_back(served, sorts):
    scorer = Held()
    scorer.gate.set()
    async with open_endpoint(served, scorer=scorer) as endpoint:
        answer = await endpoint.post("/v1/classify", {"texts": [sorts.sure[0]]})
        stats = await endpoint.get("/v1/stats")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "a shard is away"
    assert int(answer.headers["retry-after"]) >= 1
    assert (stats["errors"], stats["refused"]) == (1, 0)


async def test_what_the_caller_cannot_mend_is_no_fault_of_the_call(served, half):
    """Not 422: the ledger's place is the operator's matter."""
    async with open_endpoint(served, judge={"spec": "off"}) as endpoint:
        (served / "ledger.sqlite").mkdir()
        said = {"answers": [{"text": "a", "label": half.labels[0]}]}
        answer = await endpoint.post("/v1/feedback", said)
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


async def test_overload_is_503_and_counted(served, sorts):
    scorer = Held()
    limits = {"wait_s": 0.001}
    async with open_endpoint(served, scorer=scorer, limits=limits, batch_texts=1) as endpoint:
        endpoint.service._batcher.texts_per_s = 1.0
        calls = [
            asyncio.create_task(endpoint.post("/v1/classify", {"texts": [text]}))
            for text in sorts.sure[:2]
        ]
        await until(lambda: endpoint.service._batcher.wait_s > 0)
        answer = await endpoint.post("/v1/classify", {"texts": [sorts.sure[2]]})
        scorer.gate.set()
        await asyncio.gather(*calls)
        stats = await endpoint.get("/v1/stats")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "wait already" in answer.json()["detail"]
    assert stats["refused"] == 1
    assert stats["requests"] == 3


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/v1/classify", 405), ("GET", "/v1/queue?limit=0", 422)],
)
async def test_other_mistakes_are_told_in_the_same_shape(served, method, path, status):
    async with open_endpoint(served) as endpoint:
        answer = await endpoint.client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"detail", "request_id"}


# --- readiness, tokens, CORS, documents --------------------------------------------------------


async def test_it_is_ready_once_a_bundle_answers_and_alive_before(tmp_path):
    class Nobody:
        settings = ServeSettings(run=str(tmp_path))
        is_ready = False
        bundle = "b"

    service = Nobody()
    transport = httpx.ASGITransport(app=make_app(service))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        before, alive = await client.get("/readyz"), await client.get("/healthz")
        service.is_ready = True
        after = await client.get("/readyz")
    assert (before.status_code, before.headers["retry-after"]) == (503, "1")
    assert "no model" in before.json()["detail"]
    assert alive.status_code == 200
    assert after.json() == {"status": "ready", "bundle": "b"}


async def test_an_endpoint_is_not_ready_before_it_is_opened_and_is_then(served):
    async with open_endpoint(served) as endpoint:
        ready = await endpoint.get("/readyz")
        assert ready == {"status": "ready", "bundle": endpoint.service.bundle}
        unopened = Service(endpoint.service.settings, endpoint.desk, None)  # type: ignore[arg-type]
        assert not unopened.is_ready


async def test_health_and_page_need_no_token_and_everything_else_does(served):
    async with open_endpoint(served, tokens=["t" * 32]) as endpoint:
        for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json"):
            assert (await endpoint.client.get(path)).status_code == 200, path
        for path in ("/v1/model", "/v1/queue", "/v1/stats"):
            assert (await endpoint.client.get(path)).status_code == 401, path
        for path in ("/v1/classify", "/v1/feedback"):
            assert (await endpoint.post(path, {})).status_code == 401, path
        headers = {"authorization": f"Bearer {'t' * 32}"}
        answer = await endpoint.client.get("/v1/model", headers=headers)
    assert answer.status_code == 200


ELSEWHERE = {"origin": "https://tickets.example"}
PREFLIGHT = ELSEWHERE | {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


async def test_pages_of_other_hosts_may_not_call(served):
    async with open_endpoint(served) as endpoint:
        answer = await endpoint.client.get("/v1/model", headers=ELSEWHERE)
        asked = await endpoint.client.options("/v1/classify", headers=PREFLIGHT)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert not [name for name in asked.headers if name.startswith("access-control")]


@pytest.mark.parametrize("tokens", [[], ["t" * 32]])
async def test_pages_that_are_named_may_call_also_where_tokens_are_asked_for(served, tokens):
    """A browser asks first, and then without a token; and it shows no refusal without these."""
    origin = ELSEWHERE["origin"]
    async with open_endpoint(served, tokens=tokens, cors_origins=[origin]) as endpoint:
        asked = await endpoint.client.options("/v1/classify", headers=PREFLIGHT)
        refused = await endpoint.client.post("/v1/classify", headers=ELSEWHERE, json={})
        other = {"origin": "https://evil.example"}
        foreign = await endpoint.client.get("/healthz", headers=other)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == origin
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    assert refused.status_code == (401 if tokens else 422)
    assert refused.headers["access-control-allow-origin"] == origin
    assert "x-request-id" in refused.headers
    assert "access-control-allow-origin" not in foreign.headers


async def test_the_openapi_document_has_every_route_with_its_errors(served):
    async with open_endpoint(served) as endpoint:
        document = await endpoint.get("/openapi.json")
    errors = {"400", "401", "413", "422", "503"}
    wanted = {
        ("post", "/v1/classify"): ("ClassifyAnswer", errors),
        ("post", "/v1/feedback"): ("FeedbackAnswer", errors),
        ("get", "/v1/queue"): ("Queue", errors),
        ("get", "/v1/model"): ("ModelInfo", errors),
        ("get", "/v1/stats"): ("Stats", errors),
    }
    found = {(verb, path) for path, verbs in document["paths"].items() for verb in verbs}
    assert found == {*wanted, ("get", "/healthz"), ("get", "/readyz")}
    for (verb, path), (schema, statuses) in wanted.items():
        responses = document["paths"][path][verb]["responses"]
        assert set(responses) == {"200", *statuses}
        assert _schema(responses["200"]) == schema
        for status in statuses:
            assert _schema(responses[status]) == "ErrorAnswer"
    assert _schema(document["paths"]["/readyz"]["get"]["responses"]["503"]) == "ErrorAnswer"


def _schema(response):
    return response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]


async def test_the_documents_and_the_page_need_no_other_host(served):
    async with open_endpoint(served) as endpoint:
        for path in ("/", "/docs"):
            answer = await endpoint.client.get(path)
            assert answer.headers["content-type"].startswith("text/html")
            assert "https://" not in answer.text.replace("https://tickets.example", "")


async def test_a_judge_that_fails_is_no_failure_of_the_call(served, sorts):
    async with open_endpoint(served, opens_one(raising(EncoderError("x")))) as endpoint:
        (result,) = await endpoint.classify(sorts.doubtful[:1])
        stats = await endpoint.get("/v1/stats")
    assert result["decision"] == "abstain"
    assert stats["errors"] == 0


async def test_a_judge_that_hangs_keeps_no_health_waiting(served, sorts):
    judge: Scripted = hanging()
    async with open_endpoint(served, opens_one(judge)) as endpoint:
        call = asyncio.create_task(endpoint.classify(sorts.doubtful[:1]))
        await until(lambda: bool(judge.asked))
        assert (await endpoint.get("/readyz"))["status"] == "ready"
        assert not call.done()
        call.cancel()
