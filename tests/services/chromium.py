"""A headless Chromium, driven over its DevTools protocol.

Source: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

PATIENCE_S = 60.0  # a browser starts in one second; busy machines take many

_FLAGS = (
    "--headless",
    "--no-sandbox",  # root in a container has no other way
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--proxy-server=http://127.0.0.1:9",  # discard: whatever it tries, no request leaves
)
_DOMAINS = ("Page", "Runtime", "Log", "Network")
_KEY_CODES = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowDown": 40, "/": 191}


@dataclass(slots=True)
class Page:
    """What an opened page did, and what it can be asked; see `Browser.open`."""

    _devtools: _DevTools
    _session: str
    events: list[dict[str, Any]] = field(default_factory=list)
    loaded: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, event: dict[str, Any]) -> None:
        """Keep an event that DevTools told."""
        self.events.append(event)
        if event["method"] == "Page.loadEventFired":
            self.loaded.set()

    async def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, a promise's when it is kept.

        Raises:
            AssertionError: the script threw.
        """
        found = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait for a JavaScript expression to hold.

        Raises:
            AssertionError: it never did.
        """
        look = f"() => ({condition}) ? done() : setTimeout(look, 20)"
        try:
            await self.evaluate(f"new Promise((done) => {{ const look = {look}; look(); }})")
        except TimeoutError:
            raise AssertionError(f"this never held: {condition}") from None

    async def type(self, text: str) -> None:
        """Enter a text where the focus is."""
        await self.call("Input.insertText", text=text)

    async def press(self, *keys: str, ctrl: bool = False) -> None:
        """Press keys, one after the other."""
        for key in keys:
            code = _KEY_CODES.get(key) or ord(key.upper())
            event = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 2 if ctrl else 0}
            written = {"Enter": "\r", "Tab": ""}.get(key, key if len(key) == 1 else "")
            text = {} if ctrl or not written else {"text": written}
            await self.call("Input.dispatchKeyEvent", type="keyDown", **event, **text)
            await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def scheme(self, name: str) -> None:
        """Make the system's colours `light` or `dark`."""
        wish = {"name": "prefers-color-scheme", "value": name}
        await self.call("Emulation.setEmulatedMedia", features=[wish])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol to this page."""
        return await self._devtools.call(method, self._session, **params)

    async def seen(self, method: str) -> list[dict[str, Any]]:
        """The events of one kind so far; all that the page has begun is drawn first."""
        await self.evaluate("new Promise(r => requestAnimationFrame(() => setTimeout(r, 50)))")
        return [event["params"] for event in self.events if event["method"] == method]

    async def complaints(self) -> list[str]:
        """Errors and warnings on the console, of scripts and of the browser itself."""
        said = [
            str(event["args"])
            for event in await self.seen("Runtime.consoleAPICalled")
            if event["type"] in ("error", "warning", "assert")
        ]
        thrown = [event["exceptionDetails"] for event in await self.seen("Runtime.exceptionThrown")]
        logged = [event["entry"] for event in await self.seen("Log.entryAdded")]
        return said + [str(part) for part in thrown + logged]

    async def requests(self) -> list[str]:
        """Every address that was asked for, blocked ones included."""
        asked = [event["request"]["url"] for event in await self.seen("Network.requestWillBeSent")]
        sockets = [event["url"] for event in await self.seen("Network.webSocketCreated")]
        return asked + sockets

    async def width(self, pixels: int) -> None:
        """Make the screen that of a phone."""
        size = {"width": pixels, "height": 740, "deviceScaleFactor": 2, "mobile": True}
        await self.call("Emulation.setDeviceMetricsOverride", **size)


class Browser:
    """A running Chromium; `start` makes one."""

    def __init__(self, devtools: _DevTools) -> None:
        self._devtools = devtools
        self._contexts: list[dict[str, Any]] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, chromium: str, profile: Path) -> AsyncIterator[Self]:
        """Start the program with an empty profile; it is gone when the block ends."""
        with _running(chromium, profile, "--remote-debugging-port=0", "about:blank"):
            address = await asyncio.wait_for(_address(profile), PATIENCE_S)
            async with _DevTools.connect(address) as devtools:
                yield cls(devtools)

    async def open(self, place: Path | str, *, width: int | None = None) -> Page:
        """Load a file or an address in a tab of its own, as wide as a phone if `width` says so.

        The tab shares neither storage nor cookies with another.
        """
        call = self._devtools.call
        context = await call("Target.createBrowserContext")
        self._contexts.append(context)
        target = (await call("Target.createTarget", url="about:blank", **context))["targetId"]
        attached = await call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self._devtools, attached["sessionId"])
        self._devtools.pages[attached["sessionId"]] = page
        for domain in _DOMAINS:
            await page.call(f"{domain}.enable")
        if width is not None:
            await page.width(width)
        address = place if isinstance(place, str) else place.as_uri()
        await page.call("Page.navigate", url=address)
        await asyncio.wait_for(page.loaded.wait(), PATIENCE_S)
        return page

    async def close_pages(self) -> None:
        """Close all tabs, and forget what they kept."""
        while self._contexts:
            await self._devtools.call("Target.disposeBrowserContext", **self._contexts.pop())
        self._devtools.pages.clear()


async def assert_keeps_to_itself(page: Page) -> None:
    """It asked for its own file, and for nothing else."""
    requests = await page.requests()
    assert requests
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


async def assert_no_sideways_scroll(page: Page, width: int) -> None:
    """Nothing on it is wider than the screen, and nobody zoomed out for it."""
    found = await page.evaluate("""[
        document.scrollingElement.scrollWidth, innerWidth, visualViewport.width]""")
    assert found == [width] * 3


def dump_dom(chromium: str, profile: Path, file: Path) -> subprocess.CompletedProcess[str]:
    """The page after its script ran, on stdout, and the console on stderr; no DevTools."""
    options = ("--dump-dom", "--enable-logging=stderr", "--v=0")
    with _running(chromium, profile, *options, file.as_uri()) as process:
        output, errors = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@contextlib.contextmanager
def _running(chromium: str, profile: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    # A pipe that nobody reads would fill up and stop the browser.
    sink = subprocess.PIPE if "--dump-dom" in args else subprocess.DEVNULL
    process = subprocess.Popen(
        [chromium, *_FLAGS, f"--user-data-dir={profile}", *args],
        stdout=sink,
        stderr=sink,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # The program on the PATH is a script, and Chromium many processes: end the group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


async def _address(profile: Path) -> str:
    """Where DevTools listens: Chromium writes port and path when it is ready."""
    told = profile / "DevToolsActivePort"
    while True:
        with contextlib.suppress(FileNotFoundError):
            lines = told.read_text(encoding="ascii").splitlines()
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        await asyncio.sleep(0.05)


class _DevTools:
    """The connection: numbered commands out, replies and events of the tabs in."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.pages: dict[str, Page] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, address: str) -> AsyncIterator[_DevTools]:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(address, max_msg_size=0) as socket,
        ):
            devtools = cls(socket)
            listener = asyncio.create_task(devtools._listen())
            try:
                yield devtools
            finally:
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)

    async def call(
        self, method: str, session_id: str | None = None, **params: Any
    ) -> dict[str, Any]:
        number = len(self._replies)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        await self._socket.send_json(message | ({"sessionId": session_id} if session_id else {}))
        found = await asyncio.wait_for(reply, PATIENCE_S)
        assert "error" not in found, f"{method}: {found['error']}"
        result: dict[str, Any] = found["result"]
        return result

    async def _listen(self) -> None:
        async for message in self._socket:
            found = message.json()
            if "id" in found:
                self._replies[found["id"]].set_result(found)
            elif found.get("sessionId") in self.pages:
                self.pages[found["sessionId"]].note(found)
