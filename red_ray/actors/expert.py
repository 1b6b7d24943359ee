"""The expert actor. A module of its own: each actor pays for what its module imports."""

from __future__ import annotations

from red_ray.experts import ExpertHost


class ExpertActor(ExpertHost):
    """One or several experts; its actor name says which labels they serve."""
