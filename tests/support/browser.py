"""A real Chromium on the served UI, which reads and acts as a screen reader's user does: by role and name.

Flutter draws on a canvas; its semantics tree is what a person with a screen reader gets, and what these tests use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
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
OURS = ("127.0.0.1", "localhost")
NOT_NETWORK = ("data", "blob", "about")
# Flet's web client asks a CDN for this file whatever it is told; our Content-Security-Policy stops that inside the
# browser, which says so on its console.
STOPPED_BY_POLICY = re.compile(r"rive_native\.js' violates the following Content Security Policy")
LOAD_DEADLINE = 40_000
DEADLINE = 15_000

HEARD = """[...document.querySelectorAll('flt-semantics, flt-semantics-host [role]')]
    .map(e => (e.getAttribute('role') || 'text') + ': ' + (e.getAttribute('aria-label') || e.innerText || ''))"""


class Screen:
    """One browser page; ``noise`` is what its console called errors."""

    def __init__(self, context: BrowserContext) -> None:
        self.noise: list[str] = []
        self._foreign: list[Request] = []
        self._sockets: list[str] = []
        context.on("request", self._notice_request)
        self.page: Page = context.new_page()
        self.page.on("websocket", self._notice_socket)
        self.page.on("console", self._notice_console)
        self.page.on("pageerror", lambda error: self.noise.append(str(error)))

    @property
    def strays(self) -> list[str]:
        """What was asked of another machine, but for what the page's own policy stopped before it left."""
        return [request.url for request in self._foreign if request.failure != "csp"] + self._sockets

    def open(self, url: str) -> None:
        """Load the UI and turn its semantics tree on."""
        self.page.goto(url, wait_until="commit", timeout=LOAD_DEADLINE)
        placeholder = self.page.locator("flt-semantics-placeholder")
        placeholder.wait_for(state="attached", timeout=LOAD_DEADLINE)
        # It lies outside the visible page, so the click is the element's own.
        placeholder.evaluate("element => element.click()")
        self.page.locator("flt-semantics").first.wait_for(state="attached", timeout=LOAD_DEADLINE)

    def find(self, role: str, name: str | re.Pattern[str]) -> Locator:
        """The one control of this role and name (exact where ``name`` is a string), once it is there."""
        found = self.page.get_by_role(role, name=name, exact=isinstance(name, str)).first
        with suppress(TooLate):
            found.wait_for(state="attached", timeout=DEADLINE // 2)
        try:
            # A control that the pointer was left on may bear its tooltip's text beside its name until it is let go.
            if not found.count():
                self.page.mouse.move(1, 1)
            found.wait_for(state="attached", timeout=DEADLINE)
        except TooLate as error:
            raise AssertionError(f"no {role} named {name!r} among\n" + "\n".join(self.heard())) from error
        return found

    def click(self, role: str, name: str | re.Pattern[str]) -> None:
        self.find(role, name).click(timeout=DEADLINE)

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
        if is_foreign(socket.url):
            self._sockets.append(socket.url)

    def _notice_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not STOPPED_BY_POLICY.search(message.text):
            self.noise.append(message.text)


def is_foreign(url: str) -> bool:
    """Whether fetching ``url`` would leave this machine."""
    parts = urlsplit(url)
    return parts.scheme not in NOT_NETWORK and parts.hostname not in OURS


_shared: list[Browser] = []


@contextmanager
def sharing_chromium() -> Iterator[None]:
    """Keep one Chromium running; ``browsing`` opens its contexts there. Starting one takes a second each."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        _shared.append(started)
        try:
            yield
        finally:
            _shared.remove(started)
            started.close()


@contextmanager
def browsing(width: int = 1280, height: int = 800) -> Iterator[Screen]:
    """A browser window without history or cookies; closed again on the way out."""
    if not _shared:
        with sharing_chromium(), browsing(width, height) as screen:
            yield screen
        return
    context = _shared[0].new_context(viewport={"width": width, "height": height})
    try:
        yield Screen(context)
    finally:
        context.close()
