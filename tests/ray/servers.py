"""An OpenAI-compatible server in a thread of its own, that can go away and come back."""

from __future__ import annotations

import asyncio
import socket
import threading

from tests.servers import OpenAIServer
from tests.servers.scripted import Script


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Live:
    """Serves at `port` inside `with`."""

    def __init__(self, port: int, script: Script | None = None) -> None:
        self.server = OpenAIServer(script, port=port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self.server.__aenter__(), self._loop).result(10)

    def __exit__(self, *_: object) -> None:
        if self._loop.is_closed():  # it went away before
            return
        asyncio.run_coroutine_threadsafe(self.server.__aexit__(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
