"""A real Chromium on the served UI, which reads and acts as a screen reader's user does: by role and name.

Flutter draws on a canvas; its semantics tree is what a person with a screen reader gets, and what these tests use.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    WebSocket,
    expect,
    sync_playwright,
)
from playwright.sync_api import TimeoutError as TooLate

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-renderer-accessibility",
    "--enable-unsafe-swiftshader",
)
ME = "ada"
ENVIRONMENT = {"FLASHFLOW_USER": ME, "FLASHFLOW_KEYRING": "off"}
"""Environment of the servers in ``tests/browser``: ``ME`` is their local user."""
OURS = ("127.0.0.1", "localhost")
NOT_NETWORK = ("data", "blob", "about")
# Flet's web client asks a CDN for this file whatever it is told; our Content-Security-Policy stops that inside the
# browser, which says so on its console.
STOPPED_BY_POLICY = re.compile(r"rive_native\.js' violates the following Content Security Policy")
LOAD_DEADLINE = 40_000
DEADLINE = 15_000
LANDMARKS: dict[str, tuple[str, str | re.Pattern[str]]] = {
    "Dashboard": ("switch", "vs previous"),
    "Notifications": ("checkbox", re.compile("^Unread")),
    "Settings": ("switch", "Quiet hours"),
}
"""A control of each place in the navigation that is there once the place is drawn."""

FOCUSED = "name => document.activeElement?.tagName === 'INPUT' && document.activeElement.ariaLabel === name"
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Flutter reads a focused field two frames after the page focused it; earlier input is lost."""
HOLDS = "text => document.activeElement?.value === text"

HEARD = """[...document.querySelectorAll('flt-semantics, flt-semantics-host [role]')]
    .map(e => (e.getAttribute('role') || 'text') + ': ' + (e.getAttribute('aria-label') || e.innerText || ''))"""


class Beginning(NamedTuple):
    """Where a file's tests begin: a place of the navigation, in a window of this height.

    Parts that are scrolled out of view are not in the semantics tree. A higher window costs more to draw.
    """

    place: str
    height: int = 800


