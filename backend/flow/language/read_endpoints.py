"""Read endpoints, and compare them with the built-in routes of the API."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from flashflow.backend.flow.language.declarations import Alias, Endpoint, Field, Method
from flashflow.backend.flow.language.errors import FlowError, Place
from flashflow.backend.flow.language.read_models import read_fields
from flashflow.backend.flow.language.reader import Reader
from flashflow.backend.flow.language.syntax import Block, Declared, Entry
from flashflow.backend.flow.language.vocabulary import CONSTRUCTS, METHODS
from flashflow.backend.schemas.validation import nearest

_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~-]+|\{[A-Za-z_][A-Za-z0-9_]*\}))+")
_PARAMETER = re.compile(r"\{([^}]*)\}")
_SAME_FIELDS = (("type", "notification_type"), ("to", "user_id"), ("id", "notification_id"))
"""Fields of the first FlashFlow, by their names in the API."""

KNOWN = {
    ("POST", "/api/track-activity"): Alias("POST", "/api/activity/track"),
    ("GET", "/api/user-activities"): Alias("GET", "/api/activity"),
    ("GET", "/api/notifications"): Alias("GET", "/api/notifications/user/{user_id}"),
    ("PUT", "/api/notifications/{id}/status"): Alias("POST", "/api/notifications/{status}/{notification_id}"),
    ("PUT", "/api/notification-preferences"): Alias("POST", "/api/notifications/preferences"),
}
"""Paths of the first FlashFlow that need no ``alias``. A parameter of the built-in path comes from the path, the query
or the body of the endpoint."""


@dataclass(frozen=True, slots=True)
class Route:
    """Built-in route of the API with the names of its fields and parameters. ``any_field``: the body is free."""

    method: str
    path: str
    request: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    query: frozenset[str] = frozenset()
    any_field: bool = False

    @property
    def parameters(self) -> frozenset[str]:
        """Names of the parameters in the path."""
        return frozenset(_PARAMETER.findall(self.path))


def read_endpoint(reader: Reader, declared: Declared, name: str) -> Endpoint | None:
    """Read an endpoint."""
    construct = CONSTRUCTS["endpoint"]
    reader.only_entries(construct, declared.block)
    entries = reader.entries(construct, declared.block, declared)
    method = reader.word(entries["method"], METHODS) if "method" in entries else "GET"
    path = _path(reader, entries["path"]) if "path" in entries else None
    description = reader.text(entries["description"]) if "description" in entries else ""
    auth = reader.word(entries["auth"], ("required", "admin")) if "auth" in entries else "required"
    fields = {key: _fields(reader, entries, key) for key in ("request", "query_params", "path_params", "response")}
    alias = _alias(reader, entries["alias"]) if "alias" in entries else None
    if path is None or method is None:
        return None
    _check_parameters(reader, entries, path, fields["path_params"])
    if method == "GET" and fields["request"]:
        reader.fail(entries["request"], "a GET request has no body", "Write its parameters into `query_params`.")
    return Endpoint(
        name, path, cast(Method, method), reader.place(declared.heads[0]), description or "", **fields,
        auth="admin" if auth == "admin" else "required", alias_of=alias,
        places=tuple((key, reader.place(entry.values[0])) for key, entry in entries.items()),
    )  # fmt: skip


def _fields(reader: Reader, entries: dict[str, Entry], key: str) -> tuple[Field, ...]:
    if key not in entries:
        return ()
    block = reader.single(entries[key])
    if not isinstance(block, Block):
        reader.fail(block, f"“{key}” needs a block", f"Write `{key}: {{ user_id: string required }}`.")
        return ()
    return read_fields(reader, block, key)


def _path(reader: Reader, entry: Entry) -> str | None:
    path = reader.text(entry)
    if path is None:
        return None
    if not _PATH.fullmatch(path) or not path.startswith("/api/") or len(path) > 200:
        hint = 'Write it as "/api/orders/{id}": letters, digits, “-”, “_”, “.”, and parameters in braces.'
        reader.fail(entry.values[0], "this is not a path of the API", hint)
        return None
    return path


def _alias(reader: Reader, entry: Entry) -> Alias | None:
    text = reader.text(entry)
    if text is None:
        return None
    method, _, path = text.partition(" ")
    if method not in METHODS or not _PATH.fullmatch(path):
        hint = 'Write a method and a path: `alias: "POST /api/activity/track"`.'
        reader.fail(entry.values[0], "this is not a built-in route", hint)
        return None
    return Alias(cast(Method, method), path)


def _check_parameters(reader: Reader, entries: dict[str, Entry], path: str, fields: tuple[Field, ...]) -> None:
    """Compare the parameters of a path with the declared ones."""
    named = _PARAMETER.findall(path)
    if len(set(named)) < len(named):
        reader.fail(entries["path"].values[0], "this path has a parameter twice", "Rename one of them.")
    for field in fields:
        if field.name not in named:
            reader.fail_at(field.place, f"the path has no “{{{field.name}}}”", "Write it into the path, or remove it.")


# --- built-in routes --------------------------------------------------------------------------------------------------


def resolve(endpoint: Endpoint, routes: Sequence[Route], errors: list[FlowError]) -> Endpoint:
    """Return the endpoint with the built-in route that answers it. Without one, and for fields that the route lacks,
    add errors."""
    alias = endpoint.alias_of or KNOWN.get((endpoint.method, endpoint.path))
    target = alias or Alias(endpoint.method, endpoint.path)
    route = _find(target, routes)
    if route is None:
        errors.append(_no_route(endpoint, target, routes))
        return endpoint
    same = alias is None or (target.method, _shape(target.path)) == (endpoint.method, _shape(endpoint.path))
    if not same and _find(Alias(endpoint.method, endpoint.path), routes) is not None:
        message = f"{endpoint.method} {endpoint.path} is a built-in route already"
        place = dict(endpoint.places).get("path", endpoint.place)
        errors.append(FlowError(place, message, "Remove `alias`, or use another path."))
        return endpoint
    renamed = _compare(endpoint, target, route, errors)
    return endpoint if same and not renamed else replace(endpoint, alias_of=replace(target, renamed=renamed))


def _find(target: Alias, routes: Sequence[Route]) -> Route | None:
    shape = _shape(target.path)
    fitting = [route for route in routes if route.method == target.method and _shape(route.path) == shape]
    if fitting:
        return fitting[0]
    # A parameter in place of a fixed part: “/api/notifications/{status}/{notification_id}”.
    pattern = re.compile("[^/]+".join(re.escape(part) for part in shape.split("{}")))
    return next((route for route in routes if route.method == target.method and pattern.fullmatch(route.path)), None)


def _shape(path: str) -> str:
    """Return a path without the names of its parameters."""
    return _PARAMETER.sub("{}", path)


def _no_route(endpoint: Endpoint, target: Alias, routes: Sequence[Route]) -> FlowError:
    known = tuple(route.path for route in routes if route.method == target.method)
    near = nearest(target.path, known) or "/api/activity/track"
    method = target.method if near in known else "POST"
    message = f"FlashFlow has no route {target.method} {target.path}"
    place = dict(endpoint.places).get("alias" if endpoint.alias_of else "path", endpoint.place)
    return FlowError(place, message, f'Name the built-in route that answers: `alias: "{method} {near}"`.')


def _compare(endpoint: Endpoint, target: Alias, route: Route, errors: list[FlowError]) -> tuple[tuple[str, str], ...]:
    """Return the renamed fields. Fields that the route lacks, and required ones that are missing, are errors."""
    parameters = frozenset(_PARAMETER.findall(target.path)) | route.parameters
    known = route.request | route.query | parameters
    renamed: dict[str, str] = {}
    given: set[str] = set()
    for field in (*endpoint.request, *endpoint.query_params, *endpoint.path_params):
        name = field.name if field.name in known else dict(_SAME_FIELDS).get(field.name, field.name)
        if name != field.name and name in known:
            renamed[field.name] = name
        if name not in known and not route.any_field:
            errors.append(_unknown_field(field.place, field.name, route, known))
        given.add(name)
    declared = bool(endpoint.request or endpoint.query_params)
    named = {dict(_SAME_FIELDS).get(name, name) for name in _PARAMETER.findall(endpoint.path)}
    for name in sorted(route.required - given - named) if declared else []:
        message = f"{route.method} {route.path} requires “{name}”"
        errors.append(FlowError(endpoint.place, message, f"Add it: `{name}: string required`."))
    return tuple(renamed.items())


def _unknown_field(place: Place, name: str, route: Route, known: frozenset[str]) -> FlowError:
    near = nearest(name, tuple(sorted(known)))
    hint = f"Did you mean “{near}”?" if near else f"It has {', '.join(sorted(known)) or 'no fields'}."
    return FlowError(place, f"{route.method} {route.path} has no field “{name}”", hint)
