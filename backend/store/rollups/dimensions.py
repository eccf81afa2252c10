"""Users and names as the small numbers they have in the figures.

Names are guarded: beyond so many of a kind the rest counts as one, “all others”, so that an id in a page's address can
neither fill the disk nor slow every question.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any
from urllib.parse import urlsplit

from flashflow.backend.core.events import Event
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.schema import OTHER

MOST_AGENTS = 1_000
MOST = {"app": 1_000, "type": 1_000, "page": 10_000, "feature": 5_000, "referrer": 5_000}
"""Names of a kind that are counted by themselves."""
ABSENT = -1
"""What stands for a name without a key while a group of activities is folded."""

PAGE_VIEW = "page_view"
FEATURE = (
    "CASE WHEN json_valid(metadata) IS NOT 1 OR json_type(metadata, '$.feature') IS NOT 'text' THEN activity_type "
    # json_extract ends a text at its first NUL
    "WHEN instr(metadata, '\\u0000') THEN COALESCE(feature(metadata), activity_type) "
    "WHEN trim(json_extract(metadata, '$.feature')) = '' THEN activity_type "
    "ELSE json_extract(metadata, '$.feature') END"
)
"""A feature is the text of ``metadata.feature``, else (none, blank) the activity's type; looking at a page is none."""

VALUES = {
    "app": "a.app",
    "type": "a.activity_type",
    "page": "a.page_url",
    "feature": f"CASE WHEN {FEATURE} <> '{PAGE_VIEW}' THEN {FEATURE} END",
    "referrer": "site(a.referrer)",
}
"""What each kind of name is of an activity ``a``; NULL where it has none."""


def site(url: str | None) -> str | None:
    """The host a visitor came from, in lower case; the whole text where there is none in it."""
    if url is None:
        return None
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower() or url
    except ValueError:
        return url


def feature(metadata: str) -> str | None:
    """The text under ``feature`` in JSON, each NUL as U+FFFD; None where it is blank."""
    text: str = json.loads(metadata)["feature"].replace("\0", "\ufffd")
    return text if text.strip() else None


def intern(tx: Tx, activities: str, bounds: tuple[Any, ...]) -> None:
    """Give a key to every user and, while there is room, every name in ``activities`` (``user_activities a WHERE …``
    with ``bounds`` for its values)."""
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
            if len(names) >= room > 0:  # published once: when the last place is taken
                tx.events.append(Event("dimension.full", kind))
            tx.conn.executemany(
                "INSERT INTO figure_names (kind, name) VALUES (?, ?)", [(number, name) for (name,) in names[:room]]
            )


def full_kinds(conn: sqlite3.Connection) -> tuple[str, ...]:
    """The kinds of names that have no room for another: what comes new counts as “all others”."""
    return tuple(kind for kind in MOST if is_full(conn, kind))


def is_full(conn: sqlite3.Connection, kind: str) -> bool:
    """Whether a new name of the kind has no figures of its own."""
    return _count(conn, OTHER[kind]) >= MOST[kind]


def key_of(conn: sqlite3.Connection, kind: str, name: str) -> int | None:
    """The key of ``name``; None where no activity had it yet (or it is among all others)."""
    row = conn.execute("SELECT key FROM figure_names WHERE kind = ? AND name = ?", (OTHER[kind], name)).fetchone()
    return None if row is None else int(row[0])


def app_key(tx: Tx, app: str) -> int:
    """The key of an app, given one where there is room."""
    return _given(tx, "app", app, MOST["app"]) or OTHER["app"]


def type_key(tx: Tx, activity_type: str) -> int | None:
    """The key of an activity type, given one where there is room."""
    return _given(tx, "type", activity_type, MOST["type"])


def agent_key(tx: Tx, agent: str) -> int | None:
    """The key of a user agent, given one where there is room."""
    return _given(tx, "agent", agent, MOST_AGENTS)


def _given(tx: Tx, kind: str, name: str, most: int) -> int | None:
    key = key_of(tx.conn, kind, name)
    if key is None and _count(tx.conn, OTHER[kind]) < most:
        tx.conn.execute("INSERT INTO figure_names (kind, name) VALUES (?, ?)", (OTHER[kind], name))
        key = key_of(tx.conn, kind, name)
    return key


def key_types(conn: sqlite3.Connection) -> frozenset[str]:
    """The activity types that the owner marked as key activities."""
    rows = conn.execute("SELECT name FROM figure_names WHERE kind = ? AND marked", (OTHER["type"],))
    return frozenset(name for (name,) in rows)


def user_key(conn: sqlite3.Connection, user_id: str) -> int | None:
    """The key of a user; None where no activity of theirs was folded yet."""
    row = conn.execute("SELECT key FROM figure_users WHERE user_id = ?", (user_id,)).fetchone()
    return None if row is None else int(row[0])


def _count(conn: sqlite3.Connection, number: int) -> int:
    """The names of a kind, without “all others”."""
    (count,) = conn.execute("SELECT COUNT(*) - 1 FROM figure_names WHERE kind = ?", (number,)).fetchone()
    return int(count)
