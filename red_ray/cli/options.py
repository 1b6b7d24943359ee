"""Options that several verbs share, and what they make of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from red_ray.address import was_address
from red_ray.config import Goal, RunConfig, changed, load_config
from red_ray.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="The result as JSON alone on stdout.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file of configuration keys.", metavar="F")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="One configuration key, as loop.max_iterations=5; may repeat.", metavar="K=V"
    ),
]
NOBODY = "off"
"""In place of a judge."""

Seed = Annotated[int | None, typer.Option(help="Decides every draw.  [default: 42]")]
Judge = Annotated[
    str | None,
    typer.Option(
        help="Whom to ask: ollama:MODEL, openai:MODEL@BASE_URL, neighbours, or simulated:0.9 "
        "(for tests; needs the pool's true labels); off: nobody.",
        metavar="SPEC",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the run that is there; its ledger stays.")
]
Dashboard = Annotated[bool, typer.Option("--dashboard", help="Start Ray's dashboard with it.")]
Goals = Annotated[
    list[str] | None,
    typer.Option(
        "--goal",
        help="What the thresholds must keep, as catch_errors=0.95, precision=0.97, "
        "escalate_at_most=0.1, none_false_alarm=0.05 or none_recall=0.8; may repeat.",
        metavar="NAME=SHARE",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(help="Labelled rows that set thresholds and nothing else: what they promise, is."),
]
CalibrationOos = Annotated[
    Path | None, typer.Option(help="Texts that fit no label, for the goal none_recall.")
]
RunPath = Annotated[
    str, typer.Argument(help="A run folder, or its address: s3://…, gs://….", metavar="RUN")
]
OutPath = Annotated[
    str,
    typer.Option("--out", help="The run's folder, or its address: s3://…, gs://….", metavar="RUN"),
]


READING = ("text_column", "label_column", "max_chars")
"""Keys that say how a table is read: of a trained run, too, each table may be read its own way."""


def without_reading(assignments: list[str] | None) -> tuple[list[str], list[str]]:
    """The `--set` assignments that say how a table is read, and all others."""
    reading: list[str] = []
    others: list[str] = []
    for one in assignments or []:
        is_about_reading = one.partition("=")[0].strip() in READING
        (reading if is_about_reading else others).append(one)
    return reading, others


def read_as(config: RunConfig, reading: list[str]) -> RunConfig:
    """The configuration by which a command reads its tables; see `without_reading`.

    Raises:
        ConfigError: a value does not fit.
    """
    return changed(config, overrides_of(reading, {})) if reading else config


def check_is_local(path: Path, option: str) -> None:
    """Refuse an address where only a folder or a file of this machine will do.

    Raises:
        ConfigError: it is one.
    """
    if was_address(path):
        raise ConfigError(f"{option} takes a path of this machine, not an address")


def resolve(file: Path | None, assignments: list[str] | None, given: dict[str, Any]) -> RunConfig:
    """The configuration from a file, `--set` assignments, and options of their own.

    Args:
        file: YAML file, or None.
        assignments: `key.of.some.depth=value`, the value read as YAML.
        given: dotted keys to values; None means not given.

    Raises:
        ConfigError: an assignment has no `=`, a key is unknown or a value does not fit.
    """
    if given.get("judge.spec") == NOBODY:  # also where the file names somebody
        given = given | {"judge.spec": None}
        assignments = [*(assignments or []), "judge.spec=null"]
    return load_config(file, overrides_of(assignments, given))


def overrides_of(assignments: list[str] | None, given: dict[str, Any]) -> dict[str, Any]:
    """The nested keys that `--set` assignments and options of their own state; see `resolve`."""
    overrides: dict[str, Any] = {}
    for key, value in given.items():
        if value is not None:
            _place(overrides, key, value)
    for assignment in assignments or []:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set takes key=value, got {assignment!r}")
        _place(overrides, key.strip(), _value(assignment, value))
    return overrides


def goal_of(goals: list[str] | None) -> dict[str, float | None] | None:
    """The goal that `--goal` options state, in place of any other; None where there are none.

    Raises:
        ConfigError: one has no `=`, no number behind it, or stands there twice.
    """
    if not goals:
        return None
    shares: dict[str, float | None] = {}
    for goal in goals:
        name, _, share = goal.partition("=")
        if name.strip() in shares:
            raise ConfigError(f"--goal states {name.strip()} twice; keep one")
        try:
            shares[name.strip()] = float(share)
        except ValueError:
            raise ConfigError(
                f"--goal takes name=share, as catch_errors=0.95, got {goal!r}"
            ) from None
    # All of them: what a file or an earlier command stated is no goal any more.
    return dict.fromkeys(Goal.model_fields) | shares


def _value(assignment: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of --set {assignment!r} is not valid YAML") from error


def _place(overrides: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        overrides = overrides.setdefault(parent, {})
        if not isinstance(overrides, dict):
            raise ConfigError(f"--set {key}: {parent!r} already has a value")
    overrides[last] = value
