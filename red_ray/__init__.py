"""Recursive Expert Delegation on Ray: many labels, few examples, a judge where it pays.

model = red_ray.load("runs/demo")
model.predict(["my card never arrived"])
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from red_ray.model import RedModel

__all__ = ["load"]


def load(place: str | Path) -> RedModel:
    """Load a trained model from a run's folder or a bundle's; needs no Ray.

    Raises:
        BundleError: there is no bundle, or it is damaged or of another version.
    """
    from red_ray.bundle import MANIFEST, load_bundle  # late: importing red_ray stays cheap

    folder = Path(place)
    return load_bundle(folder if (folder / MANIFEST).exists() else folder / "bundle")
