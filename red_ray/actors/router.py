"""The router actor."""

from __future__ import annotations

from red_ray.training.router_host import RouterHost


class RouterActor(RouterHost):
    """Evidence, router and acquisition of a run."""
