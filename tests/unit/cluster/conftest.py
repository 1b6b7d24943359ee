"""What the files for clusters must agree on: the versions that are installed and pinned here."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    read: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return read


@pytest.fixture(scope="session")
def pinned_ray() -> str:
    """Ray's version in constraints.txt, which is the installed one."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    (pin,) = [line.partition("==")[2] for line in lines if line.startswith("ray==")]
    assert pin == version("ray")
    return pin
