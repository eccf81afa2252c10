"""Messages of rules: the template data of a firing and the request to send."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from flashflow.backend.core.clock import rfc3339
from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.domain.metric_alerts import Reading
from flashflow.backend.domain.rule_conditions import ActivityFacts
from flashflow.backend.rendering.template_renderer import render, variables
from flashflow.backend.schemas.requests import SendIn
from flashflow.backend.schemas.rules import AlertIn, RuleChangeIn, RuleMessageIn
from flashflow.backend.schemas.values import MOST_DATA, depth
from flashflow.backend.store.notifications.templates import variables_of

OF_ACTIVITY = frozenset(
    {"rule", "times", "activity_id", "activity_type", "user_id", "session_id", "app", "timestamp", "page_url"}
)
OF_ALERT = frozenset({"rule", "metric", "compare", "now", "before", "change_percent"})
FLAT = "metadata_"
MOST_FLAT = 50
LONGEST_FLAT = 1_000
LARGEST_METADATA = 16_384
DEEPEST_METADATA = 20

_NOT_NAMED = re.compile(r"[^A-Za-z0-9_]", re.ASCII)
_LONGEST_KEY = 64 - len(FLAT)


def activity_data(rule: str, times: int, activity: ActivityFacts, used: Sequence[str] = ()) -> dict[str, Any]:
    """Template data of an activity: its fields, its ``metadata`` up to LARGEST_METADATA bytes and DEEPEST_METADATA
    levels, and ``metadata_KEY`` for up to MOST_FLAT scalar values, plus all that are ``used``."""
    data: dict[str, Any] = {
        "rule": rule,
        "times": times,
        "activity_id": activity.id,
        "activity_type": activity.activity_type,
        "user_id": activity.user_id,
        "session_id": activity.session_id,
        "app": activity.app,
        "timestamp": rfc3339(activity.at_ms),
    }
    if activity.page_url is not None:
        data["page_url"] = activity.page_url
    metadata = activity.metadata
    if metadata and depth(metadata) <= DEEPEST_METADATA and len(to_json(metadata)) <= LARGEST_METADATA:
        data["metadata"] = metadata
    return data | _flat(metadata, used)


def alert_data(rule: str, alert: AlertIn, found: Reading) -> dict[str, Any]:
    """Template data of a metric alert."""
    return {
        "rule": rule,
        "metric": alert.metric,
        "compare": alert.compare,
        "now": found.now,
        "before": found.before,
        "change_percent": None if found.change is None else round(found.change, 1),
    }


def request(send: RuleMessageIn, users: Sequence[str], data: Mapping[str, Any]) -> SendIn:
    """Build the send request: merge ``data`` with the rule's own data (which wins) and render both texts, cutting
    values that are too long. Raises ValidationError that names missing variables."""
    own = send.data or {}
    merged = {**data, **own}
    title, message = send.title, send.message
    if send.template is None and title is not None and message is not None:
        rendered = render(title, message, merged, fallback=data["rule"])
        title, message = rendered.title, rendered.message
        merged = {name: value for name, value in merged.items() if not name.startswith(FLAT) or name in own}
    # The rule's own data was checked when the rule was made: only the activity's part may make it too large.
    for added in ("metadata", FLAT):
        if len(to_json(merged)) * len(users) > MOST_DATA:
            merged = {
                name: value
                for name, value in merged.items()
                if name in own or not (name == added or (added == FLAT and name.startswith(FLAT)))
            }
    fields = msgspec.structs.asdict(send) | {"title": title, "message": message, "data": merged}
    return SendIn(user_ids=list(users), **fields)


def check_texts(rule: RuleChangeIn) -> None:
    """Check that the rule's own texts use only known variables. Raises ValidationError."""
    known = (OF_ACTIVITY if rule.on is not None else OF_ALERT) | set(rule.send.data or {})
    faults = ErrorCollector()
    for field in ("title", "message"):
        for name in variables(getattr(rule.send, field) or ""):
            if name not in known and not (rule.on is not None and name.startswith(FLAT)):
                offered = ", ".join(sorted(known)) + (", metadata_KEY" if rule.on is not None else "")
                faults.add(f"send.{field}", f"names {{{name}}}; there are {offered}", "on", "send.data")
    faults.done()


def used_variables(conn: sqlite3.Connection, send: RuleMessageIn) -> tuple[str, ...]:
    """Return the variables in the rule's own texts and in its template."""
    own = variables(send.title or "", send.message or "")
    return own if send.template is None else (*own, *variables_of(conn, send.template))


def _flat(metadata: Mapping[str, Any], used: Sequence[str]) -> dict[str, Any]:
    """Flatten scalar metadata values: ``http.status`` becomes ``metadata_http_status``, unless a key has that name."""
    named = {FLAT + _NOT_NAMED.sub("_", key): key for key in metadata if len(key) <= _LONGEST_KEY}
    named |= {FLAT + key: key for key in metadata if not _NOT_NAMED.search(key)}
    flat: dict[str, Any] = {}
    for name in (*used, *named):
        value = metadata.get(named.get(name, ""))
        if name in named and isinstance(value, str | int | float):
            flat[name] = value[:LONGEST_FLAT] if isinstance(value, str) else value
            if len(flat) >= MOST_FLAT + len(used):
                break
    return flat
