"""A headless Chromium that a test drives, over the pipe of its DevTools protocol; it reaches loopback alone."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """A page that is open."""

    def __init__(self, to: int, of: int) -> None:
        self.to, self.of, self.left, self.number, self.session = to, of, b"", 0, ""
        self.asked: list[str] = []
        """Addresses that the page asked for."""

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command, and what it returns."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        os.write(self.to, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("method") == "Network.requestWillBeSent":
                self.asked.append(found["params"]["request"]["url"])
            if found.get("id") == self.number:
                assert "error" not in found, found
                return found["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.left:
            self.left += os.read(self.of, 1 << 20)
        message, _, self.left = self.left.partition(b"\0")
        return json.loads(message)

    def value(self, script: str) -> Any:
        """Of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """Until the expression is true; its value."""
        end = time.monotonic() + seconds
        while not (found := self.value(script)):
            assert time.monotonic() < end, (script, self.value("document.body.innerText"))
            time.sleep(0.1)
        return found

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def key(self, name: str) -> None:
        """Press a key: Tab, Enter."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"text": "\r"} if name == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=name, windowsVirtualKeyCode=codes[name], **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=name, windowsVirtualKeyCode=codes[name])

    def picture(self, path: Path) -> None:
        """The whole page, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


@contextmanager
def opened(url: str, profile: Path) -> Iterator[Page]:
    """The page at an address."""
    to_read, to = os.pipe()
    of, of_write = os.pipe()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--remote-debugging-pipe"]
    rules = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    wired = f'exec "$@" 3<&{to_read} 4>&{of_write}'
    command = ["bash", "-c", wired, "chromium", str(CHROMIUM), *flags, rules]
    process = subprocess.Popen(
        command, pass_fds=(to_read, of_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_read)
    os.close(of_write)
    try:
        page = Page(to, of)
        target = page.call("Target.createTarget", url="about:blank")["targetId"]
        page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page.call("Network.enable")
        page.call("Page.enable")
        page.call("Page.navigate", url=url)
        yield page
    finally:
        process.terminate()
        process.wait(30)
        os.close(to)
        os.close(of)
