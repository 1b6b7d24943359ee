"""Training: fit, cross-fit, and the loop that asks the judge; the workers may be anywhere."""

from red_ray.training.fleet import Fleet
from red_ray.training.job import Trained, TrainingJob
from red_ray.training.local import LocalFleet, PoolValidator
from red_ray.training.trainer import Trainer

__all__ = ["Fleet", "LocalFleet", "PoolValidator", "Trained", "Trainer", "TrainingJob"]
