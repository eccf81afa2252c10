"""Dimensions of the rollups: integer keys of users and names (apps, types, pages, features, referrers, user agents).

Each kind has a limit of names; later ones count as “all others”, so that ids in page addresses neither fill the disk
nor slow the queries.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any
from urllib.parse import urlsplit

from flashflow.backend.core.events import Event
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.models import OTHER

MOST_AGENTS = 1_000
MOST = {"app": 1_000, "type": 1_000, "page": 10_000, "feature": 5_000, "referrer": 5_000}
"""Names of a kind with counts of their own."""
ABSENT = -1
"""The key of a name without a key while a batch is aggregated."""

PAGE_VIEW = "page_view"
FEATURE = (
    "CASE WHEN json_valid(metadata) IS NOT 1 OR json_type(metadata, '$.feature') IS NOT 'text' THEN activity_type "
    # json_extract ends a text at its first NUL
    "WHEN instr(metadata, '\\u0000') THEN COALESCE(feature(metadata), activity_type) "
    "WHEN trim(json_extract(metadata, '$.feature')) = '' THEN activity_type "
    "ELSE json_extract(metadata, '$.feature') END"
)
"""SQL for an activity's feature: the text of ``metadata.feature``, or the type if that is missing or blank."""

VALUES = {
    "app": "a.app",
    "type": "a.activity_type",
    "page": "a.page_url",
    "feature": f"CASE WHEN {FEATURE} <> '{PAGE_VIEW}' THEN {FEATURE} END",
    "referrer": "site(a.referrer)",
}
"""SQL for each kind of name of an activity ``a``; NULL without one. A page view has no feature."""


def site(url: str | None) -> str | None:
    """Return the host of a referrer in lower case; the whole text if it has none."""
    if url is None:
        return None
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower() or url
    except ValueError:
        return url


def feature(metadata: str) -> str | None:
    """Return the text of ``feature`` in a JSON object, each NUL as U+FFFD; None if blank."""
    text: str = json.loads(metadata)["feature"].replace("\0", "\ufffd")
    return text if text.strip() else None


def intern(tx: Tx, activities: str, bounds: tuple[Any, ...]) -> None:
    """Assign a key to every user and, up to each kind's limit, every name of ``activities`` (SQL:
    ``user_activities a WHERE …``, with the values ``bounds``)."""
    tx.conn.execute(f"INSERT OR IGNORE INTO figure_users (user_id) SELECT DISTINCT a.user_id FROM {activities}", bounds)
    for kind, value in VALUES.items():
        number = OTHER[kind]
        names = tx.conn.execute(
            f"SELECT {value} AS name FROM {activities} AND name IS NOT NULL AND NOT EXISTS "
            f"(SELECT 1 FROM figure_names n WHERE n.kind = {number} AND n.name = {value}) GROUP BY 1 ORDER BY MIN(seq)",
            bounds,
        ).fetchall()
        if names:
            room = MOST[kind] - _count(tx.conn, number)
            if len(names) >= room > 0:  # published once: when the limit is reached
                tx.events.append(Event("dimension.full", kind))
            tx.conn.executemany(
                "INSERT INTO figure_names (kind, name) VALUES (?, ?)", [(number, name) for (name,) in names[:room]]
            )


def full_kinds(conn: sqlite3.Connection) -> tuple[str, ...]:
    """Return the kinds of names at their limit: new names count as “all others”."""
    return tuple(kind for kind in MOST if is_full(conn, kind))


def is_full(conn: sqlite3.Connection, kind: str) -> bool:
    """Whether the kind is at its limit."""
    return _count(conn, OTHER[kind]) >= MOST[kind]


def key_of(conn: sqlite3.Connection, kind: str, name: str) -> int | None:
    """Return the key of ``name``; None without activities, or if it counts as “all others”."""
    row = conn.execute("SELECT key FROM figure_names WHERE kind = ? AND name = ?", (OTHER[kind], name)).fetchone()
    return None if row is None else int(row[0])


def app_key(tx: Tx, app: str) -> int:
    """Return the key of an app, assigned up to the limit, then that of “all others”."""
    return _assign(tx, "app", app, MOST["app"]) or OTHER["app"]


def type_key(tx: Tx, activity_type: str) -> int | None:
    """Return the key of an activity type, assigned up to the limit, then None."""
    return _assign(tx, "type", activity_type, MOST["type"])


def agent_key(tx: Tx, agent: str) -> int | None:
    """Return the key of a user agent, assigned up to the limit, then None."""
    return _assign(tx, "agent", agent, MOST_AGENTS)


def _assign(tx: Tx, kind: str, name: str, most: int) -> int | None:
    key = key_of(tx.conn, kind, name)
    if key is None and _count(tx.conn, OTHER[kind]) < most:
        tx.conn.execute("INSERT INTO figure_names (kind, name) VALUES (?, ?)", (OTHER[kind], name))
        key = key_of(tx.conn, kind, name)
    return key


def key_types(conn: sqlite3.Connection) -> frozenset[str]:
    """Return the activity types that the owner marked as key activities."""
    rows = conn.execute("SELECT name FROM figure_names WHERE kind = ? AND marked", (OTHER["type"],))
    return frozenset(name for (name,) in rows)


def user_key(conn: sqlite3.Connection, user_id: str) -> int | None:
    """Return the key of a user; None if none of their activities is aggregated yet."""
    row = conn.execute("SELECT key FROM figure_users WHERE user_id = ?", (user_id,)).fetchone()
    return None if row is None else int(row[0])


def _count(conn: sqlite3.Connection, number: int) -> int:
    """Count the names of a kind, without “all others”."""
    (count,) = conn.execute("SELECT COUNT(*) - 1 FROM figure_names WHERE kind = ?", (number,)).fetchone()
    return int(count)
