"""A RAY_ADDRESS that is none, or where nobody listens, is told before Ray waits for it."""

from __future__ import annotations

import socket

import pytest

from red_ray.actors.environment import prepare_environment
from red_ray.actors.reach import check_address, check_reachable
from red_ray.errors import ConfigError, RunError


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "a b:1", "s3://x:1"]
)
def test_what_is_no_address(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    for check in (check_address, check_reachable, prepare_environment):
        with pytest.raises(ConfigError, match=r"RAY_ADDRESS='.* is no address") as told:
            check()
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "address", ["", "auto", "local", "127.0.0.1:6379", "[::1]:6379", "ray://head", "http://h:8265"]
)
def test_what_is_one(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    check_address()


def test_where_somebody_listens(monkeypatch, listening):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listening}")
    check_reachable()


def test_where_nobody_listens(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(RunError, match=rf"RAY_ADDRESS='127.0.0.1:{port}' .*refused.*red-ray up"):
        check_reachable()
