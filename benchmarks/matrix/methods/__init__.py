"""Each method of the matrix in a module of its own; all are reached by `method_of`."""

from __future__ import annotations

from typing import Any

from benchmarks.matrix.config import Column
from benchmarks.matrix.methods.base import UNREADABLE, Answers, Fitted, Method

__all__ = ["UNREADABLE", "Answers", "Fitted", "Method", "method_of"]


def method_of(column: Column) -> Method:
    """The method of a column; what it needs is imported here and not before."""
    return _kind(column.method)(column)


def _kind(method: str) -> Any:
    if method in ("majority", "prior"):
        from benchmarks.matrix.methods.constant import Constant

        return Constant
    if method in ("flat", "random_forest", "lasso"):
        from benchmarks.matrix.methods.classical import Classical

        return Classical
    if method == "setfit":
        from benchmarks.matrix.methods.setfit import SetFit

        return SetFit
    if method == "red_ray":
        from benchmarks.matrix.methods.red import Red

        return Red
    if method == "judge":
        from benchmarks.matrix.methods.judge import Judge

        return Judge
    if method == "fine_tune":
        from benchmarks.matrix.methods.fine_tune import FineTune

        return FineTune
    if method in ("zero_shot", "few_shot"):
        from benchmarks.matrix.methods.prompting import Prompting

        return Prompting
    from benchmarks.matrix.methods.lora import Lora

    return Lora
