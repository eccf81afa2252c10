"""Access checks for every request: Host, Origin and fetch metadata, and the browser cookie for the screens.

A page in the user's browser can send requests to 127.0.0.1, and a host name it controls can resolve to this machine
(DNS rebinding). So the Host must be allowed, an Origin must be the server's own, and requests that a browser marks as
cross-site are refused. The screens and their WebSocket need a cookie, which only a one-time link sets.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from flashflow.backend.api.framework.host_names import HostNames
from flashflow.backend.api.framework.launch_links import COOKIE_DAYS, LINK_PATH, LaunchLinks
from flashflow.backend.api.framework.request_body import drain
from flashflow.backend.api.framework.responses import ApiResponse, refusal, respond
from flashflow.backend.api.framework.router import API_PATH
from flashflow.backend.api.http.connection_limits import BROWSER, recognise
from flashflow.backend.api.http.request_metrics import RequestMetrics, counting
from flashflow.backend.core.errors import FlashFlowError, Forbidden, Unauthorized

OPEN_PATHS = {"/openapi.json", "/docs"}
_SINGLE_HEADERS = (b"host", b"origin", b"sec-fetch-site", b"authorization")
"""Headers that a check reads; a repeated one is refused as ambiguous."""
_SAFE_SITES = {b"same-origin", b"none"}
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' {sockets}; worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'none'; object-src 'none'"
)


class Guard:
    """ASGI middleware around the API and the screens. Refuses with 401 or 403."""

    def __init__(self, app: ASGIApp, hosts: HostNames, links: LaunchLinks | None, requests: RequestMetrics) -> None:
        self._app = app
        self._requests = requests
        self._hosts = hosts
        self._links = links
        self._policy = _PAGE_POLICY.format(sockets=" ".join(hosts.websocket_sources())).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
        if len(named) < len(headers) and any(sum(name == one for name, _ in headers) > 1 for one in _SINGLE_HEADERS):
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
            if self._links is None:
                raise Unauthorized("This FlashFlow has no screens: it was started with --no-ui.")
            if scope["type"] != "http" or scope["method"] != "GET":
                raise Unauthorized("A link is opened in a browser, by GET.")
            cookie = self._links.redeem(scope["path"].removeprefix(LINK_PATH))
        except Unauthorized as fault:
            await _refuse(scope, receive, send, fault)
            return
        drained = await drain(receive, scope["headers"])
        set_cookie = f"{self._links.cookie}={cookie}; Path=/; HttpOnly; SameSite=Strict; Max-Age={COOKIE_DAYS * 86_400}"
        headers = ((b"location", b"/"), (b"set-cookie", set_cookie.encode()), (b"content-type", b"text/plain"))
        await respond(send, ApiResponse(303, b"", headers), close=not drained)

    async def _screens(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._admitted(scope):
            fault = Unauthorized("This browser was not let in yet.")
            await _refuse(scope, receive, counting(self._requests, scope, send), fault)
            return

        recognise(scope, BROWSER)

        async def send_with_policy(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                headers: list[tuple[bytes, bytes]] = message["headers"]  # type: ignore[assignment]
                others = [(n, v) for n, v in headers if not n.lower().startswith(b"access-control-")]
                message = {**message, "headers": [*others, (b"content-security-policy", self._policy), *_PLAIN]}
            await send(message)

        await self._app(scope, receive, send_with_policy)  # type: ignore[arg-type]

    def _admitted(self, scope: Scope) -> bool:
        if self._links is None:
            return True
        for name, value in scope["headers"]:
            if name == b"cookie":
                for part in value.decode("latin-1").split(";"):
                    key, _, cookie = part.strip().partition("=")
                    if key == self._links.cookie and self._links.admits(cookie):
                        return True
        return False


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
    drained = await drain(receive, scope["headers"])
    answer = _closed(scope, str(fault)) if isinstance(fault, Unauthorized) else refusal(fault)
    await respond(send, answer, close=not drained)
