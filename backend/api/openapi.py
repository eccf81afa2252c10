"""The API's own description: an OpenAPI 3.1 document drawn from the endpoints' table, and a page to read it on."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from backend.api.call import Endpoint
from backend.api.problems import Problem
from backend.config import VERSION

_ERRORS = (
    ("400", "validation_error", "The request is not valid: `errors` names each field."),
    ("400", "bad_request", "What came is not a valid HTTP/1.1 request."),
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
    ("503", "too_many_connections", "So many connections are open that this one has no place; try again in a moment."),
    ("504", "timeout", "No answer in 10 s; send it again with the same id or Idempotency-Key."),
    ("507", "storage_full", "The disk is full. Reading goes on; writing resumes when there is room."),
)
_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The OpenAPI document of ``endpoints`` and of the event stream."""
    kinds = [kind for e in endpoints for kind in (e.body, e.query) if kind is not None]
    _, components = msgspec.json.schema_components([*kinds, Problem], ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        path = _PARAMETER.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "FlashFlow",
            "version": VERSION,
            "summary": "The notification centre and activity log of this machine.",
            "description": "A 2xx to a write means that it is on disk.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "`flashflow key`"}},
        },
    }


def _operation(endpoint: Endpoint, components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "description": f"Needs the scope `{endpoint.scope}`." if endpoint.scope else "Needs no key.",
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method} {endpoint.path}").strip("_").lower(),
        "tags": [endpoint.path.split("/")[2]],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(endpoint.path)
        ],
        "responses": {
            "201" if endpoint.answer.startswith("201") else "200": {
                "description": endpoint.answer.removeprefix("201 "),
                "content": {endpoint.media_type: {"schema": {"type": _KINDS.get(endpoint.media_type, "string")}}},
            },
            "default": {
                "description": "A problem (RFC 9457)",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    if endpoint.scope:
        operation["security"] = [{"key": []}]
    if endpoint.query is not None:
        for name, schema in components[endpoint.query.__name__].get("properties", {}).items():
            operation["parameters"].append({"name": name, "in": "query", "schema": schema})
    if endpoint.creates:
        operation["parameters"].append(
            {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255}}
        )
    if endpoint.body is not None:
        reference = {"$ref": f"#/components/schemas/{endpoint.body.__name__}"}
        content = {"application/json": {"schema": reference}}
        operation["requestBody"] = {"required": not endpoint.body_optional, "content": content}
    return operation


_KINDS = {"application/json": "object"}
_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>FlashFlow API</title><style>
:root{color-scheme:light dark;--line:#8884}
body{font:15px/1.55 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.6rem}h2{margin-top:2.5rem;text-transform:capitalize}
details{border:1px solid var(--line);border-radius:12px;margin:.5rem 0;padding:.6rem 1rem}
summary{cursor:pointer}code{font:13px ui-monospace,monospace}
summary code{font-weight:600}table{border-collapse:collapse;width:100%}
td,th{text-align:left;border-bottom:1px solid var(--line);padding:.3rem .6rem .3rem 0;vertical-align:top}
pre{overflow:auto;border:1px solid var(--line);border-radius:8px;padding:.75rem}
</style><h1>FlashFlow API</h1>"""


def page(endpoints: Sequence[Endpoint], components: dict[str, Any]) -> bytes:
    """The same as one page of HTML without scripts, for a person."""
    parts = [
        _HEAD,
        f"<p>Version {VERSION}. The same for programs: <a href='/openapi.json'>openapi.json</a>.</p>",
        "<p>Every route but <code>/api/health</code> and <code>/api/proof</code> needs a key: "
        "<code>flashflow key</code> prints this machine's, "
        "<code>flashflow keys add NAME --scope send,read</code> makes one for an app.</p>",
        "<pre>curl -H \"Authorization: Bearer $(flashflow key)\" -H 'Content-Type: application/json' \\\n"
        '     -d \'{"user_id": "ada", "title": "Hello", "message": "It works."}\' '
        "http://127.0.0.1:8750/api/notifications/send</pre>",
    ]
    tag = ""
    for endpoint in endpoints:
        if (group := endpoint.path.split("/")[2]) != tag:
            tag = group
            parts.append(f"<h2>{html.escape(tag.replace('-', ' '))}</h2>")
        parts.append(_entry(endpoint, components))
    parts.append("<h2>Errors</h2><p>Every refusal is <code>application/problem+json</code> (RFC 9457).</p><table>")
    parts.extend(
        f"<tr id='errors-{code}'><td>{status}</td><td><code>{code}</code></td><td>{html.escape(words)}</td></tr>"
        for status, code, words in _ERRORS
    )
    parts.append("</table></html>")
    return "".join(parts).encode()


def _entry(endpoint: Endpoint, components: dict[str, Any]) -> str:
    path = html.escape(_PARAMETER.sub(r"{\1}", endpoint.path))
    scope = f"Scope <code>{endpoint.scope}</code>. " if endpoint.scope else "No key needed. "
    rows = _fields("body", endpoint.body, components) + _fields("query", endpoint.query, components)
    table = f"<table><tr><th>Field</th><th>In</th><th>Type</th></tr>{rows}</table>" if rows else ""
    return (
        f"<details><summary><code>{endpoint.method} {path}</code> · {html.escape(endpoint.summary)}</summary>"
        f"<p>{scope}Answers {html.escape(endpoint.answer)}.</p>{table}</details>"
    )


def _fields(place: str, kind: type | None, components: dict[str, Any]) -> str:
    if kind is None:
        return ""
    schema = components[kind.__name__]
    required = set(schema.get("required", ()))
    return "".join(
        f"<tr><td><code>{html.escape(name)}</code>{' *' if name in required else ''}</td><td>{place}</td>"
        f"<td>{html.escape(_type(field))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(s) for s in schema["anyOf"] if s.get("type") != "null")
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    kind = str(schema.get("format") or schema.get("type") or "any")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    limits = [f"{word} {schema[key]}" for key, word in _LIMITS if key in schema]
    return f"{kind} ({', '.join(limits)})" if limits else kind


_LIMITS = (("minLength", "from"), ("maxLength", "to"), ("minimum", "from"), ("maximum", "to"))
