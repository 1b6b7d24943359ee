"""Keeps progress bars and remarks of the model libraries off stderr while they load."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOGGERS = ("huggingface_hub", "transformers", "sentence_transformers")
# Levels, bars and warning filters are global: two threads must not restore over each other.
_LOCK = threading.RLock()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence bars, warnings and log lines below ERROR inside; all is put back afterwards.

    Import a library before entering: on import it sets up its own logging.
    """
    with _LOCK, warnings.catch_warnings(), _levels_raised(), _hub_bars_hidden(), _bars_hidden():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _levels_raised() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _hub_bars_hidden() -> Iterator[None]:
    from huggingface_hub import utils

    hub: Any = utils  # its functions carry no types
    was_hidden = hub.are_progress_bars_disabled()
    hub.disable_progress_bars()
    try:
        yield
    finally:
        if not was_hidden:
            hub.enable_progress_bars()


@contextmanager
def _bars_hidden() -> Iterator[None]:
    # transformers has a switch of its own; importing it for that would bring torch with it.
    if "transformers" not in sys.modules:
        yield
        return
    from transformers.utils import logging as switches

    bars: Any = switches
    was_shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            bars.enable_progress_bar()
