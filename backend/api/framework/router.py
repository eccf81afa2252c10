"""Fast routing: find an endpoint by its whole path, or by the path before its last parameter.

Starlette's router tries one pattern after another inside three layers of error handling: half the time of a small
request. An AsgiEndpoint handles its own errors and needs none of it. Requests not found here (other methods, documents,
screens) go through Starlette.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from flashflow.backend.api.framework.context import Services
from flashflow.backend.api.framework.endpoint import AsgiEndpoint, Endpoint
from flashflow.backend.api.http.request_metrics import counting

_TAIL = re.compile(r"(?P<before>[^{}]*/)\{(?P<name>\w+)(?P<path>:path)?\}")

_BELOW = re.compile(r"(?P<before>[^{}]*/)\{\w+(?::path)?\}/(?P<segment>[^/{}]+).*")


def sub_routes(endpoints: Sequence[Endpoint]) -> dict[str, frozenset[str]]:
    """Map the path before a ``:path`` id to the segments that follow such an id in other routes."""
    found: dict[str, set[str]] = {}
    for endpoint in endpoints:
        if (match := _TAIL.fullmatch(endpoint.path)) and match["path"]:
            found.setdefault(match["before"], set())
    for endpoint in endpoints:
        if (match := _BELOW.fullmatch(endpoint.path)) and match["before"] in found:
            found[match["before"]].add(match["segment"])
    return {before: frozenset(names) for before, names in found.items() if names}


class Router:
    """Route to an endpoint, else to the ASGI app ``otherwise``."""

    def __init__(self, endpoints: Sequence[Endpoint], services: Services, otherwise: ASGIApp) -> None:
        self._otherwise = otherwise
        self._requests = services.requests
        self._exact: dict[tuple[str, str], ASGIApp] = {}
        tails: list[tuple[str, str, str, bool, ASGIApp]] = []
        for endpoint in endpoints:
            app = AsgiEndpoint(endpoint, services, services.requests)
            if "{" not in endpoint.path:
                self._exact[endpoint.method, endpoint.path] = app
            elif match := _TAIL.fullmatch(endpoint.path):
                tails.append((match["before"], endpoint.method, match["name"], bool(match["path"]), app))
        self._below = sub_routes(endpoints)
        self._paths = {path for _, path in self._exact}
        self._tails = sorted(tails, key=lambda tail: -len(tail[0]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._find(scope) if scope["type"] == "http" else None
        if app is not None:
            await app(scope, receive, send)
        else:
            await self._otherwise(scope, receive, counting(self._requests, scope, send))

    def _leads_below(self, scope: Scope, before: str) -> bool:
        """Whether a segment after the id is a sub-route: ``ada/consent`` has one, the id ``ada%2Fconsent`` has none."""
        names = self._below.get(before)
        if names is None:
            return False
        segments = scope["raw_path"].split(b"/")[before.count("/") + 1 :]
        return any(unquote_to_bytes(segment).decode() in names for segment in segments)

    def _find(self, scope: Scope) -> ASGIApp | None:
        path, method = scope["path"], scope["method"]
        app = self._exact.get((method, path))
        if app is not None or path in self._paths:
            return app
        for before, route_method, name, whole, tail_app in self._tails:
            if path.startswith(before):
                rest = path[len(before) :]
                if route_method == method and rest and (whole or "/" not in rest):
                    if "/" in rest and self._leads_below(scope, before):
                        return None
                    scope["path_params"] = {name: rest}
                    return tail_app
                if whole:
                    return None
        return None
