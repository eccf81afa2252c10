"""Schema of ``user_activities.db`` as migration steps. A shipped step is never edited.

- Times are milliseconds since 1970 (UTC), IP addresses bytes, frequent user agents dimension keys (``agent``).
- ``seq`` is the order of arrival, with AUTOINCREMENT: a number is never reused, so stream positions stay valid.
- No index has a column that every activity changes (``last_seen``): it would add a WAL page to every activity.
- No index by session: a session's activities are found by user and time range, or by time range alone if ``shared``
  says that another user's activity has the same session id (a visitor who logs in).
"""

from __future__ import annotations

import sqlite3

from flashflow.backend.store.activity import user_index
from flashflow.backend.store.engine.damaged_text import mark_damaged_rows
from flashflow.backend.store.engine.idempotency import IDEMPOTENCY_DDL
from flashflow.backend.store.migrations.privacy_tables import privacy_of_activities
from flashflow.backend.store.rollups.four_week_blocks import make_blocks
from flashflow.backend.store.rollups.schema import create_rollups

_V1 = """
CREATE TABLE user_activities (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL,
    user_id TEXT NOT NULL,
    activity_type TEXT NOT NULL,
    session_id BLOB NOT NULL,
    app TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    metadata TEXT,
    page_url TEXT,
    referrer TEXT,
    user_agent TEXT,
    ip_address TEXT
);
CREATE UNIQUE INDEX user_activities_id ON user_activities (id);
CREATE INDEX user_activities_user ON user_activities (user_id, timestamp);
CREATE INDEX user_activities_time ON user_activities (timestamp);

CREATE TABLE user_sessions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL,
    user_id TEXT NOT NULL,
    app TEXT NOT NULL,
    start_time INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    end_time INTEGER,
    end_reason TEXT,
    pages_visited INTEGER NOT NULL DEFAULT 0,
    activities INTEGER NOT NULL DEFAULT 0,
    device_info TEXT,
    ip_address TEXT,
    user_agent TEXT,
    shared INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL
);
CREATE UNIQUE INDEX user_sessions_id ON user_sessions (id);
CREATE INDEX user_sessions_user ON user_sessions (user_id, start_time);
CREATE INDEX user_sessions_open ON user_sessions (user_id, app) WHERE end_time IS NULL;
CREATE INDEX user_sessions_start ON user_sessions (start_time);
CREATE UNIQUE INDEX user_sessions_revision ON user_sessions (revision);

CREATE TABLE user_analytics (
    user_id TEXT PRIMARY KEY,
    total_sessions INTEGER NOT NULL DEFAULT 0,
    total_activities INTEGER NOT NULL DEFAULT 0,
    last_activity INTEGER,
    avg_session_duration REAL,
    most_visited_pages TEXT,
    favorite_features TEXT,
    engagement_score REAL,
    engagement_parts TEXT,
    computed_at INTEGER
) WITHOUT ROWID;
"""


def _v1(conn: sqlite3.Connection) -> None:
    for statement in (_V1 + IDEMPOTENCY_DDL).split(";\n"):
        conn.execute(statement)


_V2 = """
CREATE TABLE activities_by_user (
    user_id TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (user_id, timestamp, seq)
) WITHOUT ROWID;
CREATE TABLE activities_by_user_mark (through INTEGER NOT NULL, counted INTEGER);
INSERT INTO activities_by_user_mark VALUES (0, NULL);
DROP INDEX user_activities_user;
"""


def _v2(conn: sqlite3.Connection) -> None:
    """Index activities by user in a table that is filled in bulk (``user_index``)."""
    for statement in _V2.split(";\n"):
        conn.execute(statement)


_PAGES_V2 = (
    "SELECT COUNT(DISTINCT page_url) FROM user_activities a WHERE a.timestamp BETWEEN user_sessions.start_time "
    "AND user_sessions.last_seen AND a.session_id = user_sessions.id"
)


