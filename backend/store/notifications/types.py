"""The ``notification_types`` table: types declared by apps or seen in a send."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import decode_json, from_strings, to_json
from flashflow.backend.schemas.records import NotificationType, Stage, Throttle
from flashflow.backend.store.engine.writer import Tx

MOST_TYPES = 1_000
"""Types stored by their first use; further ones work but are not listed. A guard against ids in type names."""

_TYPE_COLUMNS = (
    "name, label, description, channels, critical, digest, app, created_at, updated_at, asks_critical, category, "
    "digest_at, throttle, failover"
)
_NEXT_TYPE = "(SELECT COALESCE(MAX(seq), 0) + 1 FROM notification_types)"
_decode_throttle = msgspec.json.Decoder(Throttle).decode
_decode_failover = msgspec.json.Decoder(tuple[Stage, ...]).decode


def read_type(conn: sqlite3.Connection, name: str) -> NotificationType | None:
    """Read the type of that name, declared or used."""
    row = conn.execute(f"SELECT {_TYPE_COLUMNS} FROM notification_types WHERE name = ?", (name,)).fetchone()
    return None if row is None else _to_type(row)


def list_types(conn: sqlite3.Connection) -> tuple[NotificationType, ...]:
    """Every type, by name."""
    return tuple(kind for _, kind in numbered_types(conn))


def numbered_types(conn: sqlite3.Connection) -> list[tuple[int, NotificationType]]:
    """Every type with its ``seq``, by name."""
    rows = conn.execute(f"SELECT seq, {_TYPE_COLUMNS} FROM notification_types ORDER BY name")
    return [(seq, _to_type(tuple(row))) for seq, *row in rows]


def remember_type(tx: Tx, name: str, app: str) -> None:
    """Insert a type that is used before it was declared, up to MOST_TYPES."""
    tx.conn.execute(
        "INSERT INTO notification_types "
        "(name, label, description, channels, critical, app, created_at, updated_at, seq) "
        f"SELECT ?, ?, '', '[\"in_app\"]', 0, ?, ?, ?, {_NEXT_TYPE} "
        "WHERE (SELECT COUNT(*) FROM notification_types) < ? ON CONFLICT DO NOTHING",
        (name, type_label(name), app, tx.now_ms, tx.now_ms, MOST_TYPES),
    )


def save_type(tx: Tx, kind: NotificationType) -> None:
    """Insert or replace a declared type; its ``created_at`` stays."""
    tx.conn.execute(
        f"INSERT INTO notification_types ({_TYPE_COLUMNS}, seq) "
        f"VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,{_NEXT_TYPE}) "
        "ON CONFLICT DO UPDATE SET label = excluded.label, description = excluded.description, "
        "channels = excluded.channels, critical = excluded.critical, digest = excluded.digest, app = excluded.app, "
        "updated_at = excluded.updated_at, asks_critical = excluded.asks_critical, category = excluded.category, "
        "digest_at = excluded.digest_at, throttle = excluded.throttle, failover = excluded.failover",
        (
            kind.name, kind.label, kind.description, to_json(kind.channels), kind.critical, kind.digest, kind.app,
            tx.now_ms, tx.now_ms, kind.asks_critical, kind.category, kind.digest_at,
            to_json(kind.throttle) if kind.throttle else None, to_json(kind.failover) if kind.failover else None,
        ),
    )  # fmt: skip


def type_label(name: str) -> str:
    """The default label: ``build_finished`` becomes “Build finished”."""
    label = " ".join(name.replace("_", " ").replace("-", " ").replace(".", " ").split()) or name
    return label[:1].upper() + label[1:]


def _to_type(row: tuple[Any, ...]) -> NotificationType:
    (
        name, label, description, channels, critical, digest, app, created, updated, asks, category, digest_at,
        throttle, failover,
    ) = row  # fmt: skip
    return NotificationType(
        name=name,
        label=label,
        description=description,
        channels=from_strings(channels),
        critical=bool(critical),
        digest=digest,
        app=app,
        created_at=to_datetime(created),
        updated_at=to_datetime(updated),
        asks_critical=bool(asks),
        category=category,
        digest_at=digest_at,
        throttle=decode_json(_decode_throttle, throttle, None),
        failover=decode_json(_decode_failover, failover, ()),
    )
