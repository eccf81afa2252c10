"""Subtract one user from the rollups, while their activities and sessions can still be read.

Sums over pruned rows identify no user: they stay. Only rows keyed by user are deleted.
"""

from __future__ import annotations

from collections.abc import Sequence

from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.timezones import LocalTime
from flashflow.backend.store.activity.session_rollup import Counted, change, engaged
from flashflow.backend.store.analytics import heavy_users
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.rollups.aggregate import aggregate_batch, keyed_rows
from flashflow.backend.store.rollups.dimensions import VALUES, app_key, user_key
from flashflow.backend.store.rollups.models import OTHER
from flashflow.backend.store.rollups.partitions import drop_empty, rows_of_user
from flashflow.backend.store.rollups.schema import OF_USER, week_of

_DAYS = (
    f"SELECT DISTINCT d.type, d.week, d.day, d.app FROM (SELECT DISTINCT {week_of('d.day')} AS week FROM {OF_USER} "
    "WHERE d.user = ?1) w CROSS JOIN type_weeks t ON t.week = w.week "
    "CROSS JOIN user_type_days d ON d.week = t.week AND d.type = t.type AND d.user = ?1"
)


def subtract_user(tx: Tx, local: LocalTime, user_id: str) -> None:
    """Subtract the user from every rollup; a second call does nothing. Call it before deleting any of their activities.
    The index by user and the user's key stay until ``subtract_key``."""
    while aggregate_batch(tx, local):
        pass
    user = user_key(tx.conn, user_id)
    if user is None or not tx.conn.execute("SELECT 1 FROM user_spans WHERE app = 0 AND user = ?", (user,)).fetchone():
        return
    heavy_users.erase(tx.conn, user)
    _subtract_active_days(tx, user)  # first: it reads the keys of types, which may go with the activities
    _subtract_activities(tx, user)


def subtract_key(tx: Tx, user_id: str) -> None:
    """Delete the index entries and the key of a user whose activities are deleted."""
    user = user_key(tx.conn, user_id)
    tx.conn.execute(
        "DELETE FROM activities_by_user WHERE part IN (SELECT part FROM activity_parts) AND user = ?", (user,)
    )
    drop_empty(tx.conn)
    tx.conn.execute("DELETE FROM figure_users WHERE key = ?", (user,))


def _subtract_activities(tx: Tx, user: int) -> None:
    """Subtract the user's activities from hours and names; delete names that no other user has."""
    conn = tx.conn
    names = ", ".join(VALUES)
    conn.execute("DROP TABLE IF EXISTS temp.forgetting")
    conn.execute(f"CREATE TEMP TABLE forgetting (user, {names}, hour, timestamp, seq)")
    conn.execute(
        f"INSERT INTO forgetting {keyed_rows('local_hour(a.timestamp)', rows_of_user('?'), '{other}')}", (user,)
    )
    conn.execute(
        "UPDATE activity_hours SET activities = activities - gone.n FROM (SELECT hour, app, type, COUNT(*) AS n "
        "FROM forgetting GROUP BY 1, 2, 3) gone WHERE activity_hours.hour = gone.hour "
        "AND activity_hours.app = gone.app AND activity_hours.type = gone.type"
    )
    conn.execute("DELETE FROM activity_hours WHERE activities <= 0 AND hour IN (SELECT hour FROM forgetting)")
    for kind in ("page", "feature", "referrer", "type"):  # types last: rows of the other kinds refer to them
        number = OTHER[kind]
        conn.execute(
            "UPDATE name_days SET activities = activities - gone.n FROM (SELECT hour / 24 AS day, app, "
            f"{kind} AS name, type, COUNT(*) AS n FROM forgetting WHERE {kind} IS NOT NULL GROUP BY 1, 2, 3, 4) gone "
            f"WHERE kind = {number} AND name_days.day = gone.day AND name_days.app = gone.app "
            "AND name_days.name = gone.name AND name_days.type = gone.type"
        )
        conn.execute(
            f"DELETE FROM name_days WHERE kind = {number} AND activities <= 0 "
            "AND day IN (SELECT hour / 24 FROM forgetting)"
        )
        conn.execute(
            f"DELETE FROM figure_names WHERE kind = {number} AND name <> '' AND NOT marked "
            f"AND key IN (SELECT {kind} FROM forgetting) "
            f"AND key NOT IN (SELECT name FROM name_days WHERE kind = {number})"
        )
    conn.execute("DROP TABLE forgetting")


def subtract_sessions(tx: Tx, local: LocalTime, seqs: Sequence[int]) -> None:
    """Subtract ended sessions, which are about to be deleted, from their days."""
    frozen = tx.conn.execute("SELECT COALESCE(frozen_before, -1) FROM figures_state").fetchone()[0]
    gone = []
    for app, start, end, pages, key in tx.conn.execute(
        "SELECT app, start_time, end_time, pages_visited, key_activities FROM user_sessions "
        "WHERE seq IN (SELECT value FROM json_each(?)) AND end_time IS NOT NULL",
        (to_json(seqs),),
    ).fetchall():
        counted = Counted(local.day(start), app_key(tx, app), end - start, pages, int(engaged(end - start, pages, key)))
        if counted.day >= frozen:
            gone.append(counted)
        # A frozen day may have been counted in another zone, so it may lack this session.
        elif tx.conn.execute(_HAS, counted).fetchone():
            change(tx, [(counted, None)])
    change(tx, ((counted, None) for counted in gone))


_HAS = (
    "SELECT 1 FROM session_days WHERE day = ? AND app = ? AND sessions > 0 AND duration >= ? AND pages >= ? "
    "AND engaged >= ?"
)


def _subtract_active_days(tx: Tx, user: int) -> None:
    """Subtract the user from active-day and cohort counts."""
    conn = tx.conn
    rows = conn.execute(_DAYS, (user,)).fetchall()
    present = {(t, a, day) for kind, _, day, app in rows for t in (0, kind) for a in (0, app)}
    conn.executemany("UPDATE active_days SET users = users - 1 WHERE type = ? AND app = ? AND day = ?", list(present))
    conn.execute("DELETE FROM active_days WHERE users <= 0")
    spans = conn.execute(
        "SELECT app, first_day FROM user_spans WHERE user = ? AND app IN (SELECT value FROM json_each(?))",
        (user, to_json(sorted({a for _, a, _ in present}))),
    ).fetchall()
    firsts = dict(spans)
    conn.executemany(
        "UPDATE cohort_days SET users = users - 1 WHERE app = ? AND first_day = ? AND day = ?",
        [(a, firsts[a], day) for t, a, day in present if t == 0 and a in firsts],
    )
    conn.execute("DELETE FROM cohort_days WHERE users <= 0")
    conn.executemany(
        "DELETE FROM user_days WHERE day = ? AND user = ?", [(day, user) for t, a, day in present if t == 0 == a]
    )
    conn.executemany("DELETE FROM user_spans WHERE app = ? AND user = ?", [(app, user) for app in firsts])
    weeks = {(kind, week) for kind, week, *_ in rows}
    conn.executemany("DELETE FROM user_type_days WHERE type = ? AND week = ? AND user = ?", [(*w, user) for w in weeks])
    conn.executemany(
        "DELETE FROM type_weeks WHERE type = ?1 AND week = ?2 "
        "AND NOT EXISTS (SELECT 1 FROM user_type_days WHERE type = ?1 AND week = ?2)",
        list(weeks),
    )
