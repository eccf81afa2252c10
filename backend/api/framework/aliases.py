"""Other paths for built-in routes, as ``.flow`` files declare them: a request is rewritten, then routed as usual."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
from starlette.types import Message, Receive, Scope

from flashflow.backend.api.framework.request_body import headers_of, read_body
from flashflow.backend.core.encoding import encode_json
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.named_tuple import NamedTuple

PREFERENCES = "/api/notifications/preferences"
"""Route whose ``preferences`` are a list; those of an alias may be an object."""
_PARAMETER = re.compile(r"\{(\w+)\}")
_ANY_PARAMETER = re.compile(r"\{[^}]*\}")


Routes = Collection[tuple[str, str]]
"""Method and path of each built-in route."""


class AliasRoute(NamedTuple):
    """``method`` and ``path`` are answered by the route ``target_method`` and ``target_path``. ``renamed``: fields and
    parameters with another name there, as (here, there); ``defaults``: values of fields that a request lacks;
    ``texts``: fields whose whole numbers become texts; ``required``: fields and parameters that must be given, by their
    names here; ``admin``: whether the key needs the scope admin."""

    method: str
    path: str
    target_method: str
    target_path: str
    renamed: tuple[tuple[str, str], ...] = ()
    defaults: tuple[tuple[str, Any], ...] = ()
    texts: frozenset[str] = frozenset()
    required: tuple[str, ...] = ()
    admin: bool = False


class Aliases:
    """Aliases compiled for look-up."""

    def __init__(self, routes: Sequence[AliasRoute]) -> None:
        self._exact = {(route.method, route.path): route for route in routes if "{" not in route.path}
        self._patterns = [(route, _pattern(route.path)) for route in routes if "{" in route.path]

    def find(self, method: str, path: str) -> tuple[AliasRoute, Mapping[str, str]] | None:
        """Return the alias of a request, and the parameters in its path."""
        method = "GET" if method == "HEAD" else method
        if (exact := self._exact.get((method, path))) is not None:
            return exact, {}
        for route, pattern in self._patterns:
            if route.method == method and (match := pattern.fullmatch(path)) is not None:
                return route, match.groupdict()
        return None

    def methods(self, path: str) -> set[str]:
        """Return the methods that a path takes."""
        exact = {method for method, known in self._exact if known == path}
        return exact | {route.method for route, pattern in self._patterns if pattern.fullmatch(path)}


def _pattern(path: str) -> re.Pattern[str]:
    parts = _PARAMETER.split(path)
    return re.compile("".join(f"(?P<{part}>[^/]+)" if at % 2 else re.escape(part) for at, part in enumerate(parts)))


def shape(path: str) -> str:
    """Return a path without the names of its parameters."""
    return _ANY_PARAMETER.sub("{}", path)


async def rewritten(
    route: AliasRoute,
    parameters: Mapping[str, str],
    routes: Routes,
    scope: Scope,
    receive: Receive,
) -> tuple[Scope, Receive]:
    """Return the request as one to the built-in route: fields renamed, and the parameters of its path taken from the
    path, the query or the body. ``routes``: the built-in ones. Raises ValidationError
    that names each missing field, PayloadTooLarge, Disconnected.
    """
    headers = headers_of(scope)
    body = await read_body(receive, headers)
    names = dict(route.renamed)
    fields = _fields(body)
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    query = [(names.get(name, name), value) for name, value in query]
    rest: dict[str, Any] = {names.get(name, name): value for name, value in parameters.items()}
    if fields is not None:
        fields = {names.get(name, name): value for name, value in fields.items()}
        fields |= {name: str(fields[name]) for name in route.texts & fields.keys() if type(fields[name]) is int}
    path, raw_path = route.target_path, route.target_path
    for name in _PARAMETER.findall(route.target_path):
        value = _take(name, rest, query, fields)
        _check_word(route, name, value, routes)
        path = path.replace(f"{{{name}}}", value)
        raw_path = raw_path.replace(f"{{{name}}}", quote(value, safe=""))
    has_query = route.target_method in {"GET", "DELETE"}
    known = {name for name, _ in query} if has_query else fields
    if known is not None:
        rest |= {name: value for name, value in route.defaults if name not in known and name not in rest}
    if known is not None:
        _check_required(route, names, [*query, *rest.items(), *(fields or {}).items()])
    if has_query:
        query += [(name, str(value)) for name, value in rest.items() if name not in dict(query)]
    elif rest or fields is not None:
        fields = {**rest, **(fields or {})}
        if route.target_path == PREFERENCES and isinstance(fields.get("preferences"), dict):
            others = {name: value for name, value in fields.items() if name != "user_id"}  # refused where unknown
            fields = others | {"preferences": _choices(fields)}
        body = encode_json(fields)
    length = b"%d" % len(body)
    changed: Scope = {
        **scope,
        "method": scope["method"] if scope["method"] == "HEAD" else route.target_method,
        "path": path,
        "raw_path": raw_path.encode(),
        "query_string": urlencode(query).encode(),
        "headers": [(name, length if name == b"content-length" else value) for name, value in scope["headers"]],
        "flashflow.headers": headers | ({b"content-length": length} if b"content-length" in headers else {}),
    }
    return changed, _replay(body, receive)


def _check_word(route: AliasRoute, name: str, value: str, routes: Routes) -> None:
    """Check a parameter that stands for a fixed part of the built-in path, such as ``{status}``. Raises ValidationError
    that lists the values it takes."""
    path = route.target_path
    paths = [known for method, known in routes if method == route.target_method]
    if path.endswith(f"{{{name}}}") or shape(path) in map(shape, paths):
        return
    before, after = path.split(f"{{{name}}}")
    # The names of the other parameters decide, where they fit: “read-all” is followed by the id of a user.
    words = _between(before, after, paths) or _between(shape(before), shape(after), map(shape, paths))
    if value not in words:
        raise ValidationError.of(name, f"must be one of {', '.join(words)}")


def _between(before: str, after: str, paths: Iterable[str]) -> list[str]:
    """Return the segments of ``paths`` that stand between ``before`` and ``after``."""
    pattern = re.compile(f"{re.escape(before)}([^/{{}}]+){re.escape(after)}")
    return sorted(match[1] for path in paths if (match := pattern.fullmatch(path)))


def _check_required(route: AliasRoute, names: Mapping[str, str], given: Sequence[tuple[str, Any]]) -> None:
    """Raise ValidationError that names each required field that is missing, null or empty."""
    found = {name for name, value in given if value not in (None, "")} | set(_PARAMETER.findall(route.target_path))
    faults = ErrorCollector()
    for name in route.required:
        if names.get(name, name) not in found:
            faults.add(name, "is required")
    faults.done()


def _choices(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of ``{user_id, preferences}``: ``{channel: enabled}``, or ``{type: {channel: enabled}}``."""
    choices = []
    for name, value in fields["preferences"].items():
        channels = value if isinstance(value, dict) else {name: value}
        of_type = name if isinstance(value, dict) else "*"
        choices += [
            {"user_id": fields.get("user_id"), "notification_type": of_type, "channel": channel, "enabled": enabled}
            for channel, enabled in channels.items()
        ]
    return choices


def _fields(body: bytes) -> dict[str, Any] | None:
    """Return the fields of a JSON object; None for any other body, which the route refuses itself."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any]) if body else None
    except (msgspec.DecodeError, RecursionError):
        return None


def _take(name: str, rest: dict[str, Any], query: list[tuple[str, str]], fields: dict[str, Any] | None) -> str:
    """Remove a parameter of the built-in path from where the request has it. Raises ValidationError without it."""
    value = rest.pop(name, None)
    if value is None:
        value = next((found for given, found in query if given == name), None)
        query[:] = [one for one in query if one[0] != name]
    if value is None and fields is not None:
        value = fields.pop(name, None)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise ValidationError.of(name, "is required")
    return value


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that yields the body first, then what follows it."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
