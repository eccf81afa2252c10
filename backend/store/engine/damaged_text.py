"""Find text that is not UTF-8 (a flipped bit, another program's write) in every table, replace it and mark its row."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

from peewee import SQL, Select, fn

from flashflow.backend.core.encoding import DAMAGED, decode_text, encode_json, from_object
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.records import Channel, DeliveryStatus, Inbox, NotificationStatus, Priority
from flashflow.backend.store.engine.database import BUSY_TIMEOUT_S
from flashflow.backend.store.engine.models import DamagedRow
from flashflow.backend.store.engine.schema import read_columns, read_entries
from flashflow.backend.store.engine.statement import Statement, slots
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
        for name, sql in [(e.name, (e.sql or "").upper()) for e in read_entries(conn) if e.type == "table"]:
            if not name.startswith("sqlite_") and " VIRTUAL " not in sql:
                yield from _scan_table(conn, name, "WITHOUT ROWID" not in sql)


def _scan_table(conn: sqlite3.Connection, table: str, has_rowid: bool) -> Iterator[Damage]:
    conn.text_factory = str
    columns = read_columns(conn, table)
    names = [*(["rowid"] if has_rowid else []), *(column.name for column in columns)]
    keys = ["rowid"] if has_rowid else [column.name for column in columns if column.place]
    conn.text_factory = _checked
    for row in conn.execute(f"SELECT {', '.join(names)} FROM {table}"):
        for column, value in zip(names, row, strict=True):
            if isinstance(value, _NotUtf8):
                found = dict(zip(names, row, strict=True))
                yield Damage(table, column, {key: found[key] for key in keys}, bytes(value))


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
    _MARK.run(
        tx.conn,
        table_name=damage.table,
        row=damage.key.get("rowid", 0),
        column_name=damage.column,
        found_at=tx.now_ms,
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
    return int(_COUNT.value(conn))


_D = DamagedRow
_MARK = Statement(lambda: _D.insert(slots(_D.table_name, _D.row, _D.column_name, _D.found_at)).on_conflict_ignore())
_COUNT = Statement(lambda: Select([_D.select(_D.table_name, _D.row).distinct()], [fn.COUNT(SQL("*"))]))
