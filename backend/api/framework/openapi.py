"""The OpenAPI 3.1 document generated from the endpoint table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.response_schemas import EXAMPLE_KINDS, SCHEMAS, part, written
from flashflow.backend.api.http import problem_json
from flashflow.backend.core.config import VERSION
from flashflow.backend.data.import_activities import ImportedActivityIn, ImportIn
from flashflow.backend.data.import_notifications import ImportedNotificationIn, ImportNotificationsIn
from flashflow.backend.data.import_sessions import ImportedSessionIn, ImportSessionsIn
from flashflow.backend.schemas.requests import END, ActivityIn, BatchIn

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

TAGS = {
    "activity": "Activities of users",
    "activity-types": "Key activities",
    "analytics": "Metrics of users, pages, features, retention and funnels",
    "channels": "States and tests of the delivery channels",
    "devices": "Registrations for push",
    "export": "Stored rows as a file",
    "health": "Whether FlashFlow works",
    "import": "Rows of an export",
    "keys": "API keys and their scopes",
    "launch": "Links that open the screens in a browser",
    "metrics": "Metrics for Prometheus",
    "notification-types": "Types of notifications and their delivery policy",
    "notifications": "Send, inbox, preferences and delivery settings",
    "proof": "Proof of the server's identity",
    "prune": "Deletion of old rows",
    "rules": "Notifications sent when an activity happens or a metric changes",
    "schedules": "Recurring notifications",
    "session": "Start and end of a session",
    "sessions": "Lists of sessions",
    "stream": "Server-sent events",
    "templates": "Texts with variables",
    "users": "Contacts, consent, export and erasure of a user",
    "web-push-key": "The key for browsers' push subscriptions",
}
"""The segment of a path after ``/api/``, and its description."""

ROWS = (
    (BatchIn, "activities", ActivityIn),
    (ImportIn, "activities", ImportedActivityIn),
    (ImportSessionsIn, "sessions", ImportedSessionIn),
    (ImportNotificationsIn, "notifications", ImportedNotificationIn),
)
"""Body type, its list field and the type of the rows, for rows that are decoded one by one."""

PROBLEM = part("Problem", problem_json.Problem, doc="The body of an error response (RFC 9457)", success=Literal[False])
PROBLEM_EXAMPLE = {
    "type": "/docs#errors-validation_error",
    "title": "The request is not valid",
    "status": 400,
    "detail": "user_id: is required",
    "success": False,
    "code": "validation_error",
    "errors": [{"field": "user_id", "message": "is required"}],
}
EVERYWHERE = (400, 403, 408, 413, 415, 431, 500, 503, 504)
"""Error statuses that every route may answer with."""
RESPONSES = "#/components/responses/"
_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")


def document(endpoints: Sequence[Endpoint], url: str) -> dict[str, Any]:
    """Return the OpenAPI document of ``endpoints``, served at ``url``."""
    schemas = _schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(plain(endpoint.path), {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    responses = {_response_name(status): _problem_response(status) for status in sorted(set(map(int, _codes())))}
    del responses[_response_name(405)]  # no described operation answers it
    tags = dict.fromkeys(_tag(endpoint) for endpoint in endpoints)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "FlashFlow",
            "version": VERSION,
            "summary": "The notification centre and activity log of this machine.",
            "description": "A 2xx to a write means that it is on disk.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": url, "description": "This server"}],
        "tags": [{"name": tag, "description": TAGS[tag]} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": _used(schemas, [paths, responses]),
            "responses": responses,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "`flashflow key`"}},
        },
    }


def plain(path: str) -> str:
    """Return ``/api/users/{user_id}`` for ``/api/users/{user_id:path}``."""
    return _PARAMETER.sub(r"{\1}", path)


def _schemas(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the schemas of all types by name, those of queries too."""
    kinds = [kind for e in endpoints for kind in (e.body, e.query) if kind is not None]
    answers = dict.fromkeys(answer.struct for e in endpoints for answer in e.responses.values())
    named = [*kinds, *answers, *map(written, EXAMPLE_KINDS), *(kind for _, _, kind in ROWS), PROBLEM.struct]
    _, made = msgspec.json.schema_components(named, ref_template=f"{SCHEMAS}{{name}}")
    for kind, field, row in ROWS:
        made[kind.__name__]["properties"][field]["items"] = {"$ref": SCHEMAS + row.__name__}
    schemas = {name: _for_generators(schema) for name, schema in made.items()}
    schemas["Problem"]["examples"] = [PROBLEM_EXAMPLE]
    return schemas


def _used(schemas: Mapping[str, Any], roots: Any) -> dict[str, Any]:
    """Return those of ``schemas`` that ``roots`` refer to, directly or through others."""
    used: dict[str, Any] = {}
    waiting = list(_references(roots))
    while waiting:
        name = waiting.pop()
        if name not in used:
            used[name] = schemas[name]
            waiting.extend(_references(schemas[name]))
    return {name: schema for name, schema in schemas.items() if name in used}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        target = node.get("$ref")
        if isinstance(target, str) and target.startswith(SCHEMAS):
            yield target.removeprefix(SCHEMAS)
        node = list(node.values())
    if isinstance(node, list):
        for one in node:
            yield from _references(one)


