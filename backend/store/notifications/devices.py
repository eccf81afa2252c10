"""The ``device_tokens`` table: devices registered for push."""

from __future__ import annotations

import sqlite3
from typing import Any

from peewee import fn

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.events import Event
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.domain.device_address import DeviceAddress
from flashflow.backend.schemas.records import Device
from flashflow.backend.store.engine.statement import Statement, any_or_same, columns, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications.models import DeviceToken


class _Row(NamedTuple):
    """A row of the table."""

    seq: int
    id: str
    user_id: str
    platform: str
    identity: str
    device_info: dict[str, Any]
    is_active: bool
    app: str
    created_at: int
    last_used_at: int | None


class ActiveDevice(NamedTuple):
    """An active device; ``updated_at`` is its registration in milliseconds since 1970."""

    seq: int
    token: str
    identity: str
    platform: str
    updated_at: int


def list_devices(conn: sqlite3.Connection, user_id: str, app: str | None) -> list[Device]:
    """A user's devices, newest first."""
    return [_to_device(row) for row in _NEWEST.each(conn, user_id=user_id, app=app, before=1 << 62)]


def newest_devices(
    conn: sqlite3.Connection, user_id: str, app: str | None, before: int, limit: int
) -> tuple[list[tuple[int, Device]], bool]:
    """(``seq``, device) pairs of a user below ``before``, newest first, and whether more follow. At most ``limit``,
    fewer once they exceed PAGE_BYTES."""
    rows, more = _NEWEST.page(conn, limit, user_id=user_id, app=app, before=before)
    return [(row.seq, _to_device(row)) for row in rows], more


def device_by_identity(conn: sqlite3.Connection, identity: str) -> Device | None:
    """Find the device that a push provider reaches by ``identity``."""
    row = _BY_IDENTITY.one(conn, identity=identity)
    return None if row is None else _to_device(row)


def desktop_tokens(conn: sqlite3.Connection, user_id: str, name: str) -> list[str]:
    """A user's tokens of computers called ``name``."""
    return [token for (token,) in _DESKTOPS.each(conn, user_id=user_id, name=name)]


def find_device(conn: sqlite3.Connection, device_id: str, app: str | None) -> Device | None:
    """Find a device; ``app`` limits the search to one app's (None: any)."""
    row = _FIND.one(conn, id=device_id, app=app)
    return None if row is None else _to_device(row)


def active_devices(conn: sqlite3.Connection, user_id: str) -> list[ActiveDevice]:
    """A user's active devices, the oldest first."""
    return _ACTIVE.all(conn, user_id=user_id)


def save_device(tx: Tx, device_id: str, user_id: str, platform: str, address: DeviceAddress, app: str) -> Device:
    """Register a device; one with the same identity keeps its id and moves to this user and app."""
    _SAVE.run(
        tx.conn,
        id=device_id,
        user_id=user_id,
        token=address.token,
        identity=address.identity,
        platform=platform,
        device_info=address.info,
        app=app,
        created_at=tx.now_ms,
        updated_at=tx.now_ms,
    )
    device = device_by_identity(tx.conn, address.identity)
    assert device is not None
    return device


def delete_device(tx: Tx, device_id: str) -> None:
    """Delete a device; its deliveries fail as ``no_device``."""
    _DELETE.run(tx.conn, id=device_id)


def deactivate_stale(tx: Tx, before_ms: int) -> int:
    """Deactivate tokens registered last before ``before_ms``, except desktops; return how many."""
    stale = _DEACTIVATE.all(tx.conn, before=before_ms)
    for device in stale:
        tx.events.append(Event("device", device.id, device.user_id, device.app))
    return len(stale)


def mask(token: str) -> str:
    """Shorten a token so that it can be recognised but not used."""
    return f"{token[:4]}…{token[-4:]}" if len(token) >= 16 else "…"


def _to_device(row: _Row) -> Device:
    return Device(
        id=row.id,
        user_id=row.user_id,
        platform=row.platform,
        token=mask(row.identity),
        device_info=row.device_info,
        is_active=row.is_active,
        app=row.app,
        created_at=to_datetime(row.created_at),
        last_used_at=None if row.last_used_at is None else to_datetime(row.last_used_at),
    )


_D = DeviceToken
_ROWS = _D.select(*columns(_D, _Row))
_OF_USER = _D.user_id == slot("user_id")
_NEWEST = Statement(
    lambda: _ROWS.where(_OF_USER, _D.seq < slot("before"), any_or_same(_D.app)).order_by(_D.seq.desc()), _Row
)
_BY_IDENTITY = Statement(lambda: _ROWS.where(_D.identity == slot("identity")), _Row)
_FIND = Statement(lambda: _ROWS.where(_D.id == slot("id", _D.id), any_or_same(_D.app)), _Row)
_DESKTOPS = Statement(
    lambda: _D.select(_D.token).where(
        _OF_USER, _D.platform == "desktop", fn.json_extract(_D.device_info, "$.name") == slot("name")
    )
)
_ACTIVE = Statement(
    lambda: _D.select(*columns(_D, ActiveDevice)).where(_OF_USER, _D.is_active).order_by(_D.seq), ActiveDevice
)
_REGISTERED = (_D.user_id, _D.token, _D.platform, _D.device_info, _D.app, _D.updated_at)
_SAVE = Statement(
    lambda: _D.insert({**slots(_D.id, _D.identity, _D.created_at, *_REGISTERED), _D.is_active: True}).on_conflict(
        conflict_target=[_D.identity], preserve=[*_REGISTERED, _D.is_active]
    )
)
_DELETE = Statement(lambda: _D.delete().where(_D.id == slot("id", _D.id)))
_DEACTIVATE = Statement(
    lambda: (
        _D.update({_D.is_active: False})
        .where(_D.is_active, _D.platform != "desktop", _D.updated_at < slot("before"))
        .returning(*columns(_D, _Row))
    ),
    _Row,
)
