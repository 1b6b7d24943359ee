"""Each method of the matrix in a module of its own; all are reached by `method_of`."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cells import ALGORITHM
from benchmarks.matrix.config import Column
from benchmarks.matrix.methods.base import UNREADABLE, Answers, Fitted, Method

__all__ = ["UNREADABLE", "Answers", "Fitted", "Method", "method_of", "sources_of"]

HERE = Path(__file__).resolve().parent
IMPORTED = re.compile(r"benchmarks\.matrix\.methods(?:\.| import )(\w+)")


class _Place(NamedTuple):
    """Where a method is.

    Attributes:
        module, name: of its class.
        parts: of red_ray, that its answers depend on.
        libraries: that it imports as it goes.
    """

    module: str
    name: str
    parts: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()


_CONSTANT = _Place("constant", "Constant")
_CLASSICAL = _Place("classical", "Classical", ("encoding",), ("sentence_transformers",))
_PROMPTING = _Place("prompting", "Prompting", ("judges/prompts.py",), ("transformers.generation",))
METHODS = {
    "majority": _CONSTANT,
    "prior": _CONSTANT,
    "flat": _CLASSICAL,
    "random_forest": _CLASSICAL,
    "lasso": _CLASSICAL,
    "setfit": _Place("setfit", "SetFit", (), ("setfit",)),
    "red_ray": _Place("red", "Red", ALGORITHM, ("sentence_transformers",)),
    "judge": _Place("judge", "Judge", ("judges", "core/lexical.py", "core/ngrams.py")),
    "fine_tune": _Place("fine_tune", "FineTune", (), ("transformers.trainer",)),
    "zero_shot": _PROMPTING,
    "few_shot": _PROMPTING,
    "lora": _Place("lora", "Lora", ("judges/prompts.py",), ("peft", "transformers.trainer")),
}


def method_of(column: Column) -> Method:
    """The method of a column; what it needs is imported here: not before, and not as it learns."""
    place = METHODS[column.method]
    for library in place.libraries:
        import_module(library)
    kind: Any = getattr(import_module(f"{__name__}.{place.module}"), place.name)
    return kind(column)


def sources_of(method: str) -> tuple[list[Path], tuple[str, ...]]:
    """The modules here that a method goes through, and the parts of red_ray."""
    place = METHODS[method]
    found, todo = set(), {place.module}
    while todo:
        name = todo.pop()
        path = HERE / f"{name}.py"
        if name not in found and path.exists():
            found.add(name)
            todo |= set(IMPORTED.findall(path.read_text(encoding="utf-8")))
    return [HERE / f"{name}.py" for name in sorted(found)], place.parts
