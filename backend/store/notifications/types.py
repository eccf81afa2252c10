"""The ``notification_types`` table: types declared by apps or seen in a send."""

from __future__ import annotations

import sqlite3

from peewee import Select, fn

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.schemas.records import NotificationType, Stage, Throttle
from flashflow.backend.store.engine.numbers import next_number
from flashflow.backend.store.engine.statement import Statement, columns, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import models

MOST_TYPES = 1_000
"""Types stored by their first use; further ones work but are not listed. A guard against ids in type names."""


class _Row(NamedTuple):
    """A row of the table."""

    seq: int
    name: str
    label: str
    description: str
    channels: tuple[str, ...]
    critical: bool
    digest: str | None
    app: str
    created_at: int
    updated_at: int
    asks_critical: bool
    category: str | None
    digest_at: str | None
    throttle: Throttle | None
    failover: tuple[Stage, ...]


def read_type(conn: sqlite3.Connection, name: str) -> NotificationType | None:
    """Read the type of that name, declared or used."""
    row = _READ.one(conn, name=name)
    return None if row is None else _to_type(row)


def list_types(conn: sqlite3.Connection) -> tuple[NotificationType, ...]:
    """Every type, by name."""
    return tuple(kind for _, kind in numbered_types(conn))


def numbered_types(conn: sqlite3.Connection) -> list[tuple[int, NotificationType]]:
    """Every type with its ``seq``, by name."""
    return [(row.seq, _to_type(row)) for row in _LIST.all(conn)]


def remember_type(tx: Tx, name: str, app: str) -> None:
    """Insert a type that is used before it was declared, up to MOST_TYPES."""
    _REMEMBER.run(tx.conn, name=name, label=type_label(name), app=app, now=tx.now_ms)


def save_type(tx: Tx, kind: NotificationType) -> None:
    """Insert or replace a declared type; its ``created_at`` stays."""
    _SAVE.run(
        tx.conn,
        name=kind.name,
        label=kind.label,
        description=kind.description,
        channels=kind.channels,
        critical=kind.critical,
        digest=kind.digest,
        app=kind.app,
        created_at=tx.now_ms,
        updated_at=tx.now_ms,
        asks_critical=kind.asks_critical,
        category=kind.category,
        digest_at=kind.digest_at,
        throttle=kind.throttle,
        failover=kind.failover,
    )


def delete_type(tx: Tx, name: str) -> None:
    """Delete a type; notifications and users' choices of it stay."""
    _DELETE.run(tx.conn, name=name)


def type_label(name: str) -> str:
    """The default label: ``build_finished`` becomes “Build finished”."""
    label = " ".join(name.replace("_", " ").replace("-", " ").replace(".", " ").split()) or name
    return label[:1].upper() + label[1:]


def _to_type(row: _Row) -> NotificationType:
    return NotificationType(
        name=row.name,
        label=row.label,
        description=row.description,
        channels=row.channels,
        critical=row.critical,
        digest=row.digest,
        app=row.app,
        created_at=to_datetime(row.created_at),
        updated_at=to_datetime(row.updated_at),
        asks_critical=row.asks_critical,
        category=row.category,
        digest_at=row.digest_at,
        throttle=row.throttle,
        failover=row.failover,
    )


_KINDS = models.NotificationType
_READ = Statement(lambda: _KINDS.select(*columns(_KINDS, _Row)).where(_KINDS.name == slot("name")), _Row)
_LIST = Statement(lambda: _KINDS.select(*columns(_KINDS, _Row)).order_by(_KINDS.name), _Row)
_COUNT = _KINDS.select(fn.COUNT(_KINDS.name))
_REMEMBER = Statement(
    lambda: _KINDS.insert_from(
        Select(
            columns=[
                slot("name"), slot("label"), "", '["in_app"]', 0, slot("app"), slot("now"), slot("now"),
                next_number(_KINDS.seq),
            ]
        ).where(_COUNT < MOST_TYPES),
        [
            _KINDS.name, _KINDS.label, _KINDS.description, _KINDS.channels, _KINDS.critical, _KINDS.app,
            _KINDS.created_at, _KINDS.updated_at, _KINDS.seq,
        ],
    ).on_conflict("NOTHING", conflict_target=[_KINDS.name])
)  # fmt: skip
_DECLARED = (
    _KINDS.label, _KINDS.description, _KINDS.channels, _KINDS.critical, _KINDS.digest, _KINDS.app, _KINDS.updated_at,
    _KINDS.asks_critical, _KINDS.category, _KINDS.digest_at, _KINDS.throttle, _KINDS.failover,
)  # fmt: skip
"""The columns that a declaration replaces."""
_SAVE = Statement(
    lambda: _KINDS.insert(
        {**slots(_KINDS.name, _KINDS.created_at, *_DECLARED), _KINDS.seq: next_number(_KINDS.seq)}
    ).on_conflict(conflict_target=[_KINDS.name], preserve=_DECLARED)
)
_DELETE = Statement(lambda: _KINDS.delete().where(_KINDS.name == slot("name")))
