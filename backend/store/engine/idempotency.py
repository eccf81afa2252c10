"""Responses stored for Idempotency-Keys: the same table in both databases."""

from __future__ import annotations

import sqlite3

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.models import IdempotencyKey
from flashflow.backend.store.engine.statement import Statement, columns, slot, slots
from flashflow.backend.store.engine.write_command import Tx

REMEMBER_MS = 24 * 60 * 60 * 1000
"""How long an Idempotency-Key is honoured."""


class StoredResponse(NamedTuple):
    """The response to the first request with an Idempotency-Key; ``fingerprint`` is that request's SHA-256."""

    fingerprint: bytes
    status: int
    body: bytes


def find_response(conn: sqlite3.Connection, app: str, key: str, since_ms: int) -> StoredResponse | None:
    """Return the response stored under the app's ``key`` after ``since_ms``, if any."""
    return _FIND.one(conn, app=app, key=key, since=since_ms)


def store_response(tx: Tx, app: str, key: str, response: StoredResponse) -> None:
    """Store ``response`` under the app's ``key``, in place of an expired one."""
    _STORE.run(tx.conn, app=app, key=key, created_at=tx.now_ms, **response._asdict())


def delete_expired_responses(tx: Tx) -> None:
    """Delete the responses stored more than REMEMBER_MS ago."""
    _DELETE_EXPIRED.run(tx.conn, before=tx.now_ms - REMEMBER_MS)


_K = IdempotencyKey
_RESPONSE = (_K.fingerprint, _K.status, _K.body, _K.created_at)
_FIND = Statement(
    lambda: _K.select(*columns(_K, StoredResponse)).where(
        _K.app == slot("app"), _K.key == slot("key"), _K.created_at > slot("since")
    ),
    StoredResponse,
)
_STORE = Statement(
    lambda: _K.insert(slots(_K.app, _K.key, *_RESPONSE)).on_conflict(
        conflict_target=[_K.app, _K.key], preserve=_RESPONSE
    )
)
_DELETE_EXPIRED = Statement(lambda: _K.delete().where(_K.created_at < slot("before")))
