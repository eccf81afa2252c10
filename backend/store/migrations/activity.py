"""Steps of ``user_activities.db``. A landed step is never edited."""

from __future__ import annotations

import sqlite3

from flashflow.backend.store.migrations.stored_bytes import AT_ONCE, Report, address_as_bytes, as_bytes, is_text

_BLANK_FEATURES = (
    "UPDATE figures_state SET zone = '' WHERE EXISTS (SELECT 1 FROM user_activities "
    "WHERE metadata LIKE '%\"feature\"%' AND json_valid(metadata) AND json_type(metadata, '$.feature') = 'text' "
    "AND (trim(json_extract(metadata, '$.feature')) = '' OR instr(metadata, '\\u0000')))"
)
_DAMAGED_ROWS = """
CREATE TABLE damaged_rows (
    table_name TEXT NOT NULL,
    row INTEGER NOT NULL,
    column_name TEXT NOT NULL,
    found_at INTEGER NOT NULL,
    PRIMARY KEY (table_name, row, column_name)
) WITHOUT ROWID
"""


def from_13(conn: sqlite3.Connection, report: Report) -> None:
    """Add marks of damaged rows. Recalculate the rollups at the first opening if there are blank feature names or names
    with NUL, which were counted under a wrong name."""
    report("looking for blank feature names")
    conn.execute(_BLANK_FEATURES)
    conn.execute(_DAMAGED_ROWS)


_USER_ACTIVITIES = """CREATE TABLE user_activities (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
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
    ip_address BLOB,
    agent INTEGER
)"""


def from_15(conn: sqlite3.Connection, report: Report) -> None:
    """Store every id and address as bytes; name the conflict that triggers resolve."""
    for first, last, number in _slices(conn, "user_activities"):
        report(f"ids of activities, {first:,} of {number:,}")
        conn.execute(
            f"UPDATE user_activities SET id = {as_bytes('id')}, session_id = {as_bytes('session_id')}, "
            f"ip_address = {address_as_bytes('ip_address')} WHERE seq BETWEEN ? AND ? "
            f"AND ({is_text('id')} OR {is_text('session_id')} OR {is_text('ip_address')})",
            (first, last),
        )
    for first, last, number in _slices(conn, "user_sessions"):
        report(f"ids of sessions, {first:,} of {number:,}")
        conn.execute(
            f"UPDATE user_sessions SET id = {as_bytes('id')} WHERE seq BETWEEN ? AND ? AND {is_text('id')}",
            (first, last),
        )
    _declare(conn, "user_activities", _USER_ACTIVITIES)
    for trigger in (*_block_triggers(_NAME_BLOCKS), *_block_triggers(_HOUR_BLOCKS)):
        conn.execute(f"DROP TRIGGER IF EXISTS {trigger.split()[2]}")
        conn.execute(trigger)


def _slices(conn: sqlite3.Connection, table: str) -> list[tuple[int, int, int]]:
    """Return ranges of ``seq`` that cover ``table``, each with the highest ``seq``."""
    low, high = conn.execute(f"SELECT COALESCE(MIN(seq), 1), COALESCE(MAX(seq), 0) FROM {table}").fetchone()
    return [(first, first + AT_ONCE - 1, high) for first in range(low, high + 1, AT_ONCE)]


def _declare(conn: sqlite3.Connection, table: str, sql: str) -> None:
    """Replace the definition of ``table`` by one with the same columns, without writing its rows again."""
    # The type of the column is only a word: values of every type are stored in the same way (sqlite.org,
    # lang_altertable.html, 8). Writing ten million rows again would take minutes and twice the disk.
    if hasattr(conn, "setconfig"):
        conn.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, False)  # type: ignore[attr-defined]  # since Python 3.12
    (version,) = conn.execute("PRAGMA schema_version").fetchone()
    conn.execute("PRAGMA writable_schema = ON")
    conn.execute("UPDATE sqlite_master SET sql = ? WHERE type = 'table' AND name = ?", (sql, table))
    conn.execute(f"PRAGMA schema_version = {version + 1}")
    conn.execute("PRAGMA writable_schema = RESET")


_NAME_BLOCKS = (
    "name_blocks",
    "name_days",
    {"kind": "{row}.kind", "block": "{row}.day / 28", "name": "{row}.name"},
    "kind, app, type, block, name",
)
_HOUR_BLOCKS = (
    "hour_blocks",
    "activity_hours",
    {"block": "{row}.hour / 672", "hour": "{row}.hour % 168"},
    "app, type, block, hour",
)


def _block_triggers(of: tuple[str, str, dict[str, str], str]) -> tuple[str, ...]:
    """Build the triggers that update a table of blocks."""
    blocks, days, keys, target = of

    def add(row: str, amount: str) -> str:
        columns, values = ", ".join(keys), ", ".join(value.replace("{row}", row) for value in keys.values())
        return " ".join(
            f"INSERT INTO {blocks} (app, type, {columns}, activities) SELECT {app}, {type_}, {values}, {amount} "
            f"WHERE {where} ON CONFLICT ({target}) DO UPDATE SET activities = activities + excluded.activities;"
            for app, type_, where in (
                ("0", "0", "true"),
                (f"{row}.app", "0", "true"),
                ("0", f"{row}.type", f"{row}.type > 0"),
            )
        )

    here = " AND ".join(f"{column} = {value.replace('{row}', 'old')}" for column, value in keys.items())
    where = f"{here} AND app IN (0, old.app) AND type IN (0, old.type) AND (app = 0 OR type = 0)"
    return (
        f"CREATE TRIGGER {blocks}_more AFTER INSERT ON {days} BEGIN {add('new', 'new.activities')} END",
        f"CREATE TRIGGER {blocks}_else AFTER UPDATE OF activities ON {days} WHEN new.activities <> old.activities "
        f"BEGIN {add('new', 'new.activities - old.activities')} END",
        f"CREATE TRIGGER {blocks}_less AFTER DELETE ON {days} BEGIN "
        f"UPDATE {blocks} SET activities = activities - old.activities WHERE {where}; "
        f"DELETE FROM {blocks} WHERE {where} AND activities = 0; END",
    )
