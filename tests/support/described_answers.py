"""Every answer that a test gets is compared with the OpenAPI document: status, media type, and a body without a field
that is not described."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import jsonschema_rs

from flashflow.backend.api.app import ENDPOINTS
from flashflow.backend.api.framework.openapi import document
from flashflow.backend.api.http.problem_json import MEDIA_TYPE

DOCUMENT = document(ENDPOINTS, "http://127.0.0.1:8750")
PROBLEM = {"$ref": "#/components/schemas/Problem"}
Operation = tuple[str, str]
"""Method and path of the document: ``("GET", "/api/users/{user_id}/consent")``."""

seen: set[tuple[str, str, int]] = set()
"""Method, path and status of the answers of this process."""


def operations() -> dict[Operation, dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }


def schemas(node: Any) -> Iterator[dict[str, Any]]:
    """Every schema inside ``node``, at any depth."""
    if isinstance(node, list):
        for one in node:
            yield from schemas(one)
    elif isinstance(node, dict):
        yield node
        for name, one in node.items():
            if name == "properties":
                for inner in one.values():
                    yield from schemas(inner)
            elif name not in {"enum", "const", "required", "example", "examples"}:
                yield from schemas(one)


def _closed() -> dict[str, Any]:
    components = deepcopy(DOCUMENT["components"]["schemas"])
    for schema in schemas(components):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return {"components": {"schemas": components}}


_CLOSED = _closed()


@cache
def _validator(reference: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({"$ref": reference, **_CLOSED}, validate_formats=True)


def _literal(path: str) -> int:
    return len(re.sub(r"\{\w+\}", "", path))


_ROUTES = [
    (re.compile(re.sub(r"\\\{\w+\\\}", "(.*)" if "{user_id}" in path or "{session_id}" in path else "([^/]+)",
                       re.escape(path))), path)
    for path in sorted(DOCUMENT["paths"], key=_literal, reverse=True)
]  # fmt: skip


def path_of(target: str) -> str | None:
    """The path of the document that a request's path belongs to."""
    return next((path for route, path in _ROUTES if route.fullmatch(target)), None)


def response_of(operation: dict[str, Any], status: int) -> dict[str, Any] | None:
    """The description of this status; None without one."""
    described: dict[str, Any] | None = operation["responses"].get(str(status))
    if described is not None and "$ref" in described:
        return dict(DOCUMENT["components"]["responses"][described["$ref"].rpartition("/")[2]])
    return described


def check(method: str, target: str, status: int, content_type: str, body: bytes) -> None:
    """Hold an answer to the document. ``target``: the path as it was sent."""
    path = path_of(target)
    place = (method, target, status, body[:2000])
    media = content_type.partition(";")[0]
    operation = DOCUMENT["paths"][path].get(method.lower()) if path else None
    if operation is None:  # nothing is described there, so only a problem may be answered
        if method != "HEAD":
            assert (media, status >= 400) == (MEDIA_TYPE, True), place
            hold(PROBLEM["$ref"], body, place)
        return
    described = response_of(operation, status)
    assert described is not None, f"not described: {place}"
    assert media in described["content"], place
    assert path is not None
    if media.endswith("json"):
        hold(described["content"][media]["schema"]["$ref"], body, place)
    seen.add((method, path, status))


def hold(reference: str, body: bytes, place: object) -> None:
    validator = _validator(reference)
    found = json.loads(body)
    faults = [f"{list(fault.instance_path)}: {fault.message[:300]}" for fault in validator.iter_errors(found)]
    assert faults == [], (reference, place)
