"""Experts: one per label subset, each with a noise class for everything else."""

from red_ray.experts.base import Expert, ExpertSpec, make_expert
from red_ray.experts.forest import RandomForestExpert
from red_ray.experts.host import ExpertHost, FitRows
from red_ray.experts.logistic import LogisticRegressionExpert

__all__ = [
    "Expert",
    "ExpertHost",
    "ExpertSpec",
    "FitRows",
    "LogisticRegressionExpert",
    "RandomForestExpert",
    "make_expert",
]
