"""Find text that is not UTF-8 (a flipped bit, another program's write) in every table, replace it and mark its row."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, get_args

from flashflow.backend.core.encoding import DAMAGED, decode_text, encode_json, from_object
from flashflow.backend.schemas.records import Channel, DeliveryStatus, Inbox, NotificationStatus, Priority
from flashflow.backend.store.engine.database import BUSY_TIMEOUT_S
from flashflow.backend.store.engine.writer import Tx

AT_ONCE = 200
"""Rows replaced in one transaction."""
OBJECTS = frozenset({"data", "metadata", "device_info"})
"""Columns with JSON objects: text that no longer parses is wrapped in one."""

WORDS: Mapping[str, tuple[str, ...]] = {
    "status": tuple(dict.fromkeys((*get_args(NotificationStatus), *get_args(DeliveryStatus)))),
    "inbox": get_args(Inbox),
    "priority": get_args(Priority),
    "channel": get_args(Channel),
}
"""Columns with a closed set of values: a damaged value is restored if only one of them fits."""


class Damage(NamedTuple):
    """A damaged text: ``key`` holds the values of the primary key (or the rowid) by column."""

    table: str
    column: str
    key: dict[str, Any]
    stored: bytes


class _NotUtf8(bytes):
    """Text that is not UTF-8, as the scan reads it. A BLOB is plain bytes."""


def scan(path: Path) -> Iterator[Damage]:
    """Yield every damaged text of a live file, on one snapshot. Reads the whole file: run it in its own thread."""
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as conn:
        conn.execute("BEGIN")
        for name, statement in conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall():
            if not name.startswith("sqlite_") and " VIRTUAL " not in statement.upper():
                yield from _scan_table(conn, name, "WITHOUT ROWID" not in statement.upper())


def _scan_table(conn: sqlite3.Connection, table: str, has_rowid: bool) -> Iterator[Damage]:
    conn.text_factory = str
    about = conn.execute(f"PRAGMA table_info({table})").fetchall()
    columns = [name for _, name, *_ in about]
    keys = ["rowid"] if has_rowid else [name for _, name, _, _, _, place in about if place]
    conn.text_factory = _checked
    for row in conn.execute(f"SELECT {', '.join([*keys, *columns])} FROM {table}"):
        for column, value in zip(columns, row[len(keys) :], strict=True):
            if isinstance(value, _NotUtf8):
                yield Damage(table, column, dict(zip(keys, row, strict=False)), bytes(value))


def _checked(stored: bytes) -> str | _NotUtf8:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return _NotUtf8(stored)


def replace(tx: Tx, items: Sequence[Sequence[Damage]]) -> list[int]:
    """Replace damaged texts and mark their rows; return how many stay because another row has the repaired key."""
    return [sum(not _replaced(tx, damage) for damage in found) for found in items]


def _replaced(tx: Tx, damage: Damage) -> bool:
    text = _mended(damage.column, decode_text(damage.stored))
    # A damaged key value is passed as bytes and cast: Python cannot pass it as text.
    same = [
        f"{name} IS {'CAST(? AS TEXT)' if isinstance(value, _NotUtf8) else '?'}" for name, value in damage.key.items()
    ]
    changed = tx.conn.execute(
        f"UPDATE OR IGNORE {damage.table} SET {damage.column} = ? "
        f"WHERE {' AND '.join(same)} AND {damage.column} = CAST(? AS TEXT)",
        (text, *map(_plain, damage.key.values()), damage.stored),
    )
    tx.conn.execute(
        "INSERT INTO damaged_rows (table_name, row, column_name, found_at) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (table_name, row, column_name) DO NOTHING",
        (damage.table, damage.key.get("rowid", 0), damage.column, tx.now_ms),
    )
    return changed.rowcount == 1


def _mended(column: str, text: str) -> str:
    if column in OBJECTS:
        return encode_json(from_object(text)).decode()
    pattern = re.compile(re.escape(text).replace(DAMAGED, "."))
    meant = [word for word in WORDS.get(column, ()) if pattern.fullmatch(word)]
    return meant[0] if len(meant) == 1 else text


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, _NotUtf8) else value


def count_rows(conn: sqlite3.Connection) -> int:
    """Number of rows marked as damaged."""
    return int(conn.execute("SELECT COUNT(*) FROM (SELECT DISTINCT table_name, row FROM damaged_rows)").fetchone()[0])
