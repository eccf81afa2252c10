"""Responses stored for Idempotency-Keys: the same table in both databases."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from flashflow.backend.store.engine.models import IdempotencyKey
from flashflow.backend.store.engine.statement import Statement, columns, slot, upsert
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
    _DELETE_EXPIRED.run(tx.conn, until=tx.now_ms - REMEMBER_MS)


_I = IdempotencyKey
_RESPONSE = columns(_I, StoredResponse)
_FIND = Statement(
    _I.select(*_RESPONSE).where(_I.app == slot("app"), _I.key == slot("key"), _I.created_at > slot("since")),
    StoredResponse,
)
_STORE = Statement(upsert([_I.app, _I.key], [*_RESPONSE, _I.created_at]))
_DELETE_EXPIRED = Statement(_I.delete().where(_I.created_at < slot("until")))
