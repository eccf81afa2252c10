"""The OpenAPI 3.1 document generated from the endpoint table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.response_schemas import EXAMPLE_KINDS, SCHEMAS
from flashflow.backend.api.http.problem_json import Problem
from flashflow.backend.core.config import VERSION
from flashflow.backend.data.import_activities import ImportedActivityIn, ImportIn
from flashflow.backend.data.import_notifications import ImportedNotificationIn, ImportNotificationsIn
from flashflow.backend.data.import_sessions import ImportedSessionIn, ImportSessionsIn
from flashflow.backend.schemas.requests import ActivityIn, BatchIn

PROBLEMS = (
    ("400", "validation_error", "The request is not valid: `errors` names each field."),
    ("400", "bad_request", "The bytes received are not a valid HTTP/1.1 request."),
    ("401", "unauthorized", "No key, or one that is unknown or revoked. Run `flashflow key`."),
    ("403", "forbidden", "The key lacks a scope, or the request comes from another site."),
    ("404", "not_found", "Nothing there, or another app's row."),
    ("405", "method_not_allowed", "The address is right, the method is not; `Allow` lists those that are."),
    ("408", "request_timeout", "The request took longer than 10 s to arrive."),
    ("409", "conflict", "The change does not fit what is stored."),
    ("410", "erased", "The user was erased, and nothing is stored of them until an admin readmits them."),
    ("413", "payload_too_large", "The body has more than 1 MiB."),
    ("415", "unsupported_media_type", "The body is not declared as JSON."),
    ("422", "idempotency_mismatch", "The Idempotency-Key belongs to another request."),
    ("429", "rate_limited", "This key follows too many streams, or does not read its answers; try again soon."),
    ("431", "headers_too_large", "The headers have more than 16 KiB."),
    ("500", "internal_error", "A fault of FlashFlow's own; its log says more."),
    ("503", "storage_unavailable", "The storage cannot be used now."),
    ("503", "stopping", "FlashFlow is shutting down and takes no more writes."),
    ("503", "too_many_connections", "Too many connections are open; try again soon."),
    ("504", "timeout", "No answer in 10 s; send it again with the same id or Idempotency-Key."),
    ("507", "storage_full", "The disk is full. Reading goes on; writing resumes when there is room."),
)
"""Status, code and meaning of every problem."""
_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")


def document(endpoints: Sequence[Endpoint], url: str) -> dict[str, Any]:
    """Return the OpenAPI document of ``endpoints``, served at ``url``."""
    kinds = [kind for e in endpoints for kind in (e.body, e.query) if kind is not None]
    answers = dict.fromkeys(kind for e in endpoints for kind in e.responses.values())
    named = [*kinds, *answers, *EXAMPLE_KINDS, *(kind for _, _, kind in ROWS), Problem]
    _, components = msgspec.json.schema_components(named, ref_template=f"{SCHEMAS}{{name}}")
    for kind, field, row in ROWS:
        components[kind.__name__]["properties"][field]["items"] = {"$ref": SCHEMAS + row.__name__}
    components = {name: _for_generators(schema) for name, schema in components.items()}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(plain(endpoint.path), {})[endpoint.method.lower()] = _operation(endpoint, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "FlashFlow",
            "version": VERSION,
            "summary": "The notification centre and activity log of this machine.",
            "description": "A 2xx to a write means that it is on disk.",
        },
        "servers": [{"url": url, "description": "This server"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "`flashflow key`"}},
        },
    }


ROWS = (
    (BatchIn, "activities", ActivityIn),
    (ImportIn, "activities", ImportedActivityIn),
    (ImportSessionsIn, "sessions", ImportedSessionIn),
    (ImportNotificationsIn, "notifications", ImportedNotificationIn),
)
"""Body type, its list field and the type of the rows, for rows that are decoded one by one."""


def plain(path: str) -> str:
    """Return ``/api/users/{user_id}`` for ``/api/users/{user_id:path}``."""
    return _PARAMETER.sub(r"{\1}", path)


def _for_generators(schema: Any) -> Any:
    """Return a schema adapted to client generators.

    A default moves into the description: generated TypeScript makes a field with a default required. An object without
    declared properties states ``additionalProperties``: generators treat it as empty otherwise.
    """
    if isinstance(schema, list):
        return [_for_generators(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: one if name in _AS_IS else _for_generators(one) for name, one in schema.items()}
    if "properties" in schema:
        made["properties"] = {name: _for_generators(one) for name, one in schema["properties"].items()}
    default = made.pop("default", None)
    if default is not None:
        words = f"Default: {msgspec.json.encode(default).decode()}"
        made["description"] = f"{made['description']}. {words}" if "description" in made else words
    words = made.get("enum", ())
    if words and all(isinstance(word, str) for word in words):
        made["type"] = "string"
    elif len(words) == 1 and isinstance(words[0], bool):  # some generators reject an enum of booleans
        made = {"type": "boolean", "const": made.pop("enum")[0], **made}
    if made.get("type") == "object" and "properties" not in made:
        made.setdefault("additionalProperties", True)
    return made


_AS_IS = frozenset({"default", "enum", "required", "const", "properties"})


def _parameter(name: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:
    """Return a query parameter. It is text, so a null choice is removed."""
    choices = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if len(choices) == 1:
        schema = {name: value for name, value in schema.items() if name != "anyOf"} | choices[0]
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _operation(endpoint: Endpoint, components: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": endpoint.summary,
        "description": f"Needs the scope `{endpoint.scope}`." if endpoint.scope else "Needs no key.",
        "operationId": endpoint.operation or endpoint.handler.__name__,
        "tags": [endpoint.path.split("/")[2]],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(endpoint.path)
        ],
        "responses": _responses(endpoint),
    }
    if endpoint.scope:
        described["security"] = [{"key": []}]
    if endpoint.query is not None:
        schema = components[endpoint.query.__name__]
        required = schema.get("required", ())
        for name, field in schema.get("properties", {}).items():
            described["parameters"].append(_parameter(name, field, name in required))
    if endpoint.creates:
        described["parameters"].append(
            {"name": "Idempotency-Key", "in": "header", "required": False,
             "schema": {"type": "string", "maxLength": 255}}
        )  # fmt: skip
    if endpoint.body is not None:
        content = {"application/json": {"schema": {"$ref": SCHEMAS + endpoint.body.__name__}}}
        described["requestBody"] = {"required": not endpoint.body_optional, "content": content}
    return described


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    words = endpoint.answer.removeprefix("201 ")
    made: dict[str, Any] = {
        str(status): {
            "description": words,
            "content": {"application/json": {"schema": {"$ref": SCHEMAS + kind.__name__}}},
        }
        for status, kind in sorted(endpoint.responses.items())
    }
    if not made:
        made["200"] = {"description": words, "content": {kind: {"schema": _BARE} for kind in endpoint.media_types}}
    problem = {"application/problem+json": {"schema": {"$ref": f"{SCHEMAS}Problem"}}}
    for status in _refusals(endpoint):
        codes = [f"`{code}`" for known, code, _ in PROBLEMS if known == str(status)]
        made[str(status)] = {"description": ", ".join(codes), "content": problem}
    made["default"] = {"description": "A problem (RFC 9457)", "content": problem}
    return made


_BARE = {"type": "string"}


def _refusals(endpoint: Endpoint) -> list[int]:
    """Return the error statuses that the endpoint may answer with."""
    writes = endpoint.method != "GET"
    found = {400, 403, 405, 408, 413, 415, 429, 431, 500, 503, 504}
    if endpoint.scope:
        found |= {401}
    if "{" in endpoint.path or writes or endpoint.path == "/api/web-push-key":
        found |= {404}
    if writes:
        found |= {409, 410, 507}
    if endpoint.creates:
        found |= {422}
    return sorted(found)
