"""Store imported notifications, numbered by age below all that were created here."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec
from peewee import fn

from flashflow.backend.core.errors import Conflict, FlashFlowError
from flashflow.backend.core.events import Event
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.records import Tracked
from flashflow.backend.store.engine.statement import Statement, columns, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import models, search
from flashflow.backend.store.notifications.notifications import NOTIFICATION_REVISIONS
from flashflow.backend.store.notifications.types import remember_type

LOWEST = -(1 << 61)
OF_ONE_MS = 1 << 10
"""Sequence numbers reserved for each millisecond of ``created_at``; imports beyond it continue in the next one.
Numbers from LOWEST on are never given to notifications created here."""


class OldNotification(msgspec.Struct, frozen=True, kw_only=True):
    """A row to import; times in milliseconds since 1970, objects as JSON text."""

    id: str
    user_id: str
    app: str
    title: str
    message: str
    notification_type: str
    channels: str
    priority: str
    status: str
    inbox: str | None
    data: str | None
    actions: str | None
    collapse_key: str | None
    created_at: int
    scheduled_at: int | None
    expires_at: int | None
    sent_at: int | None
    delivered_at: int | None
    read_at: int | None
    archived_at: int | None
    snoozed_until: int | None
    count: int
    listed_at: int


def take_in(tx: Tx, notifications: Sequence[OldNotification]) -> list[Tracked | FlashFlowError]:
    """Store unknown notifications; answer each, as a duplicate where its id is known."""
    answers: list[Tracked | FlashFlowError] = []
    revisions = NOTIFICATION_REVISIONS.following(tx.conn)
    types: set[str] = set()
    seqs: list[int] = []
    for new in notifications:
        known = _KNOWN.one(tx.conn, id=new.id)
        if known is not None and known != (new.app, new.user_id):
            answers.append(Conflict(f"id: {new.id!r} belongs to another app or user."))
            continue
        if known is None:
            seqs.append(_seq(tx.conn, new.created_at))
            _INSERT.run(tx.conn, seq=seqs[-1], revision=next(revisions), **msgspec.structs.asdict(new))
            tx.events.append(Event("notification.updated", new.id, new.user_id, new.app))
            if new.notification_type not in types:
                types.add(new.notification_type)
                remember_type(tx, new.notification_type, new.app)
        answers.append(Tracked(activity_id=None, session_id=None, duplicate=known is not None))
    search.add_older(tx.conn, seqs)
    return answers


def _seq(conn: sqlite3.Connection, created_at: int) -> int:
    first = LOWEST + created_at * OF_ONE_MS
    while True:
        seq: int = _NEXT.value(conn, first=first, last=first + OF_ONE_MS - 1)
        if seq < first + OF_ONE_MS:
            return seq
        first += OF_ONE_MS


class _Owner(NamedTuple):
    app: str
    user_id: str


_N = models.Notification
_KNOWN = Statement(lambda: _N.select(*columns(_N, _Owner)).where(_N.id == slot("id", _N.id)), _Owner)
_INSERT = Statement(
    lambda: _N.insert(
        {getattr(_N, name): slot(name) for name in ("seq", "revision", *OldNotification.__struct_fields__)}
        | slots(_N.id)
    )
)
_NEXT = Statement(
    lambda: _N.select(fn.COALESCE(fn.MAX(_N.seq) + 1, slot("first"))).where(_N.seq.between(slot("first"), slot("last")))
)
