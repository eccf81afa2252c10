"""Steps of ``user_activities.db``. A landed step is never edited."""

from __future__ import annotations

import re
import sqlite3

from flashflow.backend.store.migrations.stored_bytes import (
    AT_ONCE,
    Report,
    address_as_bytes,
    as_bytes,
    is_text,
    packed_address,
)

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
    _declare_as_bytes(conn, "user_activities", "ip_address", (r"\bseq INTEGER PRIMARY", "seq INTEGER NOT NULL PRIMARY"))
    for trigger in (*_block_triggers(_NAME_BLOCKS), *_block_triggers(_HOUR_BLOCKS)):
        conn.execute(f"DROP TRIGGER IF EXISTS {trigger.split()[2]}")
        conn.execute(trigger)


def _slices(conn: sqlite3.Connection, table: str) -> list[tuple[int, int, int]]:
    """Return ranges of ``seq`` that cover ``table``, each with the highest ``seq``."""
    low, high = conn.execute(f"SELECT COALESCE(MIN(seq), 1), COALESCE(MAX(seq), 0) FROM {table}").fetchone()
    return [(first, first + AT_ONCE - 1, high) for first in range(low, high + 1, AT_ONCE)]


def _declare_as_bytes(conn: sqlite3.Connection, table: str, column: str, *others: tuple[str, str]) -> None:
    """Declare ``column`` as BLOB, without writing the rows of ``table`` again; make ``others``, substitutions too."""
    # The type of the column is only a word: values of every type are stored in the same way (sqlite.org,
    # lang_altertable.html, 8). Writing ten million rows again would take minutes and twice the disk. All else stays as
    # it is: with other columns than it has, the table would be read wrongly.
    if hasattr(conn, "setconfig"):
        conn.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, False)  # type: ignore[attr-defined]  # since Python 3.12
    (sql,) = conn.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone()
    for pattern, replacement in ((rf'(\b{column}"?\s+)TEXT\b', r"\1BLOB"), *others):
        sql = re.sub(pattern, replacement, sql, count=1)
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


def from_100(conn: sqlite3.Connection, report: Report) -> None:
    """Store the addresses of sessions as bytes."""
    conn.create_function("packed_address", 1, packed_address, deterministic=True)
    for first, last, number in _slices(conn, "user_sessions"):
        report(f"addresses of sessions, {first:,} of {number:,}")
        conn.execute(
            # As a BLOB: text that is not UTF-8 cannot be passed to a function.
            "UPDATE user_sessions SET ip_address = packed_address(CAST(ip_address AS BLOB)) "
            f"WHERE seq BETWEEN ? AND ? AND {is_text('ip_address')}",
            (first, last),
        )
    _declare_as_bytes(conn, "user_sessions", "ip_address")


_TABLES = {
    "figure_users": "user_keys",
    "figure_names": "dimensions",
    "figures_state": "rollup_state",
    "activity_parts": "activity_partitions",
}
_COLUMNS = (
    ("activity_partitions", "part", "partition"),
    ("activities_by_user", "part", "partition"),
    ("user_type_days", "moments", "timestamps"),
)


def from_101(conn: sqlite3.Connection, report: Report) -> None:
    """Name tables and columns of rollups by the terms of the documentation."""
    report("names of tables and columns")
    for old, new in _TABLES.items():
        conn.execute(f"ALTER TABLE {old} RENAME TO {new}")
        conn.execute("UPDATE OR REPLACE damaged_rows SET table_name = ? WHERE table_name = ?", (new, old))
    for table, old, new in _COLUMNS:
        conn.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
