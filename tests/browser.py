"""Headless Chromium, driven over its debugging pipe: contents of a page, its requests and its errors."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--enable-unsafe-swiftshader",  # WebGL without a graphics card
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-background-timer-throttling",  # on a busy machine a page may be treated as hidden
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--window-size=1280,800",
    "--remote-debugging-pipe",
)
SHOWN_S = 60.0
COMPLAINTS = ("error", "assert")
DRIVER = "GL Driver Message"
"""Message of the WebGL software renderer about its speed."""

Message = dict[str, Any]


class LeftError(Exception):
    """The page was left or reloaded during a call."""


class Browser:
    """One page of a browser that reaches nothing but 127.0.0.1."""

    def __init__(self, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        command = [chromium(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            # the browser reads commands from descriptor 3 and answers on 4; dash knows none above 9
            ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", *command],
            pass_fds=(commands, answers),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands)
        os.close(answers)
        self._ids = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        self._target = ""
        self._events: list[Message] = []

    def attach(self) -> None:
        """Find the page, and have it report."""
        pages = self._call("Target.getTargets")["targetInfos"]
        self._attach_to(next(one["targetId"] for one in pages if one["type"] == "page"))

    def _attach_to(self, target: str) -> None:
        self._target = target
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")

    def change_tab(self) -> None:
        """Continue in a new tab without the previous tab's session storage; the previous tab is closed."""
        self._session, before = None, self._target
        self._attach_to(self._call("Target.createTarget", url="about:blank")["targetId"])
        self._call("Target.closeTarget", targetId=before)

    def forget_cookies(self) -> None:
        """Forget the cookies of all pages."""
        self._call("Network.clearBrowserCookies")

    def _call(self, method: str, **parameters: object) -> Message:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (found := self._next()).get("id") != number:
            self._events.append(found)
        if "navigated" in found.get("error", {}).get("message", ""):
            raise LeftError(method)
        assert "error" not in found, found
        return found["result"]  # type: ignore[no-any-return]

    def _next(self) -> Message:
        while b"\0" not in self._rest:
            chunk = os.read(self._answers, 1 << 20)
            assert chunk, "the browser has ended"
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)  # type: ignore[no-any-return]

    def open(self, url: str) -> None:
        """Open an address, and forget earlier events."""
        self._events.clear()
        self._call("Page.navigate", url=url)

    def reload(self) -> None:
        """Load the page again, and return once the new document has been parsed."""
        self.run("window.isBeforeReload = true")
        self._call("Page.reload")
        self.wait_for("!window.isBeforeReload && document.readyState !== 'loading'")

    def block(self, *patterns: str) -> None:
        """From now on let the page reach no address like these; without any, all again."""
        self._call("Network.setBlockedURLs", urls=list(patterns))

    @contextlib.contextmanager
    def prepared(self, script: str) -> Iterator[None]:
        """Meanwhile run a script in each page that is opened, before any of its own."""
        number = self._call("Page.addScriptToEvaluateOnNewDocument", source=script)["identifier"]
        try:
            yield
        finally:
            self._call("Page.removeScriptToEvaluateOnNewDocument", identifier=number)

    def look_at(
        self,
        width_px: int,
        height_px: int,
        scheme: str = "light",
        is_still: bool = True,
        has_forced_colours: bool = False,
    ) -> None:
        """From now on have a window of this size, in `light` or `dark`; what is still moves nothing for show.

        With forced colours the system chooses them, as for people who need more contrast.
        """
        phone = width_px < 768
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width_px,
            height=height_px,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        features = {
            "prefers-color-scheme": scheme,
            "prefers-reduced-motion": "reduce" if is_still else "no-preference",
            "forced-colors": "active" if has_forced_colours else "none",
        }
        values = [{"name": name, "value": value} for name, value in features.items()]
        self._call("Emulation.setEmulatedMedia", features=values)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key where the page has its focus: `ArrowDown`, `Enter`, or a character."""
        text = {"text": {"Enter": "\r"}.get(key, key)} if len(key) == 1 or key == "Enter" else {}
        code = {
            "Enter": 13,
            "Escape": 27,
            "ArrowUp": 38,
            "ArrowDown": 40,
            "Home": 36,
            "End": 35,
            " ": 32,
            "ArrowLeft": 37,
            "ArrowRight": 39,
        }.get(key, 0)
        self._call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def save_to(self, folder: Path) -> None:
        """From now on put what is downloaded into a folder."""
        self._call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def write(self, text: str) -> None:
        """Write text where the page has its focus."""
        self._call("Input.insertText", text=text)

    def click_at(self, x_px: float, y_px: float) -> None:
        """Click with the mouse."""
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x_px, y=y_px, button="left", clickCount=1)

    def drag(self, from_px: float, to_px: float, y_px: float) -> None:
        """Drag the mouse sideways."""
        steps = [
            ("mousePressed", from_px),
            ("mouseMoved", (from_px + to_px) / 2),
            ("mouseMoved", to_px),
            ("mouseReleased", to_px),
        ]
        for kind, x_px in steps:
            self._call("Input.dispatchMouseEvent", type=kind, x=x_px, y=y_px, button="left", clickCount=1)

    def click(self, selector: str) -> None:
        """Click the first element that a selector finds, once it is there."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(f"{found} !== null")
        self.run(f"{found}.click()")

    def wait_for(self, condition: str, most_s: float = SHOWN_S) -> None:
        """Return once an expression of JavaScript is true."""
        deadline_s = time.monotonic() + most_s
        while not self._is(condition):
            assert time.monotonic() < deadline_s, (condition, *self._address_and_text(), self.complaints())
            time.sleep(0.05)

    def _is(self, condition: str) -> bool:
        try:
            return bool(self.run(condition))
        except LeftError:
            return False

    def _address_and_text(self) -> tuple[str, str]:
        return str(self.run("location.href")), self.text()[:2000]

    def text(self) -> str:
        """All text that the page shows."""
        return str(self.run("document.body.innerText"))

    def asked(self) -> list[str]:
        """The addresses that the page has asked for, also in vain."""
        return [one["request"]["url"] for one in self._of("Network.requestWillBeSent")]

    def hosts(self) -> set[str]:
        """Whom the page has asked for anything."""
        return {urlsplit(url).netloc for url in self.asked() if not url.startswith(("data:", "blob:"))}

    def complaints(self) -> list[str]:
        """The browser's messages about the page, such as policy violations, script errors and failed requests."""
        return [
            *(text for one in self._of("Log.entryAdded") if DRIVER not in (text := one["entry"]["text"])),
            *(str(one["args"]) for one in self._of("Runtime.consoleAPICalled") if one["type"] in COMPLAINTS),
            *(str(one["exceptionDetails"]) for one in self._of("Runtime.exceptionThrown")),
            *(str(one) for one in self._of("Network.loadingFailed") if not _is_ended(one)),
        ]

    def _of(self, method: str) -> list[Message]:
        return [one["params"] for one in self._events if one.get("method") == method]

    def screenshot(self, path: Path) -> None:
        """Save a screenshot of the window as a PNG."""
        path.write_bytes(b64decode(self._call("Page.captureScreenshot")["data"]))

    def stop(self) -> None:
        """End the browser and all of its processes."""
        os.close(self._commands)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._answers)


def _is_ended(failed: Message) -> bool:
    """Whether a page ended a request itself."""
    return bool(failed.get("canceled")) and "blockedReason" not in failed


def chromium() -> str:
    """The browser's path; skips the test if there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium is installed: scripts/install-chromium")
    return path


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """A browser with an empty profile."""
    chromium()
    with tempfile.TemporaryDirectory(prefix="whimbrel-", ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile))
        try:
            browser.attach()
            yield browser
        finally:
            browser.stop()
