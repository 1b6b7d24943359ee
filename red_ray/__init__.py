"""Recursive Expert Delegation on Ray: many labels, few examples, a judge where it pays.

model = red_ray.load("runs/demo")
model.predict(["my card never arrived"])

red_ray.drift("runs/demo", recent_texts).is_drift

client = red_ray.Client("http://127.0.0.1:8000")
client.classify(["my card never arrived"])
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from red_ray.client import AsyncClient, Client
    from red_ray.evaluation.drift_run import drift
    from red_ray.model import RedModel

__all__ = ["AsyncClient", "Client", "drift", "load"]


def load(place: str | Path) -> RedModel:
    """Load a trained model from a run's folder or a bundle's, or their address; needs no Ray.

    Raises:
        BundleError: there is no bundle, or it is damaged or of another version.
        ConfigError: the address cannot be understood.
        OutputError: the address is denied.
        StorageError: the address cannot be reached.
    """
    from red_ray.bundle import MANIFEST, load_bundle  # late: importing red_ray stays cheap
    from red_ray.working_copy import local_folder

    with local_folder(place) as folder:
        return load_bundle(folder if (folder / MANIFEST).exists() else folder / "bundle")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Late: importing red_ray stays cheap.
    if name == "drift":
        from red_ray.evaluation.drift_run import drift

        return drift
    from red_ray import client

    return getattr(client, name)
