"""Tokens, request ids and the size of a body, before anything else looks at a call."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI, Request

from red_ray.errors import ConfigError
from serve.gate import Gate, check_is_loopback, tokens_of_environment

TOKENS = ("a" * 32, "b" * 32)


def client(*, tokens: tuple[str, ...] = (), body_bytes: int = 1000) -> httpx.AsyncClient:
    app = FastAPI()

    @app.post("/v1/echo")
    async def echo(request: Request) -> dict[str, int]:
        return {"n": len(await request.body())}

    @app.post("/v1/typed")
    async def typed(given: dict[str, str]) -> dict[str, int]:
        return {"n": len(given)}

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {}

    app.add_middleware(Gate, tokens=tokens, body_bytes=body_bytes)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://here")


@pytest.mark.parametrize("token", TOKENS)
async def test_each_token_may_call(token: str):
    answer = await client(tokens=TOKENS).post(
        "/v1/echo", headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {'a' * 31}"},
        {"Authorization": f"Bearer {'c' * 32}"},
        {"Authorization": f"Basic {'a' * 32}"},
        {"Authorization": "a" * 32},
    ],
)
async def test_everything_else_may_not_and_is_told_how(headers: dict[str, str]):
    answer = await client(tokens=TOKENS).post("/v1/echo", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in answer.json()["detail"]


async def test_health_needs_no_token():
    assert (await client(tokens=TOKENS).get("/healthz")).status_code == 200


async def test_a_body_that_says_it_is_too_large_is_refused_with_limit_and_value():
    answer = await client().post("/v1/echo", content=b"x" * 1001)
    assert answer.status_code == 413
    assert "1,001 bytes" in answer.json()["detail"]
    assert "at most 1,000 bytes" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/echo", "/v1/typed"])
async def test_a_body_that_does_not_say_how_large_it_is_is_cut_off(path: str):
    async def pieces():
        for _ in range(20):
            yield b"x" * 100

    answer = await client().post(path, content=pieces())
    assert answer.status_code == 413
    assert "at most 1,000 bytes" in answer.json()["detail"]


async def test_a_body_of_the_limit_passes():
    assert (await client().post("/v1/echo", content=b"x" * 1000)).json() == {"n": 1000}


async def test_a_request_has_the_id_that_the_caller_gave_or_one_of_ours():
    given = await client().post("/v1/echo", headers={"x-request-id": "order-66"})
    assert given.headers["x-request-id"] == "order-66"
    ours = [(await client().post("/v1/echo")).headers["x-request-id"] for _ in range(2)]
    assert ours[0] != ours[1]
    assert all(len(one) == 32 for one in ours)


@pytest.mark.parametrize("strange", ["a b", "x" * 129, "ü"])
async def test_a_strange_id_is_replaced(strange: str):
    answer = await client().post("/v1/echo", headers={"x-request-id": strange.encode()})
    assert len(answer.headers["x-request-id"]) == 32


async def test_every_answer_forbids_foreign_scripts():
    for answer in (
        await client().post("/v1/echo"),
        await client(tokens=TOKENS).post("/v1/echo"),
    ):
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_tokens_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RED_RAY_TOKENS", f" {TOKENS[0]},{TOKENS[1]}\n")
    assert tokens_of_environment() == TOKENS
    monkeypatch.setenv("RED_RAY_TOKENS", "  ")
    assert tokens_of_environment() == ()


def test_a_token_that_can_be_guessed_is_refused_and_not_quoted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RED_RAY_TOKENS", f"{TOKENS[0]} hunter2")
    with pytest.raises(ConfigError, match="token 2 in RED_RAY_TOKENS has 7 characters") as refused:
        tokens_of_environment()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_needs_no_token(host: str):
    check_is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "", "127.0.0.1.evil.example"])
def test_others_do(host: str):
    with pytest.raises(ConfigError, match="RED_RAY_TOKENS"):
        check_is_loopback(host)
