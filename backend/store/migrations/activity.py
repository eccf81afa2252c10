"""The schema of ``user_activities.db``, as the steps that lead to it. A step that shipped is never edited.

Times are milliseconds since 1970 (UTC). ``seq`` is the order of arrival; AUTOINCREMENT so that a number never
comes back and an event stream's place in it stays true. No index holds what every activity changes (a session's
``last_seen``): each would cost every activity a page of the WAL. Nor is there one by session: a session's activities
lie within its times, so they are found by its user and those times, or by the times alone where ``shared`` says that
another user's activity came under the same session id (an app whose visitor logs in half-way). A user agent that
repeats stands as its number among the names (``agent``), an address as its bytes.
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
    """A user's activities are found through an index that is fed in bulk (``timeline``)."""
    for statement in _V2.split(";\n"):
        conn.execute(statement)


_PAGES_V2 = (
    "SELECT COUNT(DISTINCT page_url) FROM user_activities a WHERE a.timestamp BETWEEN user_sessions.start_time "
    "AND user_sessions.last_seen AND a.session_id = user_sessions.id"
)


def _v3(conn: sqlite3.Connection) -> None:
    """The figures, and the index by user with small keys: the first opening fills both from the rows. A session knows
    its key activities; counters that waited are counted now."""
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
    """Sessions, too, may wait to be counted: after this ``seq``, where ``counted`` says that something waits."""
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
    """What is found by user lies in parts of some three days (``parts``)."""
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
    """What a user did of a type lies by weeks (``schema_figures``)."""
    for statement in _V7.split(";\n"):
        conn.execute(statement)


def _v8(conn: sqlite3.Connection) -> None:
    """Names are counted by type, too: the first opening fills them in from the rows (as for another zone). Of days that
    were pruned nobody knows it any more: 0."""
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
    """The names of users who do very much (``heavy_users``); the rebuild of step 8 or a session's end finds them."""
    for statement in _V9.split(";\n"):
        conn.execute(statement)


def _v10(conn: sqlite3.Connection) -> None:
    """A session opened for an activity that named none may be united with another (``session_runs``); of those that
    are there already nobody knows whose id they have."""
    conn.execute("ALTER TABLE user_sessions ADD COLUMN implicit INTEGER NOT NULL DEFAULT 0")


def _v11(conn: sqlite3.Connection) -> None:
    """How far sessions were counted anew for other key activities (``key_types``); no row where there is nothing to
    count."""
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
    """A user's days know their last moment, and of each type what lies between the first and the last (``moments``).
    The first opening fills both in from the rows (as for another zone). Of days that were pruned nobody knows any more
    what lies between: NULL."""
    for statement in _V13.split(";\n"):
        conn.execute(statement)


def _v14(conn: sqlite3.Connection) -> None:
    """Features named by a blank text or one with a NUL were counted as all others or under half a name: the first
    opening counts again (as for another zone) where there are any."""
    conn.execute(
        "UPDATE figures_state SET zone = '' WHERE EXISTS (SELECT 1 FROM user_activities "
        "WHERE metadata LIKE '%\"feature\"%' AND json_valid(metadata) AND json_type(metadata, '$.feature') = 'text' "
        "AND (trim(json_extract(metadata, '$.feature')) = '' OR instr(metadata, '\\u0000')))"
    )


ACTIVITY_MIGRATIONS = (
    _v1, _v2, _v3, privacy_of_activities, _v5, _v6, _v7, _v8, _v9, _v10, _v11, make_blocks, _v13, _v14,
    mark_damaged_rows,
)  # fmt: skip
