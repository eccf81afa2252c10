"""The figures' tables in ``user_activities.db``: narrow ones, each shaped by the question it answers.

Users and names stand as small integers; ``app`` 0 and ``type`` 0 mean all of them together. ``day`` is a local day
(days since 1970-01-01 on the workspace's clock), ``week`` seven of them, ``hour`` a local hour (24 to a day). What a
user did of a type lies by weeks first, so that every write meets the same few pages again; ``type_weeks`` says which
weeks there are of a type. ``at`` is a user's first moment of a day, in milliseconds after UTC's midnight of a day of
that number (fewer bytes than a moment takes; it may be negative), ``span`` how long after it the last one is, and
``moments`` holds what lies between (``moments``).

``figures_state`` says how far all of it reaches: activities up to ``seq`` ``through`` are counted, by the clock of
``zone``; days before ``frozen_before`` no longer have all their activities behind them and are left as they stand;
``writer`` is the mark of who wrote sessions last.
"""

from __future__ import annotations

import sqlite3

from flashflow.backend.core.clock import DAY_MS

OTHER = {"app": 1, "type": 2, "page": 3, "feature": 4, "referrer": 5, "agent": 6}
"""The kinds of names. Each kind's own number is also the key of its “all others”, whose name is empty."""
OF_USER = "active_days t CROSS JOIN user_days d ON t.type = 0 AND t.app = 0 AND d.day = t.day"
"""The days ``d`` of whatever ``d.user`` is asked for: one look for each day that somebody was there."""


FIRST = f"(d.day * {DAY_MS} + d.at)"
LAST = f"({FIRST} + d.span)"
"""The first and the last moment of a row ``d`` of ``user_days`` or ``user_type_days``."""


def week_of(day: str) -> str:
    """SQL for the seven days, counted from 1970-01-01, that a local day is one of."""
    return f"({day}) / 7"


ROLLUPS_DDL = """
CREATE TABLE figure_users (key INTEGER PRIMARY KEY, user_id TEXT NOT NULL UNIQUE);
CREATE TABLE figure_names (
    key INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    name TEXT NOT NULL,
    marked INTEGER NOT NULL DEFAULT 0,
    UNIQUE (kind, name)
);
CREATE TABLE user_days (
    day INTEGER NOT NULL,
    user INTEGER NOT NULL,
    app INTEGER NOT NULL,
    activities INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    PRIMARY KEY (day, user, app)
) WITHOUT ROWID;
CREATE TABLE user_type_days (
    type INTEGER NOT NULL,
    user INTEGER NOT NULL,
    day INTEGER NOT NULL,
    app INTEGER NOT NULL,
    activities INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    span INTEGER NOT NULL,
    PRIMARY KEY (type, user, day, app)
) WITHOUT ROWID;
CREATE TABLE user_spans (
    app INTEGER NOT NULL,
    user INTEGER NOT NULL,
    first_day INTEGER NOT NULL,
    last_day INTEGER NOT NULL,
    PRIMARY KEY (app, user)
) WITHOUT ROWID;
CREATE TABLE active_days (
    type INTEGER NOT NULL,
    app INTEGER NOT NULL,
    day INTEGER NOT NULL,
    users INTEGER NOT NULL,
    PRIMARY KEY (type, app, day)
) WITHOUT ROWID;
CREATE TABLE cohort_days (
    app INTEGER NOT NULL,
    first_day INTEGER NOT NULL,
    day INTEGER NOT NULL,
    users INTEGER NOT NULL,
    PRIMARY KEY (app, first_day, day)
) WITHOUT ROWID;
CREATE TABLE activity_hours (
    hour INTEGER NOT NULL,
    app INTEGER NOT NULL,
    type INTEGER NOT NULL,
    activities INTEGER NOT NULL,
    PRIMARY KEY (hour, app, type)
) WITHOUT ROWID;
CREATE TABLE name_days (
    kind INTEGER NOT NULL,
    day INTEGER NOT NULL,
    app INTEGER NOT NULL,
    name INTEGER NOT NULL,
    activities INTEGER NOT NULL,
    PRIMARY KEY (kind, day, app, name)
) WITHOUT ROWID;
CREATE TABLE session_days (
    day INTEGER NOT NULL,
    app INTEGER NOT NULL,
    sessions INTEGER NOT NULL,
    duration INTEGER NOT NULL,
    pages INTEGER NOT NULL,
    engaged INTEGER NOT NULL,
    PRIMARY KEY (day, app)
) WITHOUT ROWID;
CREATE TABLE figures_state (
    through INTEGER NOT NULL,
    counted INTEGER,
    zone TEXT NOT NULL,
    frozen_before INTEGER,
    writer TEXT
);
INSERT INTO figures_state VALUES (0, NULL, '', NULL, NULL);
"""

BY_USER_DDL = """
CREATE TABLE activities_by_user (
    user INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (user, timestamp, seq)
) WITHOUT ROWID;
"""


def create_rollups(conn: sqlite3.Connection) -> None:
    """Make the tables, with each kind's “all others”."""
    for statement in (ROLLUPS_DDL + BY_USER_DDL).split(";\n"):
        conn.execute(statement)
    conn.executemany("INSERT INTO figure_names (key, kind, name) VALUES (?, ?, '')", [(k, k) for k in OTHER.values()])
