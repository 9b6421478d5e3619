"""A real browser without a window, driven over its DevTools protocol, for tests of pages with a script."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import websocket

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Keys as the protocol names them: code, virtual key, text.
_KEYS = {
    "Enter": ("Enter", 13, "\r"),
    "Tab": ("Tab", 9, ""),
    "Escape": ("Escape", 27, ""),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    " ": ("Space", 32, " "),
}
_SECONDS = 60  # a slow machine is no failure


class _Connection:
    """Commands of the protocol, to a tab or to the whole browser."""

    def __init__(self, address: str):
        self._socket = websocket.create_connection(
            address, timeout=_SECONDS, suppress_origin=True, http_no_proxy=["127.0.0.1"]
        )
        self._number = 0

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command of the protocol; its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            self._note(message)
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]

    def _note(self, message: dict[str, Any]) -> None:
        """Sees every message that arrives."""


class Tab(_Connection):
    """One tab. ``requests`` are the addresses that it asked for, ``complaints`` what its console said."""

    def __init__(self, address: str, downloads: Path):
        super().__init__(address)
        self._downloads = downloads
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(f"{domain}.enable")

    def _note(self, message: dict[str, Any]) -> None:
        what = message.get("method")
        if what == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        elif what == "Runtime.exceptionThrown":
            self.complaints.append(message["params"]["exceptionDetails"]["text"])
        elif what == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.complaints.append(f"{message['params']['entry']['text']} {message['params']['entry'].get('url', '')}")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """Waits until an expression is true; its value. While a page is being left there may be none to ask."""
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            try:
                if value := self.evaluate(expression):
                    return value
            except AssertionError:
                pass
            time.sleep(0.05)
        pytest.fail(f"not true in {_SECONDS} s: {expression}; {self.evaluate('document.body.innerText')}")

    def go(self, address: str) -> None:
        """Opens a page, or the same one anew, and waits until it is there."""
        self.evaluate("window.left = true")
        self.call("Page.navigate", url=address)
        there = f"location.href.startsWith({json.dumps(address)})"
        self.until(f"!window.left && document.readyState === 'complete' && {there}")

    def press(self, *keys: str) -> None:
        """Presses keys one after the other."""
        for key in keys:
            code, number, text = _KEYS.get(key, (f"Key{key.upper()}", ord(key.upper()) if len(key) == 1 else 0, key))
            event = {"key": key, "code": code, "windowsVirtualKeyCode": number}
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **event)
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def write(self, text: str) -> None:
        """Types text where the focus is."""
        self.call("Input.insertText", text=text)

    def choose_file(self, selector: str, file: Path) -> None:
        """Gives a file to an input, as one would in its dialogue."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)

    def downloaded(self) -> Path:
        """The file that was downloaded, as soon as it is whole."""
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            files = list(self._downloads.glob("*"))
            if files and not [file for file in files if file.suffix == ".crdownload"]:
                return files[0]
            time.sleep(0.05)
        pytest.fail(f"nothing was downloaded in {_SECONDS} s")

    def names(self) -> list[tuple[str, str]]:
        """(role, name) of everything that an aid such as a screen reader is told."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            (node.get("role", {}).get("value", ""), node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"]
        ]


@contextmanager
def browser(folder: Path, width: int = 1200, height: int = 900) -> Iterator[Callable[[], Tab]]:
    """Starts a browser with profile and downloads of its own in the folder; call what it gives for a new tab.

    Skips the test, with the reason, where there is no Chromium or it does not start.
    """
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(PROGRAMS)} is installed")
    profile, downloads = folder / "profile", folder / "downloads"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--mute-audio"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
    place = [f"--user-data-dir={profile}", "--remote-debugging-port=0", f"--window-size={width},{height}"]
    process = subprocess.Popen(
        [program, *options, *quiet, *place, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    connections: list[_Connection] = []
    try:
        door = profile / "DevToolsActivePort"
        end = time.monotonic() + _SECONDS
        while not (door.is_file() and door.read_text().count("\n") >= 1):
            if process.poll() is not None or time.monotonic() > end:
                pytest.skip(f"{program} does not start here (exit code {process.poll()})")
            time.sleep(0.1)
        port, path = door.read_text().split("\n")[:2]
        whole = _Connection(f"ws://127.0.0.1:{port}{path}")
        connections.append(whole)
        whole.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))

        def new_tab() -> Tab:
            target = whole.call("Target.createTarget", url="about:blank")["targetId"]
            tab = Tab(f"ws://127.0.0.1:{port}/devtools/page/{target}", downloads)
            connections.append(tab)
            return tab

        yield new_tab
    finally:
        for connection in connections:
            connection.close()
        process.kill()
        process.wait()
