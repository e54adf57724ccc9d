"""A real headless Chromium, driven over its DevTools protocol: for the console's tests, pictures and benchmark.

Debian's `chromium` (`make chromium`); where there is none, `installed()` says so and tests are skipped.
"""

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Self

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_WITHIN_S = 60.0
ANSWER_WITHIN_S = 30.0
MESSAGE_BYTES = 256 * 1024 * 1024


class ScriptError(AssertionError):
    """A script in the page threw."""


def installed() -> str:
    """Where it is; empty: nowhere."""
    return os.environ.get("SAGA_CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), "")


class Chromium:
    """`async with Chromium() as browser`; `await browser.open(url)` is a page."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.pages: dict[str, Page] = {}

    async def __aenter__(self) -> Self:
        self._folder = tempfile.mkdtemp(prefix="saga-chromium-")
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = await asyncio.create_subprocess_exec(
            installed(),
            "--headless=new",
            *sandbox,
            "--remote-debugging-port=0",
            f"--user-data-dir={self._folder}",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            "--force-color-profile=srgb",
            *self._flags,
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        port_file = Path(self._folder) / "DevToolsActivePort"
        async with asyncio.timeout(START_WITHIN_S):
            while not port_file.exists() or "\n" not in port_file.read_text():
                assert self._process.returncode is None, "Chromium ended at once"
                await asyncio.sleep(0.05)
        port, path = port_file.read_text().split("\n")[:2]
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=MESSAGE_BYTES)
        self._hearing = asyncio.create_task(self._hear())
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            await self.call("Browser.close")
        self._hearing.cancel()
        await self._socket.close()
        await self._session.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def open(self, url: str, *, width: int = 1440, height: int = 900, scale: float = 1.0) -> "Page":
        """A page of that size, in CSS pixels. Returns when it has loaded."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            await page.call(f"{domain}.enable")
        await page.size(width, height, scale)
        loaded = page.event("Page.loadEventFired")
        await page.call("Page.navigate", url=url)
        await asyncio.wait_for(loaded, ANSWER_WITHIN_S)
        return page

    async def call(self, method: str, session: str = "", **params: object) -> Any:
        """The result of a command. Raises AssertionError with what Chromium says is wrong."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        await self._socket.send_json(message)
        return await asyncio.wait_for(answer, ANSWER_WITHIN_S)

    async def _hear(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                answer = self._answers.pop(said["id"], None)
                if answer is not None and not answer.done():
                    if "error" in said:
                        answer.set_exception(AssertionError(said["error"]["message"]))
                    else:
                        answer.set_result(said["result"])
            elif page := self.pages.get(said.get("sessionId", "")):
                page.heard(said["method"], said["params"])


class Page:
    """One tab."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session
        self._waiting: dict[str, list[asyncio.Future[Any]]] = {}
        self.collected: dict[str, list[Any]] = {}
        self.complaints: list[str] = []  # errors of scripts, the console and the network

    def heard(self, method: str, params: Any) -> None:
        """An event of this page."""
        for future in self._waiting.pop(method, []):
            if not future.done():
                future.set_result(params)
        if method in self.collected:
            self.collected[method].append(params)
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    async def call(self, method: str, **params: object) -> Any:
        """As Chromium.call, for this page."""
        return await self._browser.call(method, self._session, **params)

    def event(self, method: str) -> "asyncio.Future[Any]":
        """The next event of that name."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(method, []).append(future)
        return future

    async def size(self, width: int, height: int, scale: float = 1.0) -> None:
        """Of the window's inside."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **metrics)

    async def run(self, script: str) -> Any:
        """The value of an expression; a promise is waited for. Raises ScriptError."""
        said = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in said:
            details = said["exceptionDetails"]
            raise ScriptError(details.get("exception", {}).get("description") or details["text"])
        return said["result"].get("value")

    async def until(self, script: str, within_s: float = 20.0) -> Any:
        """The value of an expression as soon as it is true; of an element there is none, so ask for something of it."""
        value = None
        try:
            async with asyncio.timeout(within_s):
                while not (value := await self.run(script)):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{script} is still {value!r} after {within_s:g} s; {self.complaints}") from None
        return value

    async def press(self, key: str) -> None:
        """A key, as a keyboard sends it."""
        codes = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38, " ": 32}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        common = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def type(self, text: str) -> None:
        """Into what has the focus."""
        await self.call("Input.insertText", text=text)

    async def click(self, x: float, y: float) -> None:
        """The left button there."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def picture(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])
