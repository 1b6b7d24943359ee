"""What Ray's processes log: a JSON object a line, with run, actor and iteration.

The driver's own lines stay as they are: people read them.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any

import ray
from ray.job_config import JobConfig

OURS = ("red_ray", "serve", "tune")

_iteration: ContextVar[int | None] = ContextVar("iteration", default=None)
_run: ContextVar[str] = ContextVar("run", default="")


def job_config() -> JobConfig:
    """What makes workers of a job log so; for `ray.init`.

    Not its `logging_config`, which would turn the driver's own lines into JSON too.
    """
    config = JobConfig()
    config.set_py_logging_config(
        ray.LoggingConfig(encoding="JSON", additional_log_standard_attrs=["name"])
    )
    return config


def begin(run: str, *, actor: str = "") -> None:
    """Have this worker's lines say whose they are; those of libraries only if they warn.

    Args:
        run: name of the run; empty for an actor that works for several.
        actor: what it is called here, where that is not its name in Ray.
    """
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    for handler in root.handlers:
        for old in [one for one in handler.filters if isinstance(one, _Fields)]:
            handler.removeFilter(old)
        handler.addFilter(_Fields(run, actor or _name()))


def tell(*, run: str | None = None, iteration: int | None = None) -> None:
    """What the lines of this task say from now on."""
    if run is not None:
        _run.set(run)
    if iteration is not None:
        _iteration.set(iteration)


class _Fields(logging.Filter):
    """Adds the fields to each record; takes out none."""

    def __init__(self, run: str, actor: str) -> None:
        super().__init__()
        self._run = run
        self._actor = actor

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass, with its fields."""
        fields: dict[str, Any] = {"run": _run.get() or self._run, "actor": self._actor}
        fields["iteration"] = _iteration.get()
        for name, value in fields.items():
            if value not in (None, "") and not hasattr(record, name):
                setattr(record, name, value)
        return True


def _name() -> str:
    if not ray.is_initialized():
        return ""
    context = ray.get_runtime_context()
    return "" if context.get_actor_id() is None else context.get_actor_name() or ""
