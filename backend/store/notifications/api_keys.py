"""The table ``api_keys`` in ``notifications.db``: hashed keys with their scopes."""

from __future__ import annotations

import sqlite3

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.numbers import next_number
from flashflow.backend.store.engine.statement import Statement, columns, slot, slots
from flashflow.backend.store.notifications import models


class Row(NamedTuple):
    """A key; times in milliseconds since 1970."""

    seq: int
    name: str
    hash: bytes
    scopes: tuple[str, ...]
    created_at: int
    revoked_at: int | None


def list_keys(conn: sqlite3.Connection) -> list[Row]:
    """Return every key by name."""
    return _LIST.all(conn)


def active_keys(conn: sqlite3.Connection) -> list[Row]:
    """Return the keys in use."""
    return _ACTIVE.all(conn)


def insert_key(conn: sqlite3.Connection, name: str, digest: bytes, scopes: tuple[str, ...], now_ms: int) -> Row | None:
    """Insert a key, or replace a revoked one of that name; return None where the name is in use."""
    return _INSERT.one(conn, name=name, hash=digest, scopes=scopes, created_at=now_ms)


def revoke_key(conn: sqlite3.Connection, name: str, now_ms: int) -> Row | None:
    """Revoke the key in use of that name; return None where there is none."""
    return _REVOKE.one(conn, name=name, revoked_at=now_ms)


_K = models.ApiKey
_COLUMNS = columns(_K, Row)
_LIST = Statement(lambda: _K.select(*_COLUMNS).order_by(_K.name), Row)
_ACTIVE = Statement(lambda: _K.select(*_COLUMNS).where(_K.revoked_at.is_null()), Row)
_INSERT = Statement(
    lambda: (
        _K.insert({**slots(_K.name, _K.hash, _K.scopes, _K.created_at), _K.seq: next_number(_K.seq)})
        .on_conflict(
            conflict_target=[_K.name],
            preserve=[_K.hash, _K.scopes, _K.created_at, _K.seq],
            update={_K.revoked_at: None},
            where=_K.revoked_at.is_null(False),
        )
        .returning(*_COLUMNS)
    ),
    Row,
)
_REVOKE = Statement(
    lambda: (
        _K.update(slots(_K.revoked_at)).where(_K.name == slot("name"), _K.revoked_at.is_null()).returning(*_COLUMNS)
    ),
    Row,
)
