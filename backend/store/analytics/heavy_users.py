"""Most used pages and features of heavy users: users with at least HEAVY_AT activities have a rollup, ``user_names``.

Other users' pages and features are counted from their rows on demand; a heavy user may have a million rows. The rollup
counts the stored rows only: pruned and erased rows are subtracted.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence

from flashflow.backend.core.encoding import to_json
from flashflow.backend.store.activity import user_index
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.aggregate import keyed_rows
from flashflow.backend.store.rollups.dimensions import FEATURE, PAGE_VIEW, user_key
from flashflow.backend.store.rollups.models import OTHER
from flashflow.backend.store.rollups.partitions import rows_of_user

HEAVY_AT = 10_000
"""Activities above which a user has the rollup: about 15 ms of reading rows."""
KINDS = ("page", "feature")
Counts = tuple[Counter[str], Counter[str]]
"""Activities by page, and by feature."""


def most_used(conn: sqlite3.Connection, user_id: str, app: str | None, most: int) -> Counts:
    """Count a user's pages and features in one app or in all; complete for the first ``most`` of each."""
    user = user_key(conn, user_id)
    if user is not None and is_heavy(conn, user):
        kept = _kept(conn, user, app)
        if all(_is_enough(one, most) for one in kept):
            for one in kept:
                del one[""]
            tail = _counted(conn, f"{user_index.TAIL} AND", user_id, app)
            return kept[0] + tail[0], kept[1] + tail[1]
    return _counted(conn, "user_timeline WHERE", user_id, app)


def _is_enough(counts: Counter[str], most: int) -> bool:
    """Whether no name counted as “all others” can be among the first ``most``."""
    named = sorted((n for name, n in counts.items() if name), reverse=True)[:most]
    return counts[""] == 0 or (len(named) == most and counts[""] < named[-1])


def _kept(conn: sqlite3.Connection, user: int, app: str | None) -> Counts:
    counts: dict[int, Counter[str]] = {OTHER[kind]: Counter() for kind in KINDS}
    for kind, name, n in conn.execute(
        "SELECT u.kind, n.name, SUM(u.activities) FROM user_names u JOIN figure_names n ON n.key = u.name "
        "WHERE u.user = ? AND (? IS NULL OR u.app = (SELECT key FROM figure_names WHERE kind = ? AND name = ?)) "
        "GROUP BY 1, u.name",
        (user, app, OTHER["app"], app),
    ):
        counts[kind][name] += n
    pages, features = (counts[OTHER[kind]] for kind in KINDS)
    return pages, features


def _counted(conn: sqlite3.Connection, rows: str, user_id: str, app: str | None) -> Counts:
    pages: Counter[str] = Counter()
    features: Counter[str] = Counter()
    for page, feature, n in conn.execute(
        f"SELECT page_url, {FEATURE}, COUNT(*) FROM {rows} user_id = ? AND (? IS NULL OR app = ?) GROUP BY 1, 2",
        (user_id, app, app),
    ):
        if page is not None:
            pages[page] += n
        if feature != PAGE_VIEW:
            features[str(feature)] += n
    return pages, features


def is_heavy(conn: sqlite3.Connection, user: int) -> bool:
    return conn.execute("SELECT 1 FROM heavy_users WHERE user = ?", (user,)).fetchone() is not None


# --- maintenance ------------------------------------------------------------------------------------------------------


def expected(user: int) -> str:
    """Build the SELECT of a heavy user's rows of ``user_names`` from the raw rows."""
    return _names(keyed_rows("0", rows_of_user(str(int(user))), "{other}"))


def _names(keyed: str, sign: str = "") -> str:
    names = "user, app, type, page, feature, referrer, hour, timestamp, seq"
    return f"WITH keyed ({names}) AS MATERIALIZED ({keyed}) " + " UNION ALL ".join(
        f"SELECT * FROM (SELECT user, app, {OTHER[kind]}, {kind}, {sign}COUNT(*) FROM keyed WHERE {kind} IS NOT NULL "
        "GROUP BY 1, 2, 4)"
        for kind in KINDS
    )


def promote(tx: Tx, user_ids: Collection[str]) -> None:
    """Make these users heavy users, if they are not yet."""
    for user_id in user_ids:
        user = user_key(tx.conn, user_id)
        if user is not None and not is_heavy(tx.conn, user):
            tx.conn.execute("INSERT INTO heavy_users VALUES (?)", (user,))
            tx.conn.execute(f"INSERT INTO user_names {expected(user)}")


def subtract(tx: Tx, seqs: Sequence[int]) -> None:
    """Subtract activities that are about to be deleted."""
    if tx.conn.execute("SELECT 1 FROM heavy_users LIMIT 1").fetchone() is None:
        return
    users = "SELECT user_id FROM figure_users WHERE key IN (SELECT user FROM heavy_users)"
    rows = f"user_activities a WHERE a.seq IN (SELECT value FROM json_each(?)) AND a.user_id IN ({users})"
    tx.conn.execute(
        f"INSERT INTO user_names SELECT * FROM ({_names(keyed_rows('0', rows, '{other}'), '-')}) WHERE true "
        "ON CONFLICT DO UPDATE SET activities = activities + excluded.activities",
        (to_json(seqs),),
    )
    tx.conn.execute("DELETE FROM user_names WHERE activities <= 0")


def rebuild(conn: sqlite3.Connection) -> None:
    """Recompute the heavy users and their names; call it after ``user_days`` and the index by user are rebuilt."""
    conn.execute("DELETE FROM user_names")
    conn.execute("DELETE FROM heavy_users")
    conn.execute(
        "INSERT INTO heavy_users SELECT user FROM user_days GROUP BY 1 HAVING SUM(activities) >= ?", (HEAVY_AT,)
    )
    for (user,) in conn.execute("SELECT user FROM heavy_users").fetchall():
        conn.execute(f"INSERT INTO user_names {expected(user)}")


def erase(conn: sqlite3.Connection, user: int) -> None:
    """Delete a user's rows."""
    conn.execute("DELETE FROM user_names WHERE user = ?", (user,))
    conn.execute("DELETE FROM heavy_users WHERE user = ?", (user,))
