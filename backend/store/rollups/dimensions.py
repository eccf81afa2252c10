"""Dimensions of the rollups: integer keys of users and names (apps, types, pages, features, referrers, user agents).

Each kind has a limit of names; later ones count as “all others”, so that ids in page addresses neither fill the disk
nor slow the queries.
"""

from __future__ import annotations

import json
import sqlite3
from urllib.parse import urlsplit

from peewee import SQL, fn

from flashflow.backend.core.events import Event
from flashflow.backend.store.engine.statement import Statement, TextStatement, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.models import OTHER, Dimension, UserKey

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

TAIL = "user_activities a NOT INDEXED WHERE a.seq > :after AND a.seq <= :end"
"""SQL for the activities ``a`` to aggregate."""


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


def intern(tx: Tx, after: int, end: int) -> None:
    """Assign a key to every user and, up to each kind's limit, every name of the activities after seq ``after`` up to
    ``end``."""
    _ADD_USERS.run(tx.conn, after=after, end=end)
    for kind, new_names in _NEW_NAMES.items():
        names = new_names.all(tx.conn, after=after, end=end)
        if names:
            room = MOST[kind] - _count(tx.conn, kind)
            if len(names) >= room > 0:  # published once: when the limit is reached
                tx.events.append(Event("dimension.full", kind))
            _ADD_NAME.many(tx.conn, [(OTHER[kind], name) for (name,) in names[:room]])


def full_kinds(conn: sqlite3.Connection) -> tuple[str, ...]:
    """Return the kinds of names at their limit: new names count as “all others”."""
    return tuple(kind for kind in MOST if is_full(conn, kind))


def is_full(conn: sqlite3.Connection, kind: str) -> bool:
    """Whether the kind is at its limit."""
    return _count(conn, kind) >= MOST[kind]


def key_of(conn: sqlite3.Connection, kind: str, name: str) -> int | None:
    """Return the key of ``name``; None without activities, or if it counts as “all others”."""
    key: int | None = _KEY.value(conn, kind=OTHER[kind], name=name)
    return key


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
    if key is None and _count(tx.conn, kind) < most:
        _ADD_NAME.run(tx.conn, kind=OTHER[kind], name=name)
        key = key_of(tx.conn, kind, name)
    return key


def key_types(conn: sqlite3.Connection) -> frozenset[str]:
    """Return the activity types that the owner marked as key activities."""
    return frozenset(name for (name,) in _MARKED.each(conn))


def user_key(conn: sqlite3.Connection, user_id: str) -> int | None:
    """Return the key of a user; None if none of their activities is aggregated yet."""
    key: int | None = _USER_KEY.value(conn, user=user_id)
    return key


def _count(conn: sqlite3.Connection, kind: str) -> int:
    """Count the names of a kind, without “all others”."""
    return int(_COUNT.value(conn, kind=OTHER[kind])) - 1


_KEY = Statement(
    lambda: Dimension.select(Dimension.key).where(Dimension.kind == slot("kind"), Dimension.name == slot("name"))
)
_COUNT = Statement(lambda: Dimension.select(fn.COUNT(SQL("*"))).where(Dimension.kind == slot("kind")))
_ADD_NAME = Statement(lambda: Dimension.insert(slots(Dimension.kind, Dimension.name)))
_MARKED = Statement(lambda: Dimension.select(Dimension.name).where(Dimension.kind == OTHER["type"], Dimension.marked))
_USER_KEY = Statement(lambda: UserKey.select(UserKey.key).where(UserKey.user_id == slot("user")))
_ADD_USERS = TextStatement(
    f"INSERT INTO user_keys (user_id) SELECT DISTINCT a.user_id FROM {TAIL} ON CONFLICT (user_id) DO NOTHING",
    reason="an index hint",
)
_NEW_NAMES = {
    kind: TextStatement(
        f"SELECT {value} AS name FROM {TAIL} AND name IS NOT NULL AND NOT EXISTS (SELECT 1 FROM dimensions n "
        f"WHERE n.kind = {OTHER[kind]} AND n.name = {value}) GROUP BY 1 ORDER BY MIN(seq)",
        reason="an index hint",
    )
    for kind, value in VALUES.items()
}