def _for_generators(schema: Any) -> Any:
    """Return a schema adapted to client generators.

    A default moves into the description: generated TypeScript makes a field with a default required. An object without
    declared properties states ``additionalProperties``: generators treat it as empty otherwise. Numbers have their
    size: an integer without a format has 32 bits in some languages.
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
    if "pattern" in made:
        made["pattern"] = _portable(made["pattern"])
    words = made.get("enum", ())
    if words and all(isinstance(word, str) for word in words):
        made["type"] = "string"
    elif len(words) == 1 and isinstance(words[0], bool):  # some generators reject an enum of booleans
        made = {"type": "boolean", "const": made.pop("enum")[0], **made}
    match made.get("type"):
        case "object" if "properties" not in made:
            made.setdefault("additionalProperties", True)
        case "integer":
            made["format"] = "int32" if made.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64"
        case "number":
            made["format"] = "double"
    return made


_AS_IS = frozenset({"default", "enum", "required", "const", "properties"})
_INT32_MAX = 2**31 - 1
_AT_LEAST_ONE = re.compile(r"\(\?=(\[[^]]*\]\*\[[^]]*\])\)")


def _portable(pattern: str) -> str:
    """Return ``pattern`` without look-ahead, which RE2 and Rust do not have; it accepts the same texts.

    ``(?=[…]*[…])[…]*`` becomes ``[…]*[…][…]*``.
    """
    return _AT_LEAST_ONE.sub(r"\1", pattern).replace(END, "$")


def _parameter(name: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:
    """Return a query parameter. It is text, so a null choice is removed."""
    choices = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if len(choices) == 1:
        schema = {name: value for name, value in schema.items() if name != "anyOf"} | choices[0]
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _header(name: str, description: str, **limits: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description,
            "schema": {"type": "string", **limits}}  # fmt: skip


def _tag(endpoint: Endpoint) -> str:
    return endpoint.path.split("/")[2]


def _operation(endpoint: Endpoint, schemas: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": endpoint.summary,
        "description": f"Needs the scope `{endpoint.scope}`." if endpoint.scope else "Needs no key.",
        "operationId": endpoint.operation or endpoint.handler.__name__,
        "tags": [_tag(endpoint)],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(endpoint.path)
        ],
        "responses": _responses(endpoint),
        "security": [{"key": []}] if endpoint.scope else [],
    }
    if endpoint.query is not None:
        schema = schemas[endpoint.query.__name__]
        required = schema.get("required", ())
        for name, field in schema.get("properties", {}).items():
            described["parameters"].append(_parameter(name, field, name in required))
    if endpoint.creates:
        words = "A repeated request with the same key gets the first answer, for 24 hours"
        described["parameters"].append(_header("Idempotency-Key", words, minLength=1, maxLength=255))
    if "text/event-stream" in endpoint.media_types:
        words = "The id of the last event received: the stream continues after it"
        described["parameters"].append(_header("Last-Event-ID", words))
    if endpoint.body is not None:
        content: dict[str, Any] = {"schema": {"$ref": SCHEMAS + endpoint.body.__name__}}
        if endpoint.example is not None:
            content["example"] = endpoint.example
        described["requestBody"] = {
            "required": not endpoint.body_optional, "content": {"application/json": content}
        }  # fmt: skip
    return described


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    words = endpoint.answer.removeprefix("201 ")
    made: dict[str, Any] = {
        str(status): {
            "description": words,
            "content": {"application/json": {"schema": {"$ref": SCHEMAS + answer.name}}},
        }
        for status, answer in sorted(endpoint.responses.items())
    }
    if not made:
        made["200"] = {
            "description": words,
            "content": {kind: {"schema": _file(kind)} for kind in endpoint.media_types},
        }
    if endpoint.creates:
        for response in made.values():
            response["headers"] = {"Idempotency-Replayed": _REPLAYED}
    for status in _refusals(endpoint):
        made[str(status)] = {"$ref": RESPONSES + _response_name(status)}
    made["default"] = {"description": "A problem (RFC 9457)", "content": _PROBLEM_CONTENT}
    return made


_PROBLEM_CONTENT = {problem_json.MEDIA_TYPE: {"schema": {"$ref": f"{SCHEMAS}Problem"}}}
_REPLAYED = {"description": "Present when an earlier answer is repeated", "schema": {"const": "true", "type": "string"}}


def _file(media_type: str) -> dict[str, Any]:
    """Return the schema of a response that is not JSON: text, or bytes."""
    return {"type": "string"} if media_type.startswith("text/") else {"type": "string", "format": "binary"}


def _codes() -> dict[str, list[str]]:
    """Map each error status to its codes."""
    found: dict[str, list[str]] = {}
    for status, code, _ in PROBLEMS:
        found.setdefault(status, []).append(code)
    return found


def _response_name(status: int) -> str:
    """Return ``StorageFull`` for 507: the first code of the status."""
    return _codes()[str(status)][0].title().replace("_", "")


def _problem_response(status: int) -> dict[str, Any]:
    words = " ".join(f"`{code}`: {words}" for known, code, words in PROBLEMS if known == str(status))
    made: dict[str, Any] = {"description": words, "content": _PROBLEM_CONTENT}
    if status in _PROBLEM_HEADERS:
        name, description, schema = _PROBLEM_HEADERS[status]
        made["headers"] = {name: {"description": description, "schema": schema}}
    return made


_PROBLEM_HEADERS: Mapping[int, tuple[str, str, dict[str, str]]] = {
    401: ("WWW-Authenticate", "The scheme: Bearer", {"type": "string"}),
    429: ("Retry-After", "Seconds until the next try", {"type": "integer", "format": "int32"}),
}


def _refusals(endpoint: Endpoint) -> list[int]:
    """Return the error statuses that the endpoint may answer with."""
    found = {*EVERYWHERE, *endpoint.refusals}
    if endpoint.scope:
        found.add(401)
        if endpoint.method == "GET":
            found.add(429)
    if "{" in endpoint.path:
        found.add(404)
    if endpoint.method != "GET":
        found.add(507)
    if endpoint.creates:
        found.add(422)
    return sorted(found)
