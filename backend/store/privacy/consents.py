"""Consent: each user's own choice about tracking."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from peewee import SQL, Select, fn

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.store.engine.models import is_false
from flashflow.backend.store.engine.statement import Statement, among, columns, slot, slots
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.privacy.models import Consent, Tombstone


class Choice(NamedTuple):
    """A user's choice and its time (milliseconds since 1970)."""

    tracking: bool
    updated_at: int


class Refusals(NamedTuple):
    """Whether any user was erased and whether any user refused tracking."""

    erased: bool
    refused: bool


def consent_of(conn: sqlite3.Connection, user_id: str) -> Choice | None:
    """Return the user's choice."""
    return _CHOICE.one(conn, user=user_id)


def save_consent(tx: Tx, user_id: str, tracking: bool) -> None:
    """Store the user's choice; it replaces an earlier one."""
    _SAVE.run(tx.conn, user_id=user_id, tracking=tracking, updated_at=tx.now_ms)


def any_refusals(conn: sqlite3.Connection) -> Refusals:
    """Return whether there are any refusals. Runs once in every transaction."""
    found = _ANY.one(conn)
    assert found is not None
    return found


def users_who_chose(conn: sqlite3.Connection, tracking: bool, user_ids: Iterable[str]) -> frozenset[str]:
    """Return the members of ``user_ids`` whose own choice is ``tracking``."""
    return frozenset(user for (user,) in _CHOSE.each(conn, tracking=tracking, users=sorted(user_ids)))


_CHOICE = Statement(lambda: Consent.select(*columns(Consent, Choice)).where(Consent.user_id == slot("user")), Choice)
_SAVE = Statement(
    lambda: Consent.insert(slots(Consent.user_id, Consent.tracking, Consent.updated_at)).on_conflict(
        conflict_target=[Consent.user_id], preserve=[Consent.tracking, Consent.updated_at]
    )
)
_ANY = Statement(
    lambda: Select(
        columns=[
            fn.EXISTS(Tombstone.select(SQL("1"))).alias("erased"),
            fn.EXISTS(Consent.select(SQL("1")).where(is_false(Consent.tracking))).alias("refused"),
        ]
    ),
    Refusals,
)
_CHOSE = Statement(
    lambda: Consent.select(Consent.user_id).where(Consent.tracking == slot("tracking"), among(Consent.user_id, "users"))
)
