"""Access checks for every request: Host, Origin and fetch metadata, and the browser cookie for the screens.

A page in the user's browser can send requests to 127.0.0.1, and a host name it controls can resolve to this machine
(DNS rebinding). So the Host must be allowed, an Origin must be the server's own, and requests that a browser marks as
cross-site are refused. The screens and their WebSocket need a cookie, which only a one-time link sets.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections import deque
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from flashflow.backend.api.framework.host_names import HostNames
from flashflow.backend.api.framework.request_body import drain
from flashflow.backend.api.framework.responses import ApiResponse, refusal, respond
from flashflow.backend.api.http.connection_places import BROWSER, recognise
from flashflow.backend.api.http.request_metrics import RequestMetrics, counting
from flashflow.backend.core.clock import Clock
from flashflow.backend.core.errors import FlashFlowError, Forbidden, StorageFull, Unauthorized
from flashflow.backend.core.private_files import read_or_create

log = logging.getLogger(__name__)

COOKIE_DAYS = 30
PENDING_LINKS = 16
LINK_S = 600
SECRET_FILE = "browser.secret"  # noqa: S105 a file's name
SECRET_BYTES = 32
LINK_PATH = "/launch/"
API_PATH = "/api/"
OPEN_PATHS = {"/openapi.json", "/docs"}
_TOLD_ONCE = (b"host", b"origin", b"sec-fetch-site", b"authorization")
"""Headers that a check reads; a repeated one is refused as ambiguous."""
_SAFE_SITES = {b"same-origin", b"none"}
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' {sockets}; worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'none'; object-src 'none'"
)


class Browsers:
    """One-time launch links, and browser cookies signed with a secret stored in the data folder."""

    def __init__(self, folder: Path, port: int, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._start = secrets.token_hex(4)
        """Prefix of this start's links: distinguishes links of an earlier start from forged ones."""
        self._links: dict[bytes, tuple[float, int]] = {}
        """Hash of each open link → its creation time on the monotonic clock (s) and the wall clock (ms)."""
        self._used: deque[bytes] = deque(maxlen=64)
        self._secret = _load_secret(folder / SECRET_FILE)
        self.cookie = f"flashflow_{port}"

    def new_link(self) -> str:
        """Return a path that admits one browser within LINK_S seconds. Only the PENDING_LINKS newest are valid."""
        token = f"{self._start}.{secrets.token_urlsafe(32)}"
        with self._lock:
            self._links[_hash(token)] = (self._clock.monotonic(), self._clock.now_ms())
            while len(self._links) > PENDING_LINKS:
                del self._links[next(iter(self._links))]
        return LINK_PATH + token

    def redeem(self, token: str) -> str:
        """Return the cookie for an open link and close the link. Raises Unauthorized with the reason."""
        digest = _hash(token)
        with self._lock:
            made = self._links.pop(digest, None)
            if made is None:
                raise Unauthorized(self._why_closed(token, digest))
            # The monotonic clock stops while a computer sleeps; the wall clock can be set back.
            age = max(self._clock.monotonic() - made[0], (self._clock.now_ms() - made[1]) / 1000)
            if age > LINK_S:
                raise Unauthorized(_EXPIRED)
            self._used.append(digest)
        body = f"{int(time.time()) + COOKIE_DAYS * 86_400}.{secrets.token_urlsafe(16)}"
        return f"{body}.{self._sign(body)}"

    def _why_closed(self, token: str, digest: bytes) -> str:
        if digest in self._used:
            return "This link was used before. Each link lets one browser in, once."
        if not _LINK_TOKEN.fullmatch(token):
            return "This link is not one of FlashFlow's."
        if token.startswith(self._start + "."):
            return _EXPIRED
        return "This link is from an earlier start of FlashFlow."

    def admits(self, cookie: str) -> bool:
        """Whether ``cookie`` has a valid signature and has not expired."""
        body, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(self._sign(body).encode(), signature.encode("utf-8", "replace")):
            return False
        return int(body.partition(".")[0]) > time.time()

    def _sign(self, body: str) -> str:
        return hmac.new(self._secret, body.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


class Guard:
    """ASGI middleware around the API and the screens. Refuses with 401 or 403."""

    def __init__(self, app: ASGIApp, hosts: HostNames, browsers: Browsers | None, requests: RequestMetrics) -> None:
        self._app = app
        self._requests = requests
        self._hosts = hosts
        self._browsers = browsers
        self._policy = _PAGE_POLICY.format(sockets=" ".join(hosts.websocket_sources())).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        fault = self._fault(scope, headers)
        if fault is not None:
            await _refuse(scope, receive, counting(self._requests, scope, send), fault)
            return
        path: str = scope["path"]
        if (path.startswith(API_PATH) or path in OPEN_PATHS) and scope["type"] == "http":
            await self._app(scope, receive, send)
        elif path.startswith(LINK_PATH):
            await self._launch(scope, receive, counting(self._requests, scope, send))
        else:
            await self._screens(scope, receive, send)

    def _fault(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> FlashFlowError | None:
        named = scope["flashflow.headers"] = dict(headers)
        if len(named) < len(headers) and any(sum(name == one for name, _ in headers) > 1 for one in _TOLD_ONCE):
            return Forbidden("Host, Origin, Sec-Fetch-Site and Authorization may be given once.")
        host, origin, site = named.get(b"host"), named.get(b"origin"), named.get(b"sec-fetch-site")
        host = None if host is None else host.lower()
        if host is None or not self._hosts.accepts(host):
            return Forbidden("FlashFlow does not answer to this Host. Start it with `--allow-host` and the name.")
        if origin is not None and not self._hosts.is_same_origin(origin.lower(), host):
            return Forbidden("Requests from pages of another origin are refused.")
        if site is not None and site not in _SAFE_SITES:
            return Forbidden("Requests from pages of another site are refused.")
        if scope["type"] == "websocket" and origin is None:
            return Forbidden("A WebSocket needs the Origin of FlashFlow's own page.")
        return None

    async def _launch(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._browsers is None:
                raise Unauthorized("This FlashFlow has no screens: it was started with --no-ui.")
            if scope["type"] != "http" or scope["method"] != "GET":
                raise Unauthorized("A link is opened in a browser, by GET.")
            cookie = self._browsers.redeem(scope["path"].removeprefix(LINK_PATH))
        except Unauthorized as fault:
            await _refuse(scope, receive, send, fault)
            return
        whole = await drain(receive, scope["headers"])
        set_cookie = (
            f"{self._browsers.cookie}={cookie}; Path=/; HttpOnly; SameSite=Strict; Max-Age={COOKIE_DAYS * 86_400}"
        )
        headers = ((b"location", b"/"), (b"set-cookie", set_cookie.encode()), (b"content-type", b"text/plain"))
        await respond(send, ApiResponse(303, b"", headers), close=not whole)

    async def _screens(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._admitted(scope):
            fault = Unauthorized("This browser was not let in yet.")
            await _refuse(scope, receive, counting(self._requests, scope, send), fault)
            return

        recognise(scope, BROWSER)

        async def dressed(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                headers: list[tuple[bytes, bytes]] = message["headers"]  # type: ignore[assignment]
                kept = [(n, v) for n, v in headers if not n.lower().startswith(b"access-control-")]
                message = {**message, "headers": [*kept, (b"content-security-policy", self._policy), *_PLAIN]}
            await send(message)

        await self._app(scope, receive, dressed)  # type: ignore[arg-type]

    def _admitted(self, scope: Scope) -> bool:
        if self._browsers is None:
            return True
        for name, value in scope["headers"]:
            if name == b"cookie":
                for part in value.decode("latin-1").split(";"):
                    key, _, cookie = part.strip().partition("=")
                    if key == self._browsers.cookie and self._browsers.admits(cookie):
                        return True
        return False


_LINK_TOKEN = re.compile(r"[0-9a-f]{8}\.[A-Za-z0-9_-]{43}")
_EXPIRED = f"This link has expired. A link works for {LINK_S // 60} minutes."


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


_HOW_IN = "Open FlashFlow with the link that it printed, or run `flashflow link` for a new one."
_PLAIN = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>FlashFlow</title>
<meta name="viewport" content="width=device-width">
<style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:20vh auto;\
padding:0 1.5rem}}</style>
<h1>FlashFlow</h1><p>{reason}</p><p>Run <code>flashflow link</code> and open what it prints.</p></html>"""


def _closed(scope: Scope, reason: str) -> ApiResponse:
    """Return the 401 response: an HTML page for a browser, problem+json for a program."""
    if any(name == b"accept" and b"text/html" in value for name, value in scope["headers"]):
        headers = ((b"content-type", b"text/html; charset=utf-8"), *_PLAIN)
        return ApiResponse(401, _PAGE.format(reason=reason).encode(), headers)
    return refusal(Unauthorized(reason + " " + _HOW_IN))


async def _refuse(scope: Scope, receive: Receive, send: Send, fault: FlashFlowError) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": str(fault)[:120]})
        return
    whole = await drain(receive, scope["headers"])
    answer = _closed(scope, str(fault)) if isinstance(fault, Unauthorized) else refusal(fault)
    await respond(send, answer, close=not whole)


def _load_secret(path: Path) -> bytes:
    fresh = secrets.token_bytes(SECRET_BYTES)
    try:
        return read_or_create(path, _parse_secret, lambda: fresh, log.warning)
    except StorageFull as error:
        log.warning("browsers need a new link after the next start: %s", error)
        return fresh


def _parse_secret(content: bytes) -> bytes | None:
    return content if len(content) == SECRET_BYTES else None