def _v3(conn: sqlite3.Connection) -> None:
    """Create the rollups and the index by user with integer keys, filled at the first opening; add key activities to
    sessions and recalculate the pages of open sessions."""
    conn.execute("DROP VIEW IF EXISTS user_timeline")
    conn.execute("DROP TABLE activities_by_user")
    create_rollups(conn)
    conn.execute("UPDATE figures_state SET counted = (SELECT counted FROM activities_by_user_mark)")
    conn.execute("DROP TABLE activities_by_user_mark")
    conn.execute("ALTER TABLE user_analytics ADD COLUMN formula INTEGER")
    conn.execute("ALTER TABLE user_activities ADD COLUMN agent INTEGER")
    conn.execute("ALTER TABLE user_sessions ADD COLUMN key_activities INTEGER NOT NULL DEFAULT 0")
    conn.execute(f"UPDATE user_sessions SET pages_visited = ({_PAGES_V2}) WHERE end_time IS NULL")


def _v5(conn: sqlite3.Connection) -> None:
    """Let sessions wait to be counted too: those after ``sessions_counted``, if ``counted`` is not NULL."""
    conn.execute("ALTER TABLE figures_state ADD COLUMN sessions_counted INTEGER")
    conn.execute(
        "UPDATE figures_state SET sessions_counted = (SELECT COALESCE(MAX(seq), 0) FROM user_sessions) "
        "WHERE counted IS NOT NULL"
    )


_V6 = """
ALTER TABLE activities_by_user RENAME TO by_user_v5;
CREATE TABLE activities_by_user (
    part INTEGER NOT NULL,
    user INTEGER NOT NULL,
    at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (part, user, at, seq)
) WITHOUT ROWID;
INSERT INTO activities_by_user SELECT timestamp >> 28, user, timestamp & 268435455, seq FROM by_user_v5
    ORDER BY 1, 2, 3, 4;
DROP TABLE by_user_v5;
CREATE TABLE activity_parts (part INTEGER PRIMARY KEY);
INSERT INTO activity_parts WITH RECURSIVE found (part) AS (SELECT MIN(part) FROM activities_by_user UNION ALL
    SELECT (SELECT MIN(part) FROM activities_by_user b WHERE b.part > found.part) FROM found WHERE part IS NOT NULL)
    SELECT part FROM found WHERE part IS NOT NULL;
DROP INDEX user_sessions_user;
CREATE INDEX user_sessions_user ON user_sessions (start_time >> 28, user_id, start_time);
"""


def _v6(conn: sqlite3.Connection) -> None:
    """Partition rows by user into parts of about three days (``partitions``)."""
    conn.execute("DROP VIEW IF EXISTS user_timeline")
    for statement in _V6.split(";\n"):
        conn.execute(statement)
    conn.execute(user_index.VIEW_DDL)


_V7 = """
ALTER TABLE user_type_days RENAME TO user_type_days_v6;
CREATE TABLE user_type_days (
    week INTEGER NOT NULL,
    type INTEGER NOT NULL,
    user INTEGER NOT NULL,
    day INTEGER NOT NULL,
    app INTEGER NOT NULL,
    activities INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    span INTEGER NOT NULL,
    PRIMARY KEY (week, type, user, day, app)
) WITHOUT ROWID;
INSERT INTO user_type_days SELECT day / 7, type, user, day, app, activities, first_at, span FROM user_type_days_v6
    ORDER BY 1, 2, 3, 4, 5;
DROP TABLE user_type_days_v6;
CREATE TABLE type_weeks (
    type INTEGER NOT NULL,
    week INTEGER NOT NULL,
    PRIMARY KEY (type, week)
) WITHOUT ROWID;
INSERT INTO type_weeks SELECT DISTINCT type, week FROM user_type_days;
"""
_V8 = """
ALTER TABLE name_days RENAME TO name_days_v7;
CREATE TABLE name_days (
    kind INTEGER NOT NULL,
    day INTEGER NOT NULL,
    app INTEGER NOT NULL,
    name INTEGER NOT NULL,
    type INTEGER NOT NULL,
    activities INTEGER NOT NULL,
    PRIMARY KEY (kind, day, app, name, type)
) WITHOUT ROWID;
INSERT INTO name_days SELECT kind, day, app, name, CASE kind WHEN 2 THEN name ELSE 0 END, activities FROM name_days_v7;
DROP TABLE name_days_v7;
UPDATE figures_state SET zone = '';
"""


def _v7(conn: sqlite3.Connection) -> None:
    """Order activity days by user and type by week (``rollups/schema``)."""
    for statement in _V7.split(";\n"):
        conn.execute(statement)


