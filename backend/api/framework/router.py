"""Routing: find an endpoint by its whole path, or by the path around its one parameter; else 404, 405 or the screens.

Starlette's router tries one pattern after another inside three layers of error handling: half the time of a small
request. The apps routed to here handle their own errors and need none of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from flashflow.backend.api.framework.aliases import Aliases, AliasRoute, rewritten
from flashflow.backend.api.framework.api_request import authorize
from flashflow.backend.api.framework.context import Services
from flashflow.backend.api.framework.endpoint import AsgiEndpoint, Endpoint
from flashflow.backend.api.framework.request_body import Disconnected, drain, headers_of
from flashflow.backend.api.framework.responses import ApiResponse, refusal, respond
from flashflow.backend.api.http.problem_json import problem_bytes
from flashflow.backend.api.http.request_metrics import counting
from flashflow.backend.core.errors import FlashFlowError, Forbidden, PayloadTooLarge, Unauthorized, ValidationError
from flashflow.backend.core.named_tuple import NamedTuple

API_PATH = "/api/"
NOTHING_HERE = "There is nothing at this address."
_PARAMETER = re.compile(r"(?P<before>[^{}]*/)\{(?P<name>\w+)(?P<slashes>:path)?\}(?P<after>(?:/[^{}]+)?)")

Methods = dict[str, ASGIApp]


class Pattern(NamedTuple):
    """Paths with a parameter between ``before`` and ``after``; ``with_slashes``: its value may have slashes."""

    before: str
    name: str
    with_slashes: bool
    after: str

    def value_in(self, path: str) -> str | None:
        """Return the parameter's value; None if ``path`` does not match."""
        start, end = len(self.before), len(path) - len(self.after)
        if end < start or not path.startswith(self.before) or not path.endswith(self.after):
            return None
        value = path[start:end]
        return value if self.with_slashes or (value and "/" not in value) else None


def _pattern(path: str) -> Pattern | None:
    """Return the pattern of an endpoint's path; None for a path without a parameter."""
    match = _PARAMETER.fullmatch(path)
    return None if match is None else Pattern(match["before"], match["name"], bool(match["slashes"]), match["after"])


def sub_routes(endpoints: Sequence[Endpoint]) -> dict[str, frozenset[str]]:
    """Map the path before a ``:path`` id to the segments that follow such an id in other routes."""
    patterns = [pattern for endpoint in endpoints if (pattern := _pattern(endpoint.path))]
    found: dict[str, set[str]] = {
        pattern.before: set() for pattern in patterns if pattern.with_slashes and not pattern.after
    }
    for pattern in patterns:
        if pattern.after and pattern.before in found:
            found[pattern.before].add(pattern.after.split("/")[1])
    return {before: frozenset(names) for before, names in found.items() if names}


