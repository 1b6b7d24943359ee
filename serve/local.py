"""The endpoint in one process, without Ray: for tests, benchmarks and a look at it.

    RED_RAY_SERVE='{"run": "runs/tickets"}' uvicorn --factory serve.local:app

Its desk is its own: with several workers only one can ask a judge over the ledger.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI

from serve.app import make_app
from serve.desk import Desk, open_here
from serve.gate import tokens_of_environment
from serve.service import Service
from serve.settings import ServeSettings, parse_settings

SETTINGS = "RED_RAY_SERVE"
"""Environment variable: the settings as JSON."""


class LocalService(Service):
    """A service with a desk of its own, which ends with it."""

    def __init__(self, settings: ServeSettings) -> None:
        self._own_desk = Desk(settings, open_here)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encode")
        super().__init__(settings, self._own_desk, self._thread)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """See `Service.opened`."""
        try:
            async with super().opened():
                yield
        finally:
            await self._own_desk.close()
            self._thread.shutdown()


def local_app(settings: ServeSettings, tokens: Sequence[str] = ()) -> FastAPI:
    """The application with a desk of its own.

    Args:
        settings: of the endpoint; its layout is `packed`.
        tokens: who may call; none lets everybody through.
    """
    return make_app(LocalService(settings), tokens)


def app() -> FastAPI:
    """What uvicorn's `--factory` calls."""
    return local_app(parse_settings(json.loads(os.environ[SETTINGS])), tokens_of_environment())