class Screen:
    """One browser page; ``noise`` is what its console called errors."""

    def __init__(self, context: BrowserContext) -> None:
        self.noise: list[str] = []
        self._foreign: list[Request] = []
        self._foreign_sockets: list[str] = []
        self.socket: WebSocket
        """The loaded page's connection to its server."""
        context.on("request", self._notice_request)
        self.page: Page = context.new_page()
        self.page.on("websocket", self._notice_socket)
        self.page.on("console", self._notice_console)
        self.page.on("pageerror", lambda error: self.noise.append(str(error)))

    @property
    def strays(self) -> list[str]:
        """What was asked of another machine, but for what the page's own policy stopped before it left."""
        return [request.url for request in self._foreign if request.failure != "csp"] + self._foreign_sockets

    def open(self, url: str) -> None:
        """Load the UI and turn its semantics tree on."""
        self.page.goto(url, wait_until="commit", timeout=LOAD_DEADLINE)
        placeholder = self.page.locator("flt-semantics-placeholder")
        placeholder.wait_for(state="attached", timeout=LOAD_DEADLINE)
        # It lies outside the visible page, so the click is the element's own.
        placeholder.evaluate("element => element.click()")
        self.page.locator("flt-semantics").first.wait_for(state="attached", timeout=LOAD_DEADLINE)

    def close_overlays(self) -> None:
        """Close open menus and dialogs: while one is open, the rest of the page is not in the semantics tree."""
        tab = self.page.get_by_role("button", name=re.compile("^Dashboard Tab"))
        end = time.monotonic() + DEADLINE / 1000
        while time.monotonic() < end:
            with suppress(TooLate):
                tab.wait_for(state="attached", timeout=1_000)
                return
            # More than once: a press closes only a tooltip where one is shown, or the menu over a dialog.
            self.page.keyboard.press("Escape")
        raise AssertionError("Escape closes nothing among\n" + "\n".join(self.heard()))

    def go_to(self, place: str) -> None:
        """Show a place of the navigation."""
        self.click("button", re.compile(f"^{place} Tab"))
        self.find(*LANDMARKS[place])

    def begin(self, place: str) -> None:
        """Close what is open and show the dashboard, or the settings without the text entered before."""
        self.close_overlays()
        if place == "Settings":  # a screen is built again when the page comes from another one
            self.go_to("Notifications")
        self.go_to(place)

    def forget_complaints(self) -> None:
        """Begin ``strays`` and ``noise`` again."""
        self.noise.clear()
        self._foreign.clear()
        self._foreign_sockets.clear()

    def find(self, role: str, name: str | re.Pattern[str]) -> Locator:
        """The one control of this role and name (exact where ``name`` is a string), once it is there."""
        found = self.page.get_by_role(role, name=name, exact=isinstance(name, str)).first
        with suppress(TooLate):
            found.wait_for(state="attached", timeout=DEADLINE // 2)
        try:
            # The pointer may have been left on it with a tooltip.
            if not found.count():
                self.page.mouse.move(1, 1)
            found.wait_for(state="attached", timeout=DEADLINE)
        except TooLate as error:
            raise AssertionError(f"no {role} named {name!r} among\n" + "\n".join(self.heard())) from error
        return found

    def click(self, role: str, name: str | re.Pattern[str]) -> None:
        self.find(role, name).click(timeout=DEADLINE)
        # A control under the pointer shows its tooltip, which may then stand in its name.
        self.page.mouse.move(1, 1)

    def write(self, label: str, text: str, *, by_keys: bool = False) -> None:
        """Fill in a field once it has the focus; retry if it moves because something above it opened or closed.

        The text is pasted but for its last character, or typed ``by_keys``: the page is drawn again after every key.
        """
        end = time.monotonic() + DEADLINE / 1000
        while time.monotonic() < end:
            self.click("textbox", label)
            with suppress(TooLate):
                self.page.wait_for_function(FOCUSED, arg=label, timeout=2_000)
                self.page.evaluate(TWO_FRAMES)
                self.page.keyboard.press("Control+a")
                if by_keys:
                    self.page.keyboard.type(text, delay=10)
                else:
                    # Flutter may miss an early paste; it takes the field's whole text at the next key.
                    self.page.keyboard.insert_text(text[:-1])
                    self.page.evaluate(TWO_FRAMES)
                    self.page.keyboard.type(text[-1])
                for key in ("Home", "End"):
                    # Each makes Flutter read the field again, if it did not listen yet when the text came.
                    self.page.evaluate(TWO_FRAMES)
                    self.page.keyboard.press(key)
                self.page.wait_for_function(HOLDS, arg=text, timeout=2_000)
                return
        raise AssertionError(f"{label} could not be filled in")

    def read(self, text: str) -> Locator:
        """Whatever says ``text``, once it is there."""
        pattern = re.compile(re.escape(text))
        found = self.page.get_by_text(pattern).or_(self.page.get_by_label(pattern)).first
        try:
            found.wait_for(state="attached", timeout=DEADLINE)
        except TooLate as error:
            raise AssertionError(f"nothing says {text!r} among\n" + "\n".join(self.heard())) from error
        return found

    def is_checked(self, role: str, name: str) -> bool:
        return self.find(role, name).get_attribute("aria-checked") == "true"

    def expect_checked(self, role: str, name: str, checked: bool) -> None:
        """Wait until a switch shows what it should."""
        expect(self.find(role, name)).to_have_attribute("aria-checked", str(checked).lower(), timeout=DEADLINE)

    def heard(self) -> list[str]:
        """The semantics tree as lines, for a failed test's message."""
        lines = self.page.evaluate(HEARD)
        return [line.replace("\n", " | ") for line in lines if not line.endswith(": ")]

    def _notice_request(self, request: Request) -> None:
        if is_foreign(request.url):
            self._foreign.append(request)

    def _notice_socket(self, socket: WebSocket) -> None:
        self.socket = socket
        if is_foreign(socket.url):
            self._foreign_sockets.append(socket.url)

    def _notice_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not STOPPED_BY_POLICY.search(message.text):
            self.noise.append(message.text)


def is_foreign(url: str) -> bool:
    """Whether fetching ``url`` would leave this machine."""
    parts = urlsplit(url)
    return parts.scheme not in NOT_NETWORK and parts.hostname not in OURS


@contextmanager
def browsing(width: int = 1280, height: int = 800) -> Iterator[Screen]:
    """A browser with one window, without history or cookies; closed again on the way out."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield Screen(chromium.new_context(viewport={"width": width, "height": height}))
        finally:
            chromium.close()
