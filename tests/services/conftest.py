"""Where a service is missing a test skips, or fails if services were asked for."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

# Test modules share helpers by `tests.…`, and `tests` is not installed.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.services import postgres, s3
from tests.services.chromium import Browser
from tests.undisturbed import here, port, reference

__all__ = ["here", "port", "reference"]  # fixtures

REQUIRED = "RED_RAY_REQUIRE_SERVICES"
SERVER = "RED_RAY_TEST_POSTGRES"
"""URL of a server to use in place of a private one."""

Program = Callable[[str], str]


def missing(reason: str) -> NoReturn:
    """End the test."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{reason}, and {REQUIRED}=1 lets no test skip", pytrace=False)
    pytest.skip(reason)


def find_program(name: str) -> str:
    """The path of a program; without it the test ends here."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name!r} is not on the PATH; scripts/install_services.sh installs it")
    return found


@pytest.fixture
def program() -> Program:
    """See `find_program`."""
    return find_program


@pytest.fixture
async def browser(program: Program, tmp_path: Path) -> AsyncIterator[Browser]:
    """A Chromium of this test alone, with an empty profile."""
    async with Browser.start(program("chromium"), tmp_path / "profile") as browser:
        yield browser


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL database that the tests share."""
    with ExitStack() as stack:
        url = os.environ.get(SERVER)
        if url is None:
            try:
                # What a power cut would lose is no matter here.
                url = stack.enter_context(postgres.server("fsync=off"))
            except postgres.Unavailable as error:
                missing(str(error))
        yield url


@pytest.fixture
def postgres_place(postgres_server: str) -> Iterator[str]:
    """The URL of a ledger of this test alone."""
    with postgres.place(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an S3 server that the tests share."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(s3.server(tmp_path_factory.mktemp("s3")))
        except s3.Unavailable as error:
            missing(str(error))
        yield url


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a bucket of this test alone; this process and its children find its server."""
    for name, value in s3.variables(s3_server).items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.make_bucket(s3_server)}"
