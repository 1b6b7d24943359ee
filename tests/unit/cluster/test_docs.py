"""docs/cluster.md names files, targets and versions that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "docs" / "cluster.md").read_text("utf-8")


def test_its_links_lead_somewhere(text: str, root: Path) -> None:
    links = [one for one in re.findall(r"\]\(([^)]+)\)", text) if "://" not in one]
    assert links
    for link in links:
        assert (root / "docs" / link).exists(), link


def test_files_and_targets_that_it_names_exist(text: str, root: Path) -> None:
    named = set(re.findall(r"\b(?:serve|tune)/[\w.]+\.yaml|\b[a-z]+\.yaml\b", text))
    assert {"cluster.yaml", "serve/rayservice.yaml", "tune/rayjob.yaml"} <= named
    for name in named - {"rayservice.yaml", "rayjob.yaml"}:
        assert (root / name).exists(), name
    targets = set(re.findall(r"make ([a-z-]+-[a-z]+)", text))
    assert targets == {"cluster-folder"}
    assert "\ncluster-folder:" in (root / "Makefile").read_text("utf-8")


def test_its_image_is_that_of_the_files(text: str, project: dict[str, Any]) -> None:
    tags = set(re.findall(r"red-ray:([\d.]+)", text))
    assert tags == {project["version"]}


def test_the_port_of_the_endpoint_is_open_nowhere_without_tokens(text: str) -> None:
    (row,) = [line for line in text.splitlines() if line.startswith("| 8000 |")]
    assert "`0.0.0.0` only with `RED_RAY_TOKENS`" in row
