"""The ``device_tokens`` table: devices registered for push."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import decode_id, encode_id, from_object, to_json
from flashflow.backend.core.events import Event
from flashflow.backend.domain.device_address import DeviceAddress
from flashflow.backend.schemas.records import Device
from flashflow.backend.store.engine.sql import take
from flashflow.backend.store.engine.writer import Tx

_DEVICE_COLUMNS = "id, user_id, platform, identity, device_info, is_active, app, created_at, last_used_at"


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
    """(``seq``, device) pairs of a user below ``before``, newest first, and whether more follow. At most ``limit``,
    fewer once they exceed PAGE_BYTES."""
    rows, more = take(_devices(conn, user_id, app, before), limit)
    return [(row[0], _to_device(row[1:])) for row in rows], more


def _devices(conn: sqlite3.Connection, user_id: str, app: str | None, before: int) -> Iterator[tuple[Any, ...]]:
    return conn.execute(
        f"SELECT seq, {_DEVICE_COLUMNS} FROM device_tokens "
        "WHERE user_id = ? AND seq < ? AND (? IS NULL OR app = ?) ORDER BY seq DESC",
        (user_id, before, app, app),
    )


def device_by_identity(conn: sqlite3.Connection, identity: str) -> Device | None:
    """Find the device that a push provider reaches by ``identity``."""
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


def find_device(conn: sqlite3.Connection, device_id: str, app: str | None) -> Device | None:
    """Find a device; ``app`` limits the search to one app's (None: any)."""
    row = conn.execute(
        f"SELECT {_DEVICE_COLUMNS} FROM device_tokens WHERE id = ? AND (? IS NULL OR app = ?)",
        (encode_id(device_id), app, app),
    ).fetchone()
    return None if row is None else _to_device(row)


def active_tokens(conn: sqlite3.Connection, user_id: str) -> list[tuple[str, str, int]]:
    """(token, platform, registration time in milliseconds since 1970) of a user's active devices."""
    return conn.execute(
        "SELECT token, platform, updated_at FROM device_tokens WHERE user_id = ? AND is_active", (user_id,)
    ).fetchall()


def save_device(tx: Tx, device_id: str, user_id: str, platform: str, address: DeviceAddress, app: str) -> Device:
    """Register a device; one with the same identity keeps its id and moves to this user and app."""
    tx.conn.execute(
        "INSERT INTO device_tokens (id, user_id, token, identity, platform, device_info, is_active, app, "
        "created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT (identity) DO UPDATE SET "
        "user_id = excluded.user_id, token = excluded.token, platform = excluded.platform, "
        "device_info = excluded.device_info, is_active = 1, app = excluded.app, "
        "updated_at = excluded.updated_at",
        (
            encode_id(device_id), user_id, address.token, address.identity, platform,
            to_json(address.info) if address.info else None, app, tx.now_ms, tx.now_ms,
        ),
    )  # fmt: skip
    device = device_by_identity(tx.conn, address.identity)
    assert device is not None
    return device


def delete_device(tx: Tx, device_id: str) -> None:
    """Delete a device; its deliveries fail as ``no_device``."""
    tx.conn.execute("DELETE FROM device_tokens WHERE id = ?", (encode_id(device_id),))


def deactivate_stale(tx: Tx, before_ms: int) -> int:
    """Deactivate tokens registered last before ``before_ms``, except desktops; return how many."""
    rows = tx.conn.execute(
        "UPDATE device_tokens SET is_active = 0 WHERE is_active AND platform <> 'desktop' AND updated_at < ? "
        "RETURNING id, user_id, app",
        (before_ms,),
    ).fetchall()
    for id_, user_id, app in rows:
        tx.events.append(Event("device", decode_id(id_), user_id, app))
    return len(rows)


def mask(token: str) -> str:
    """Shorten a token so that it can be recognised but not used."""
    return f"{token[:4]}…{token[-4:]}" if len(token) >= 16 else "…"


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
