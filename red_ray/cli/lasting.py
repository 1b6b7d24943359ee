"""Outputs of a submitted job must lie where they outlive it."""

from __future__ import annotations

import os
from pathlib import Path

from red_ray.address import is_address
from red_ray.errors import ConfigError


def check_lasting(place: Path | str, option: str) -> None:
    """Refuse a place that Ray removes with the job that this command is.

    Args:
        place: for an output.
        option: that names it.

    Raises:
        ConfigError: it lies in the job's own folder.
    """
    # Late: the command line is there before anything of Ray's side is wanted.
    from red_ray.actors.environment import JOB_VARIABLE

    if not os.environ.get(JOB_VARIABLE) or is_address(place):
        return
    if Path(os.path.abspath(place)).is_relative_to(Path.cwd()):
        raise ConfigError(
            f"{option} {str(place)!r} lies in the job's own folder, which Ray removes: give an "
            "absolute path outside of it"
        )
