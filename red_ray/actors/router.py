"""The router actor."""

from __future__ import annotations

from red_ray.actors import logs
from red_ray.config import RunConfig
from red_ray.training.router_host import RouterHost


class RouterActor(RouterHost):
    """Evidence, router and acquisition of a run."""

    def __init__(self, config: RunConfig, n_labels: int, run: str = "") -> None:
        logs.begin(run)
        super().__init__(config, n_labels)
