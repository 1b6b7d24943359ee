"""The model behind FastAPI as one writes it by hand; what `benchmarks.serving` compares with.

RED_RAY_RUN=runs/demo uvicorn --factory benchmarks.bare:app --workers 2
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

import red_ray

RUN = "RED_RAY_RUN"


class Asked(BaseModel):
    texts: list[str]


def app() -> FastAPI:
    """Loads the model, then answers; FastAPI runs a `def` in a thread."""
    model = red_ray.load(os.environ[RUN])
    model.predict(["warm up"])
    made = FastAPI()

    @made.post("/v1/classify")
    def classify(asked: Asked) -> dict[str, Any]:
        return {"bundle": model.bundle_id, "results": model.predict(asked.texts)}

    @made.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready"}

    return made
