"""What ``notifications.db`` knows of users and types: choices, devices, declared types."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import decode_id, decode_json, from_object, from_strings, to_json
from flashflow.backend.schemas.records import Device, NotificationType, Preference, Stage, Throttle
from flashflow.backend.store.engine.sql import take
from flashflow.backend.store.engine.writer import Tx

MOST_TYPES = 1_000
"""Types remembered by their first use; beyond it a type works but is not listed (a guard against ids in names)."""

_TYPE_COLUMNS = (
    "name, label, description, channels, critical, digest, app, created_at, updated_at, asks_critical, category, "
    "digest_at, throttle, failover"
)
_NEXT_TYPE = "(SELECT COALESCE(MAX(seq), 0) + 1 FROM notification_types)"
_decode_throttle = msgspec.json.Decoder(Throttle).decode
_decode_failover = msgspec.json.Decoder(tuple[Stage, ...]).decode
_DEVICE_COLUMNS = "id, user_id, platform, identity, device_info, is_active, app, created_at, last_used_at"


def choices_of(conn: sqlite3.Connection, user_id: str) -> dict[tuple[str, str], bool]:
    """(type, channel) → enabled."""
    rows = conn.execute(
        "SELECT notification_type, channel, enabled FROM notification_preferences WHERE user_id = ?", (user_id,)
    )
    return {(kind, channel): bool(enabled) for kind, channel, enabled in rows}


def preferences_of(conn: sqlite3.Connection, user_id: str) -> tuple[Preference, ...]:
    """A user's choices, by type and channel."""
    rows = conn.execute(
        "SELECT notification_type, channel, enabled, updated_at FROM notification_preferences WHERE user_id = ? "
        "ORDER BY notification_type, channel",
        (user_id,),
    )
    return tuple(
        Preference(
            user_id=user_id,
            notification_type=kind,
            channel=channel,
            enabled=bool(enabled),
            updated_at=to_datetime(updated),
        )
        for kind, channel, enabled, updated in rows
    )


def set_preferences(tx: Tx, choices: Sequence[tuple[str, str, str, bool]]) -> None:
    """Store (user, type, channel, enabled) choices over what stood there."""
    tx.conn.executemany(
        "INSERT INTO notification_preferences (user_id, notification_type, channel, enabled, updated_at) "
        "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET enabled = excluded.enabled, updated_at = excluded.updated_at",
        [(*choice, tx.now_ms) for choice in choices],
    )


def read_type(conn: sqlite3.Connection, name: str) -> NotificationType | None:
    """The declared or remembered type of that name."""
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
    """List a type that is used before anyone declared it."""
    tx.conn.execute(
        "INSERT INTO notification_types "
        "(name, label, description, channels, critical, app, created_at, updated_at, seq) "
        f"SELECT ?, ?, '', '[\"in_app\"]', 0, ?, ?, ?, {_NEXT_TYPE} "
        "WHERE (SELECT COUNT(*) FROM notification_types) < ? ON CONFLICT DO NOTHING",
        (name, type_label(name), app, tx.now_ms, tx.now_ms, MOST_TYPES),
    )


def save_type(tx: Tx, kind: NotificationType) -> None:
    """Store a declared type over what stood there."""
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
    """``build_finished`` as “Build finished”."""
    words = " ".join(name.replace("_", " ").replace("-", " ").replace(".", " ").split()) or name
    return words[:1].upper() + words[1:]


def targets_of(conn: sqlite3.Connection, user_id: str) -> list[tuple[int, str, str]]:
    """Return a user's active devices: (seq, identity, platform)."""
    return conn.execute(
        "SELECT seq, identity, platform FROM device_tokens WHERE user_id = ? AND is_active ORDER BY seq", (user_id,)
    ).fetchall()


def list_devices(conn: sqlite3.Connection, user_id: str, app: str | None) -> list[Device]:
    """A user's devices, newest first."""
    return [_to_device(row[1:]) for row in _devices(conn, user_id, app, 1 << 62)]


def newest_devices(
    conn: sqlite3.Connection, user_id: str, app: str | None, before: int, limit: int
) -> tuple[list[tuple[int, Device]], bool]:
    """A user's devices with a ``seq`` below ``before``, each with its own, newest first, and whether there are more. At
    most ``limit``, fewer once they hold PAGE_BYTES."""
    rows, more = take(_devices(conn, user_id, app, before), limit)
    return [(row[0], _to_device(row[1:])) for row in rows], more


def _devices(conn: sqlite3.Connection, user_id: str, app: str | None, before: int) -> Iterator[tuple[Any, ...]]:
    return conn.execute(
        f"SELECT seq, {_DEVICE_COLUMNS} FROM device_tokens "
        "WHERE user_id = ? AND seq < ? AND (? IS NULL OR app = ?) ORDER BY seq DESC",
        (user_id, before, app, app),
    )


def device_by_identity(conn: sqlite3.Connection, identity: str) -> Device | None:
    """Return the device that a push provider would reach under ``identity``."""
    row = conn.execute(f"SELECT {_DEVICE_COLUMNS} FROM device_tokens WHERE identity = ?", (identity,)).fetchone()
    return None if row is None else _to_device(row)


def desktop_tokens(conn: sqlite3.Connection, user_id: str, name: str) -> list[str]:
    """A user's tokens of computers called ``name``."""
    rows = conn.execute(
        "SELECT token FROM device_tokens WHERE user_id = ? AND platform = 'desktop' "
        "AND json_extract(device_info, '$.name') = ?",
        (user_id, name),
    )
    return [token for (token,) in rows]


def mask(token: str) -> str:
    """Enough of a token to recognise it by, not enough to use it."""
    return f"{token[:4]}…{token[-4:]}" if len(token) >= 16 else "…"


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


def _to_device(row: tuple[Any, ...]) -> Device:
    id_, user_id, platform, identity, info, active, app, created, used = row
    return Device(
        id=decode_id(id_),
        user_id=user_id,
        platform=platform,
        token=mask(identity),
        device_info=from_object(info),
        is_active=bool(active),
        app=app,
        created_at=to_datetime(created),
        last_used_at=None if used is None else to_datetime(used),
    )
