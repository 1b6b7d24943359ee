"""Experts: one per label subset, each with a noise class for everything else."""

from red_ray.experts.base import Expert, ExpertSpec, make_expert
from red_ray.experts.forest import RandomForestExpert
from red_ray.experts.host import ExpertHost, FitRows, WrittenRows
from red_ray.experts.logistic import LogisticRegressionExpert, SetFitExpert
from red_ray.experts.stacked import ExpertStack

__all__ = [
    "Expert",
    "ExpertHost",
    "ExpertSpec",
    "ExpertStack",
    "FitRows",
    "LogisticRegressionExpert",
    "RandomForestExpert",
    "SetFitExpert",
    "WrittenRows",
    "make_expert",
]
