"""cluster.yaml is what Ray's cluster launcher takes it for, and closes what should be closed."""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


@pytest.fixture(scope="module")
def config(root: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((root / "cluster.yaml").read_text("utf-8"))
    return read


@pytest.fixture(scope="module")
def commands(config: dict[str, Any]) -> list[str]:
    """Every shell command in it."""
    holders = [config, *config["available_node_types"].values()]
    return [line for one in holders for key in COMMANDS for line in one.get(key, [])]


def validate(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does before it starts anything; with Ray's defaults filled in."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_takes_it(config: dict[str, Any]) -> None:
    filled = validate(config)
    assert filled["idle_timeout_minutes"] == config["idle_timeout_minutes"]


@pytest.mark.parametrize(
    "place",
    [[], ["docker"], ["auth"], ["available_node_types", "cpu_worker"]],
    ids=lambda place: ".".join(place) or "top",
)
def test_ray_finds_a_misspelt_key(config: dict[str, Any], place: list[str]) -> None:
    changed = copy.deepcopy(config)
    inner = changed
    for step in place:
        inner = inner[step]
    inner["max_workrs"] = 1
    with pytest.raises(Exception, match="max_workrs"):
        validate(changed)


def test_machines_of_ones_own_need_what_its_comment_says(
    config: dict[str, Any], root: Path
) -> None:
    text = (root / "cluster.yaml").read_text("utf-8")
    block = re.search(r"^  #   type: local\n(?:  #   .*\n)+", text, re.MULTILINE)
    assert block is not None
    provider = yaml.safe_load(re.sub(r"^  #", "", block.group(), flags=re.MULTILINE))
    without = ("head_node_type", "available_node_types")
    changed = {key: value for key, value in config.items() if key not in without}
    assert validate(changed | {"provider": provider})["max_workers"] == len(provider["worker_ips"])


def test_only_workers_compute_and_none_is_kept_idle(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    workers = types["cpu_worker"]
    assert workers["min_workers"] == 0
    assert 0 < workers["max_workers"] <= config["max_workers"]
    assert types["gpu_worker"]["max_workers"] == 0
    assert config["idle_timeout_minutes"] > 0


def test_images_hold_the_pinned_ray_and_python(
    config: dict[str, Any], pinned_ray: str, project: dict[str, Any]
) -> None:
    images = [config["docker"]["image"]]
    images += [
        one["docker"]["worker_image"]
        for one in config["available_node_types"].values()
        if "docker" in one
    ]
    assert project["requires-python"] == ">=3.11,<3.12"
    for image in images:
        assert image.startswith(f"rayproject/ray:{pinned_ray}-py311-")


def test_ray_asks_for_the_token_and_shows_the_dashboard_to_its_own_machine_alone(
    config: dict[str, Any], commands: list[str]
) -> None:
    given = [one for one in config["docker"]["run_options"] if one.startswith("--env ")]
    values = dict(one.removeprefix("--env ").split("=", 1) for one in given)
    assert values["RAY_AUTH_MODE"] == "token"
    assert values["RAY_AUTH_TOKEN_PATH"] == "/home/ray/cluster/auth_token"
    heads = [line for line in commands if "ray start --head" in line]
    assert len(heads) == 1
    assert "--dashboard-host=127.0.0.1" in heads[0]
    assert not [line for line in commands if "0.0.0.0" in line]


def test_what_the_machines_read_is_made_by_the_script_and_in_no_commit(
    config: dict[str, Any], commands: list[str], root: Path
) -> None:
    (folder,) = config["file_mounts"].items()
    assert folder == ("~/cluster", "build/cluster")
    ignored = subprocess.run(["git", "check-ignore", "-q", folder[1]], cwd=root, check=False)
    assert ignored.returncode == 0
    assert folder[1] in (root / "Makefile").read_text("utf-8")
    script = (root / "scripts" / "cluster_folder.sh").read_text("utf-8")
    names = {name for line in commands for name in re.findall(r"~/cluster/([\w.*]+)", line)}
    assert names == {"*.whl", "constraints.txt", "secrets.env"}
    for name in (*names, "auth_token"):
        assert f"/{name}" in script or f'"/{name}' in script


def test_no_job_takes_the_secrets_along(config: dict[str, Any], root: Path) -> None:
    from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

    left_out = get_excludes_from_ignore_files(root, include_gitignore=False)
    assert len(left_out) == 1  # .rayignore alone: Ray heeds .gitignore only where it is told to
    (folder,) = config["file_mounts"].values()
    secrets = root / folder / "secrets.env"
    places = [
        one for one in (secrets, *secrets.parents) if one.is_relative_to(root) and one != root
    ]
    assert any(left_out[0](one) for one in places)
    assert not left_out[0](root / "red_ray" / "cli" / "app.py")


def test_each_command_is_one_that_bash_can_read(commands: list[str]) -> None:
    assert len(commands) == 9
    for line in commands:
        subprocess.run(["bash", "-n", "-c", line], check=True)


def test_ray_start_knows_each_option(commands: list[str]) -> None:
    from ray.scripts.scripts import start

    starts = [line for line in commands if "ray start" in line]
    assert len(starts) == 2
    for line in starts:
        assert "ulimit -n 65536;" in line
        assert "RAY_memory" not in line  # the memory monitor stays as Ray has it
        words = shlex.split(line.partition("ray start ")[2])
        given = start.make_context("start", list(words)).params
        assert given["head"] == ("--head" in words)
        assert given["num_cpus"] == (0 if given["head"] else None)
        assert given["address"] == (None if given["head"] else "$RAY_HEAD_IP:6379")
