"""The /docs page: the endpoint table and the problem codes as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.openapi import PROBLEMS, plain
from flashflow.backend.api.framework.responses import encode
from flashflow.backend.core.config import VERSION

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


def page(endpoints: Sequence[Endpoint], document: dict[str, Any]) -> bytes:
    """Return the documentation as one HTML page without scripts; ``document``: the same for programs."""
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
        parts.append(_entry(endpoint, document))
    parts.append("<h2>Errors</h2><p>Every refusal is <code>application/problem+json</code> (RFC 9457).</p><table>")
    parts.extend(
        f"<tr id='errors-{code}'><td>{status}</td><td><code>{code}</code></td><td>{html.escape(words)}</td></tr>"
        for status, code, words in PROBLEMS
    )
    parts.append("</table></html>")
    return "".join(parts).encode()


def _entry(endpoint: Endpoint, document: dict[str, Any]) -> str:
    path = html.escape(plain(endpoint.path))
    scope = f"Scope <code>{endpoint.scope}</code>. " if endpoint.scope else "No key needed. "
    rows = _body_rows(endpoint, document["components"]["schemas"]) + _query_rows(endpoint, document["paths"])
    table = f"<table><tr><th>Field</th><th>In</th><th>Type</th></tr>{rows}</table>" if rows else ""
    example = "" if endpoint.example is None else f"<pre>{html.escape(encode(endpoint.example).decode())}</pre>"
    return (
        f"<details><summary><code>{endpoint.method} {path}</code> · {html.escape(endpoint.summary)}</summary>"
        f"<p>{scope}Answers {html.escape(endpoint.answer)}.</p>{table}{example}</details>"
    )


def _body_rows(endpoint: Endpoint, schemas: dict[str, Any]) -> str:
    if endpoint.body is None:
        return ""
    schema = schemas[endpoint.body.__name__]
    required = schema.get("required", ())
    return "".join(_row(name, "body", field, name in required) for name, field in schema.get("properties", {}).items())


def _query_rows(endpoint: Endpoint, paths: dict[str, Any]) -> str:
    parameters = paths[plain(endpoint.path)][endpoint.method.lower()]["parameters"]
    return "".join(_row(p["name"], "query", p["schema"], p["required"]) for p in parameters if p["in"] == "query")


def _row(name: str, place: str, schema: dict[str, Any], required: bool) -> str:
    return (
        f"<tr><td><code>{html.escape(name)}</code>{' *' if required else ''}</td><td>{place}</td>"
        f"<td>{html.escape(_type(schema))}</td></tr>"
    )


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(s) for s in schema["anyOf"] if s.get("type") != "null")
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    kind = str(schema.get("type") or "any")
    if kind == "string":
        kind = str(schema.get("format", kind))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    limits = [f"{word} {schema[key]}" for key, word in _LIMITS if key in schema]
    return f"{kind} ({', '.join(limits)})" if limits else kind


_LIMITS = (("minLength", "from"), ("maxLength", "to"), ("minimum", "from"), ("maximum", "to"))
