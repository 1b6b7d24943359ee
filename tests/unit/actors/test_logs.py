"""What a worker's lines say."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest
from ray._common.formatters import JSONFormatter

from red_ray.actors import logs


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[StringIO]:
    """Where a handler as Ray sets it up writes; the loggers are as before afterwards."""
    written, root = StringIO(), logging.getLogger()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JSONFormatter())
    monkeypatch.setattr(root, "handlers", [handler])
    loggers = [root, *(logging.getLogger(name) for name in logs.OURS)]
    levels = [logger.level for logger in loggers]
    logs._run.set("")
    logs._iteration.set(None)
    yield written
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def told(lines: StringIO) -> list[tuple[object, ...]]:
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    return [
        tuple(one.get(key) for key in ("message", "run", "actor", "iteration")) for one in found
    ]


def test_lines_say_run_actor_and_iteration(lines: StringIO) -> None:
    logs.begin("old", actor="expert")
    logs.begin("tickets", actor="coordinator")
    logging.getLogger("red_ray.x").info("before")
    logs.tell(iteration=2)
    logging.getLogger("serve.x").info("after")
    logs.tell(run="other")
    logging.getLogger("tune.x").info("at_last")
    assert told(lines) == [
        ("before", "tickets", "coordinator", None),
        ("after", "tickets", "coordinator", 2),
        ("at_last", "other", "coordinator", 2),
    ]


def test_what_libraries_say_at_length_is_left_out(lines: StringIO) -> None:
    """A database's or an HTTP library's INFO may hold a text."""
    logs.begin("tickets", actor="router")
    logging.getLogger("httpx").info("a request")
    logging.getLogger("httpx").warning("a warning")
    assert [message for message, *_ in told(lines)] == ["a warning"]


def test_an_event_may_have_its_own_iteration(lines: StringIO) -> None:
    logs.begin("tickets", actor="coordinator")
    logging.getLogger("red_ray.x").info("iteration_ended", extra={"iteration": 7})
    assert told(lines) == [("iteration_ended", "tickets", "coordinator", 7)]


def test_the_job_carries_what_makes_workers_log_so() -> None:
    config = logs.job_config().py_logging_config
    assert (config.encoding, config.log_level) == ("JSON", "INFO")
