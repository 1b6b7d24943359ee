"""The endpoint on a port of this machine, with a small model and without Ray."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from red_ray.bundle import load_bundle, save_bundle
from red_ray.model import RedModel
from red_ray.run_folder import RunFolder
from serve.app import make_app
from serve.desk import Desk, open_here
from serve.loaded import Loaded, judged, stamp_of
from serve.service import Service
from serve.settings import ServeSettings
from tests.unit.training.fakes import Corpus, FakeEncoder


def make_run(path: Path, model: RedModel) -> Path:
    """A finished run's folder with this model."""
    run = RunFolder.create(path, model.config)
    save_bundle(model, run.bundle, {})
    return path


def truth_table(path: Path, corpus: Corpus) -> Path:
    """What a simulated judge looks up: the labels of the test texts."""
    with path.open("w", encoding="utf-8", newline="") as file:
        pairs = zip(corpus.test, corpus.test_labels, strict=True)
        csv.writer(file).writerows([("text", "label"), *pairs])
    return path


@dataclass
class Endpoint:
    """Serves a run's folder; may be stopped and started again.

    Attributes:
        settings: of the endpoint; the model's encoder is a fake.
        tokens: who may call.
        change: has a say in the service before it is asked.
    """

    settings: ServeSettings
    tokens: Sequence[str] = ()
    change: Callable[[Service], None] = lambda service: None

    def __post_init__(self) -> None:
        self._port = 0
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self._port}/"

    async def start(self) -> None:
        """Serve, on the port of last time where there was one."""
        place = socket.create_server(("127.0.0.1", self._port))
        self._port = place.getsockname()[1]
        config = uvicorn.Config(self._app(), log_level="error", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._server.serve([place]))
        while not self._server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End it as if it had never been there."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await self._serving
        self._server = self._serving = None

    def _app(self) -> FastAPI:
        thread = ThreadPoolExecutor(1)
        desk = Desk(self.settings, open_here)
        service = Service(self.settings, desk, thread, loads=self._loaded)
        self.change(service)
        return make_app(service, self.tokens)

    @staticmethod
    def _loaded(run: str, settings: ServeSettings, before: Loaded | None) -> Loaded:
        folder = RunFolder(Path(run).resolve())
        model = replace(load_bundle(folder.bundle), encoder=FakeEncoder())
        config = judged(folder, settings)
        return Loaded(model, folder, config, stamp_of(run), datetime.now(UTC), 1000.0)