class Router:
    """Route to an endpoint, to one of the ``documents`` by path, or to the ASGI app ``screens`` (None: answer 404)."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        services: Services,
        documents: Mapping[str, ASGIApp],
        screens: ASGIApp | None,
    ) -> None:
        self._requests = services.requests
        self._backend = services.backend
        self._keys = services.keys
        self._aliases = Aliases(())
        self._alias_routes: Sequence[AliasRoute] = ()
        self._services = services
        self._routes = frozenset((endpoint.method, endpoint.path.replace(":path}", "}")) for endpoint in endpoints)
        self._screens = screens
        self._exact: dict[str, Methods] = {path: {"GET": app, "HEAD": app} for path, app in documents.items()}
        patterns: dict[Pattern, Methods] = {}
        for endpoint in endpoints:
            app = AsgiEndpoint(endpoint, services)
            pattern = _pattern(endpoint.path)
            found = self._exact.setdefault(endpoint.path, {}) if pattern is None else patterns.setdefault(pattern, {})
            found[endpoint.method] = app
            if endpoint.method == "GET":
                found["HEAD"] = app
        # The longest first: “/api/notifications/user/ada” is not the notification “user/ada”.
        longest_first = sorted(patterns.items(), key=lambda one: (-len(one[0].before), -len(one[0].after)))
        self._patterns = [(pattern.before, pattern, apps) for pattern, apps in longest_first]
        self._ending_in_a_segment = {one[0][:-1]: one for one in self._patterns if not one[1].after}
        self._below = sub_routes(endpoints)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        if (routes := self._backend.alias_routes) and await self._serve_alias(routes, scope, receive, send):
            return
        app, methods = self._find(scope)
        if app is not None:
            await app(scope, receive, send)
            return
        if routes:
            methods |= self._aliases.methods(scope["path"])
        send = counting(self._requests, scope, send)
        if methods or scope["path"].startswith(API_PATH):
            await _refuse(sorted(methods), scope, receive, send)
        else:
            await self._other(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[ASGIApp | None, set[str]]:
        """Return the app of a request and put the path's parameters into ``scope``; without an app, the methods that
        the path takes."""
        path, method = scope["path"], scope["method"]
        exact = self._exact.get(path)
        if exact is not None:
            app = exact.get(method)
            return app, set() if app is not None else set(exact)
        methods: set[str] = set()
        before, _, last_segment = path.rpartition("/")
        closest = self._ending_in_a_segment.get(before) if last_segment else None
        # Most requests match here; no pattern can be longer, so the others are compared only without a match.
        for before, pattern, apps in self._patterns if closest is None else (closest, *self._patterns):
            if not path.startswith(before):
                continue
            value = pattern.value_in(path)
            if value is None or (not pattern.after and "/" in value and self._leads_below(scope, before)):
                continue
            if (app := apps.get(method)) is not None:
                scope["path_params"] = {pattern.name: value}
                return app, methods
            methods |= apps.keys()
        return None, methods

    async def _serve_alias(self, routes: Sequence[AliasRoute], scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer a request to an alias by the built-in route; return False for any other request."""
        if routes is not self._alias_routes:
            self._aliases, self._alias_routes = Aliases(routes), routes
        found = self._aliases.find(scope["method"], scope["path"])
        if found is None:
            return False
        fault: FlashFlowError
        try:
            changed, replay = await rewritten(*found, self._routes, scope, receive)
            app, _ = self._find(changed)
            if found[0].admin:
                authorize(self._services, headers_of(scope), "admin")
            if app is not None:
                await app(changed, replay, send)
                return True
            fault = ValidationError(f"This request stands for {changed['path']}, which is no route.")
        except Disconnected:
            return True
        except (Forbidden, PayloadTooLarge, Unauthorized, ValidationError) as error:
            fault = error
        if isinstance(fault, ValidationError):
            try:
                self._keys.bearer(headers_of(scope).get(b"authorization", b""))  # a caller without a key learns nothing
            except Unauthorized as error:
                fault = error
        close = isinstance(fault, PayloadTooLarge)
        await respond(counting(self._requests, scope, send), refusal(fault), close=close)
        return True

    def _leads_below(self, scope: Scope, before: str) -> bool:
        """Whether a segment after the id is a sub-route: ``ada/consent`` has one, the id ``ada%2Fconsent`` has none."""
        segments = scope["raw_path"].split(b"/")[before.count("/") + 1 :]
        return any(unquote_to_bytes(segment).decode() in self._below.get(before, ()) for segment in segments)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._screens is not None:
            await self._screens(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": NOTHING_HERE})
        else:
            await _refuse([], scope, receive, send)


async def _refuse(allowed: list[str], scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 404, or 405 where the address has ``allowed`` methods."""
    drained = await drain(receive, scope["headers"])
    if allowed:
        methods = ", ".join(allowed)
        body = problem_bytes(405, "method_not_allowed", "Not that method", f"{scope['path']} takes {methods}.")
        response = ApiResponse(405, body, ((b"allow", methods.encode()),))
    else:
        response = ApiResponse(404, problem_bytes(404, "not_found", "Not found", NOTHING_HERE))
    await respond(send, response, close=not drained)
