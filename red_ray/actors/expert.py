"""The expert actor. A module of its own: each actor pays for what its module imports."""

from __future__ import annotations

from collections.abc import Sequence

from red_ray.actors import logs
from red_ray.experts import ExpertHost, ExpertSpec


class ExpertActor(ExpertHost):
    """One or several experts; its actor name says which labels they serve."""

    def __init__(self, specs: Sequence[ExpertSpec], run: str = "") -> None:
        logs.begin(run)
        super().__init__(specs)
