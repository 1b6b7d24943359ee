"""Changes of a trained model's label set: only the experts concerned are fitted anew.

`add`, `merge`, `split`, `rename` and `retire` take a model and give a new one; `of_run` keeps it in
a run's folder, with the state of before to go back to.
"""

from red_ray.labels.changes import add, merge, rename, retire, split
from red_ray.labels.effect import Effect, LabelEffect
from red_ray.labels.refit import Change, Examples, refit

__all__ = [
    "Change",
    "Effect",
    "Examples",
    "LabelEffect",
    "add",
    "merge",
    "refit",
    "rename",
    "retire",
    "split",
]
