"""The Dockerfile by its words: what it copies exists, and it runs as nobody of importance."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

Instruction = tuple[str, str]


@pytest.fixture(scope="module")
def instructions(root: Path) -> list[Instruction]:
    """(NAME, its words), as Docker reads them: no comments, continued lines joined."""
    lines = (root / "Dockerfile").read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if line and not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", "", text)
    return [
        (name, words) for name, _, words in (line.partition(" ") for line in joined.split("\n"))
    ]


def words_of(instructions: list[Instruction], name: str) -> list[str]:
    return [words for found, words in instructions if found == name]


def copies(instructions: list[Instruction]) -> list[tuple[str | None, list[str]]]:
    """(stage or None for the repository, sources) of each COPY."""
    found = []
    for words in map(shlex.split, words_of(instructions, "COPY")):
        options = [word for word in words if word.startswith("--")]
        stage = next((one.partition("=")[2] for one in options if "--from=" in one), None)
        found.append((stage, [word for word in words if word not in options][:-1]))
    return found


def test_each_instruction_is_one(instructions: list[Instruction]) -> None:
    known = {"FROM", "RUN", "COPY", "ARG", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions} == known
    assert instructions[0][0] == "FROM"


def test_every_stage_is_the_python_that_the_project_needs(
    instructions: list[Instruction], project: dict[str, Any]
) -> None:
    bases = [words.split()[0] for words in words_of(instructions, "FROM")]
    assert project["requires-python"] == ">=3.11,<3.12"
    assert len(bases) == 2
    assert set(bases) == {"python:3.11-slim-bookworm"}


def test_what_is_copied_exists_and_is_not_ignored(
    instructions: list[Instruction], root: Path
) -> None:
    stages = {words.split()[-1] for words in words_of(instructions, "FROM") if " AS " in words}
    ignored = [line for line in (root / ".dockerignore").read_text("utf-8").splitlines() if line]
    taken = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    assert "*" in ignored
    for stage, sources in copies(instructions):
        if stage is not None:
            assert stage in stages
            continue
        for source in sources:
            assert (root / source).exists()
            assert any(fnmatch(source.removeprefix("./"), one) for one in taken)


def test_all_packages_and_what_building_them_reads_are_copied(
    instructions: list[Instruction], root: Path
) -> None:
    table = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    packages = {
        one.removesuffix("*") for one in table["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    read = {"pyproject.toml", table["project"]["readme"], *table["project"]["license-files"]}
    copied = {
        source for stage, sources in copies(instructions) if stage is None for source in sources
    }
    assert copied == packages | read | {"constraints.txt"}


def test_installs_are_pinned(instructions: list[Instruction], root: Path) -> None:
    installs = [words for words in words_of(instructions, "RUN") if "pip install" in words]
    assert len(installs) == 2
    for words in installs:
        assert "--constraint /opt/red_ray/constraints.txt" in words or "--no-deps" in words
        assert "--no-cache-dir" in words


def test_the_kind_of_torch_can_be_chosen(instructions: list[Instruction]) -> None:
    assert words_of(instructions, "ARG") == ["TORCH_INDEX=https://download.pytorch.org/whl/cpu"]
    used = [words for words in words_of(instructions, "RUN") if '"$TORCH_INDEX"' in words]
    assert len(used) == 1


def test_the_list_of_what_it_needs_is_that_of_the_project(
    instructions: list[Instruction], root: Path, project: dict[str, Any], tmp_path: Path
) -> None:
    (line,) = [words for words in words_of(instructions, "RUN") if "tomllib" in words]
    assert line.startswith("python -c ")
    shell = line.replace("python -c", f"{shlex.quote(sys.executable)} -c", 1)
    shell = shell.replace("/wheel/", f"{tmp_path}/")
    subprocess.run(["sh", "-c", shell], cwd=root, check=True)
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["minilm"], *extras["postgres"]]
    assert (tmp_path / "needs.txt").read_text("utf-8").splitlines() == wanted


def test_it_runs_our_command_and_not_as_root(
    instructions: list[Instruction], project: dict[str, Any]
) -> None:
    assert words_of(instructions, "USER") == ["1000"]
    after = [name for name, _ in instructions][[name for name, _ in instructions].index("USER") :]
    assert "RUN" not in after
    assert any("useradd --uid 1000" in words for words in words_of(instructions, "RUN"))
    (entry,) = words_of(instructions, "ENTRYPOINT")
    assert entry == '["red-ray"]'
    assert "red-ray" in project["scripts"]