def _v8(conn: sqlite3.Connection) -> None:
    """Count names by type; the first opening recalculates them, as after a change of zone. Pruned days get type 0."""
    for statement in _V8.split(";\n"):
        conn.execute(statement)


_V9 = """
CREATE TABLE heavy_users (user INTEGER PRIMARY KEY);
CREATE TABLE user_names (
    user INTEGER NOT NULL,
    app INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    name INTEGER NOT NULL,
    activities INTEGER NOT NULL,
    PRIMARY KEY (user, app, kind, name)
) WITHOUT ROWID;
"""


def _v9(conn: sqlite3.Connection) -> None:
    """Keep name counts of users with very many activities (``heavy_users``); step 8's rebuild or a session's end fills
    them."""
    for statement in _V9.split(";\n"):
        conn.execute(statement)


def _v10(conn: sqlite3.Connection) -> None:
    """Mark sessions that FlashFlow opened itself, which may be merged (``session_merge``). Existing sessions
    keep 0: the origin of their ids is unknown."""
    conn.execute("ALTER TABLE user_sessions ADD COLUMN implicit INTEGER NOT NULL DEFAULT 0")


def _v11(conn: sqlite3.Connection) -> None:
    """Store the progress of recalculating sessions after a change of key activities; no row if none is running."""
    conn.execute("CREATE TABLE key_recount (after_seq INTEGER NOT NULL, until_seq INTEGER NOT NULL)")


_V13 = """
ALTER TABLE user_type_days RENAME TO user_type_days_v12;
CREATE TABLE user_type_days (
    week INTEGER NOT NULL,
    type INTEGER NOT NULL,
    user INTEGER NOT NULL,
    day INTEGER NOT NULL,
    app INTEGER NOT NULL,
    activities INTEGER NOT NULL,
    at INTEGER NOT NULL,
    span INTEGER NOT NULL,
    moments BLOB,
    PRIMARY KEY (week, type, user, day, app)
) WITHOUT ROWID;
INSERT INTO user_type_days SELECT week, type, user, day, app, activities, first_at - day * 86400000, span, NULL
    FROM user_type_days_v12;
ALTER TABLE user_days RENAME TO user_days_v12;
CREATE TABLE user_days (
    day INTEGER NOT NULL,
    user INTEGER NOT NULL,
    app INTEGER NOT NULL,
    activities INTEGER NOT NULL,
    at INTEGER NOT NULL,
    span INTEGER NOT NULL,
    PRIMARY KEY (day, user, app)
) WITHOUT ROWID;
INSERT INTO user_days SELECT day, user, app, activities, first_at - day * 86400000,
    COALESCE(CASE WHEN day < (SELECT frozen_before FROM figures_state) THEN
    (SELECT MAX(k.first_at + k.span) FROM type_weeks t CROSS JOIN user_type_days_v12 k ON k.week = t.week
    AND k.type = t.type AND k.user = u.user AND k.day = u.day AND k.app = u.app WHERE t.week = u.day / 7)
    - first_at END, 0) FROM user_days_v12 u;
DROP TABLE user_days_v12;
DROP TABLE user_type_days_v12;
UPDATE figures_state SET zone = '';
"""


def _v13(conn: sqlite3.Connection) -> None:
    """Store the last time of a user's day and, by type, the times between the first and the last (packed timestamps).
    The first opening recalculates both, as after a change of zone. Pruned days get NULL."""
    for statement in _V13.split(";\n"):
        conn.execute(statement)


def _v14(conn: sqlite3.Connection) -> None:
    """Recalculate the rollups if there are blank feature names or names with NUL, which were counted under a wrong
    name."""
    conn.execute(
        "UPDATE figures_state SET zone = '' WHERE EXISTS (SELECT 1 FROM user_activities "
        "WHERE metadata LIKE '%\"feature\"%' AND json_valid(metadata) AND json_type(metadata, '$.feature') = 'text' "
        "AND (trim(json_extract(metadata, '$.feature')) = '' OR instr(metadata, '\\u0000')))"
    )


ACTIVITY_MIGRATIONS = (
    _v1, _v2, _v3, privacy_of_activities, _v5, _v6, _v7, _v8, _v9, _v10, _v11, make_blocks, _v13, _v14,
    mark_damaged_rows,
)  # fmt: skip
