"""Where a service is missing a test skips, or fails if services were asked for."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

# Test modules share helpers by `tests.…`, and `tests` is not installed.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.services.chromium import Browser

REQUIRED = "RED_RAY_REQUIRE_SERVICES"

Program = Callable[[str], str]


@pytest.fixture
def program() -> Program:
    """Finds a program by its name; without it the test ends here."""

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is not None:
            return found
        reason = f"{name!r} is not on the PATH; scripts/install_services.sh installs it"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{reason}, and {REQUIRED}=1 lets no test skip", pytrace=False)
        pytest.skip(reason)

    return find


@pytest.fixture
async def browser(program: Program, tmp_path: Path) -> AsyncIterator[Browser]:
    """A Chromium of this test alone, with an empty profile."""
    async with Browser.start(program("chromium"), tmp_path / "profile") as browser:
        yield browser
