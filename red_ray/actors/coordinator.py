"""The coordinator actor: drives a run."""

from __future__ import annotations

import logging

from red_ray.training import Fleet, Trainer, TrainingJob
from red_ray.training.fleet import Validator


class CoordinatorActor(Trainer):
    """Drives a run; holds no model, only handles of those who do."""

    def __init__(self, job: TrainingJob, fleet: Fleet, validator: Validator | None) -> None:
        # Ray keeps what a worker logs; the root logger would pass warnings alone.
        logging.basicConfig(level=logging.INFO)
        super().__init__(job, fleet, validator)
