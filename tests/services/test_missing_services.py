"""A missing service is told, and never passes for a test that ran."""

from __future__ import annotations

import pytest

from tests.services.conftest import REQUIRED, Program

ABSENT = "no-such-program-of-red-ray"


def test_without_its_program_a_test_skips_and_says_which(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"{ABSENT}.*install_services"):
        program(ABSENT)


def test_where_services_are_required_it_fails(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match=f"{ABSENT}.*{REQUIRED}=1"):
        program(ABSENT)


def test_a_program_that_is_there_is_found(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REQUIRED, "1")
    assert program("sh").endswith("/sh")
