"""What a rule says: the data that its texts are filled in from, and the request that is sent."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from flashflow.backend.core.clock import rfc3339
from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.domain.metric_alerts import Reading
from flashflow.backend.domain.rule_conditions import ActivityFacts
from flashflow.backend.rendering.template_renderer import render, variables
from flashflow.backend.schemas.requests import SendIn
from flashflow.backend.schemas.rules import AlertIn, RuleChangeIn, RuleMessageIn
from flashflow.backend.schemas.values import MOST_DATA
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


def activity_data(rule: str, times: int, happening: ActivityFacts, wanted: Sequence[str] = ()) -> dict[str, Any]:
    """What a text may name of an activity: its fields, its ``metadata`` where that is small, and of the metadata's own
    plain values ``metadata_KEY``, those that are ``wanted`` however many there are."""
    data: dict[str, Any] = {
        "rule": rule,
        "times": times,
        "activity_id": happening.id,
        "activity_type": happening.activity_type,
        "user_id": happening.user_id,
        "session_id": happening.session_id,
        "app": happening.app,
        "timestamp": rfc3339(happening.at_ms),
    }
    if happening.page_url is not None:
        data["page_url"] = happening.page_url
    metadata = happening.metadata
    if metadata and not _is_deep(metadata) and len(to_json(metadata)) <= LARGEST_METADATA:
        data["metadata"] = metadata
    return data | _flat(metadata, wanted)


def alert_data(rule: str, alert: AlertIn, found: Reading) -> dict[str, Any]:
    """What a text may name of a figure's change."""
    return {
        "rule": rule,
        "metric": alert.metric,
        "compare": alert.compare,
        "now": found.now,
        "before": found.before,
        "change_percent": None if found.change is None else round(found.change, 1),
    }


def request(send: RuleMessageIn, users: Sequence[str], data: Mapping[str, Any]) -> SendIn:
    """What is sent to ``users``: ``data`` and the rule's own, which wins, and both texts filled in from them, with the
    values made to fit. Raises ValidationError naming what is missing."""
    own = send.data or {}
    whole = {**data, **own}
    title, message = send.title, send.message
    if send.template is None and title is not None and message is not None:
        rendered = render(title, message, whole, fallback=data["rule"])
        title, message = rendered.title, rendered.message
        whole = {name: value for name, value in whole.items() if not name.startswith(FLAT) or name in own}
    # An activity adds nothing that would make a send too large which was checked when the rule was made.
    for added in ("metadata", FLAT):
        if len(to_json(whole)) * len(users) > MOST_DATA:
            whole = {
                name: value
                for name, value in whole.items()
                if name in own or not (name == added or (added == FLAT and name.startswith(FLAT)))
            }
    return SendIn(
        user_ids=list(users),
        title=title,
        message=message,
        template=send.template,
        locale=send.locale,
        notification_type=send.notification_type,
        channels=send.channels,
        data=whole,
        priority=send.priority,
        collapse_key=send.collapse_key,
        actions=send.actions,
    )


def check_texts(rule: RuleChangeIn) -> None:
    """Whether the rule's own texts name only what there can be. Raises ValidationError."""
    known = (OF_ACTIVITY if rule.on is not None else OF_ALERT) | set(rule.send.data or {})
    faults = ErrorCollector()
    for field in ("title", "message"):
        for name in variables(getattr(rule.send, field) or ""):
            if name not in known and not (rule.on is not None and name.startswith(FLAT)):
                offered = ", ".join(sorted(known)) + (", metadata_KEY" if rule.on is not None else "")
                faults.add(f"send.{field}", f"names {{{name}}}; there are {offered}", "on", "send.data")
    faults.done()


def wanted_by(conn: sqlite3.Connection, send: RuleMessageIn) -> tuple[str, ...]:
    """The variables that the rule's texts name, its own or its template's."""
    own = variables(send.title or "", send.message or "")
    return own if send.template is None else (*own, *variables_of(conn, send.template))


def _flat(metadata: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """A key's other characters become ``_`` in its variable (``http.status`` → ``metadata_http_status``), unless there
    is a key of that very name."""
    named = {FLAT + _NOT_NAMED.sub("_", key): key for key in metadata if len(key) <= _LONGEST_KEY}
    named |= {FLAT + key: key for key in metadata if not _NOT_NAMED.search(key)}
    flat: dict[str, Any] = {}
    for name in (*wanted, *named):
        value = metadata.get(named.get(name, ""))
        if name in named and isinstance(value, str | int | float):
            flat[name] = value[:LONGEST_FLAT] if isinstance(value, str) else value
            if len(flat) >= MOST_FLAT + len(wanted):
                break
    return flat


def _is_deep(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(DEEPEST_METADATA):
        level = [
            part
            for inner in level
            for part in (inner.values() if isinstance(inner, dict) else inner)
            if isinstance(part, dict | list)
        ]
        if not level:
            return False
    return True
