"""Delivery settings in ``notifications.db``: contacts, quiet hours, do not disturb, digests."""

# Every ``send`` reads these inside its transaction: each read is one indexed query.

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from peewee import JOIN, Select

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import from_strings, to_json
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import DAYS, is_zone
from flashflow.backend.domain.quiet_hours import Digest, QuietHours
from flashflow.backend.schemas.records import Record
from flashflow.backend.store.engine.statement import Statement, columns, slot, slots, upsert
from flashflow.backend.store.engine.writer import Tx
from flashflow.backend.store.notifications import models

EVERY_TYPE = "*"
DIGEST_AT = "08:00"
"""The default time of a daily digest."""


class Contact(Record, frozen=True, kw_only=True):
    """A user's addresses and language; ``phone`` is E.164."""

    email: str | None = None
    phone: str | None = None
    locale: str | None = None
    updated_at: datetime | None = None


class QuietSetting(Record, frozen=True, kw_only=True):
    """Quiet hours and do not disturb as set by the user.

    ``timezone`` is the effective zone: the workspace's where the user has set none.
    """

    enabled: bool
    start: str
    end: str
    timezone: str
    days: tuple[str, ...]
    do_not_disturb_until: datetime | None


class DigestChoice(Record, frozen=True, kw_only=True):
    """``off``, ``hourly`` or ``daily``; ``at`` is the time of day ("HH:MM") of ``daily``."""

    frequency: str
    at: str | None


# --- contacts ---------------------------------------------------------------------------------------------------------


class _Addresses(NamedTuple):
    email: str | None
    phone: str | None
    locale: str | None
    updated_at: int


_C = models.Contact
_CONTACT = Statement(lambda: _C.select(*columns(_C, _Addresses)).where(_C.user_id == slot("user_id")), _Addresses)
_SAVE_CONTACT = Statement(lambda: upsert([_C.user_id], columns(_C, _Addresses)))


def contact_of(conn: sqlite3.Connection, user_id: str) -> Contact | None:
    """The user's addresses and language."""
    row = _CONTACT.one(conn, user_id=user_id)
    if row is None:
        return None
    return Contact(email=row.email, phone=row.phone, locale=row.locale, updated_at=to_datetime(row.updated_at))


def addresses_of(conn: sqlite3.Connection, user_id: str) -> frozenset[str]:
    """The channels among ``email`` and ``sms`` that the user has an address for."""
    row = _CONTACT.one(conn, user_id=user_id)
    if row is None:
        return frozenset()
    return frozenset(channel for channel, address in (("email", row.email), ("sms", row.phone)) if address is not None)


def save_contact(tx: Tx, user_id: str, changes: Mapping[str, str | None]) -> Contact:
    """Apply ``changes`` to ``email``, ``phone``, ``locale``; None deletes a value."""
    known = contact_of(tx.conn, user_id) or Contact()
    if not changes:
        return known
    values = {name: changes.get(name, getattr(known, name)) for name in ("email", "phone", "locale")}
    _SAVE_CONTACT.run(tx.conn, user_id=user_id, updated_at=tx.now_ms, **values)
    return Contact(**values, updated_at=to_datetime(tx.now_ms))


# --- quiet hours and do not disturb -----------------------------------------------------------------------------------


class _Quiet(NamedTuple):
    """A user's row; without one, the table's defaults. ``days`` is JSON."""

    enabled: bool = False
    start_time: str = "22:00"
    end_time: str = "07:00"
    timezone: str | None = None
    days: str | None = None
    dnd_until: int | None = None


_UNSET = _Quiet()
_Q = models.QuietHours
_QUIET = Statement(lambda: _Q.select(*columns(_Q, _Quiet)).where(_Q.user_id == slot("user_id")), _Quiet)
_SAVE_QUIET = Statement(
    lambda: upsert([_Q.user_id], [_Q.enabled, _Q.start_time, _Q.end_time, _Q.timezone, _Q.days, _Q.updated_at])
)
_SAVE_DND = Statement(lambda: upsert([_Q.user_id], [_Q.dnd_until, _Q.updated_at]))
_END_DND = Statement(
    lambda: _Q.update({_Q.dnd_until: None, **slots(_Q.updated_at)}).where(_Q.user_id == slot("user_id"))
)


def quiet_of(conn: sqlite3.Connection, user_id: str, default_zone: str) -> tuple[QuietHours | None, int | None]:
    """Enabled quiet hours, and ``dnd_until`` in milliseconds since 1970, which may be past."""
    row = _QUIET.one(conn, user_id=user_id) or _UNSET
    if not row.enabled:
        return None, row.dnd_until
    zone = _usable(row.timezone, default_zone)
    return QuietHours(start=row.start_time, end=row.end_time, zone=zone, days=_days(row.days)), row.dnd_until


def quiet_setting(conn: sqlite3.Connection, user_id: str, default_zone: str, now_ms: int) -> QuietSetting:
    """The setting as shown to the user, enabled or not; a past do not disturb is None."""
    row = _QUIET.one(conn, user_id=user_id) or _UNSET
    dnd_until = row.dnd_until
    return QuietSetting(
        enabled=row.enabled,
        start=row.start_time,
        end=row.end_time,
        timezone=_usable(row.timezone, default_zone),
        days=_days(row.days),
        do_not_disturb_until=to_datetime(dnd_until) if dnd_until is not None and dnd_until > now_ms else None,
    )


def save_quiet(tx: Tx, user_id: str, changes: Mapping[str, Any]) -> None:
    """Apply ``changes`` to ``enabled``, ``start``, ``end``, ``timezone``, ``days``; ``timezone`` None means the
    workspace's."""
    known = _QUIET.one(tx.conn, user_id=user_id) or _UNSET
    days = changes.get("days")
    _SAVE_QUIET.run(
        tx.conn,
        user_id=user_id,
        enabled=changes.get("enabled", known.enabled),
        start_time=changes.get("start", known.start_time),
        end_time=changes.get("end", known.end_time),
        timezone=changes.get("timezone", known.timezone),
        days=known.days if days is None else to_json(days),
        updated_at=tx.now_ms,
    )


def save_dnd(tx: Tx, user_id: str, until_ms: int | None) -> None:
    """Set do not disturb until ``until_ms`` (milliseconds since 1970); None ends it."""
    if until_ms is None:
        _END_DND.run(tx.conn, user_id=user_id, updated_at=tx.now_ms)
    else:
        _SAVE_DND.run(tx.conn, user_id=user_id, dnd_until=until_ms, updated_at=tx.now_ms)


def _days(stored: str | None) -> tuple[str, ...]:
    return from_strings(stored) if stored else DAYS


def _usable(zone: str | None, default: str) -> str:
    """``zone`` where this machine knows it, else ``default``: the data folder may come from another machine."""
    return zone if zone is not None and is_zone(zone) else default


# --- digests ----------------------------------------------------------------------------------------------------------


class _Choice(NamedTuple):
    notification_type: str
    frequency: str
    at: str | None


class _Effective(NamedTuple):
    """A user's time zone and digest, as far as they have set them."""

    timezone: str | None
    frequency: str | None
    at: str | None


_D = models.Digest
_USER = Select(columns=[slot("user_id").alias("user_id")]).alias("u")
_DIGEST = Statement(
    lambda: (
        Select([_USER], [_Q.timezone, _D.frequency, _D.at])
        .join(_Q, JOIN.LEFT_OUTER, on=_Q.user_id == _USER.c.user_id)
        .join(
            _D,
            JOIN.LEFT_OUTER,
            on=(_D.user_id == _USER.c.user_id) & _D.notification_type.in_([slot("notification_type"), EVERY_TYPE]),
        )
        .order_by(_D.notification_type == EVERY_TYPE)
        .limit(1)
    ),
    _Effective,
)
_DIGESTS = Statement(
    lambda: _D.select(*columns(_D, _Choice)).where(_D.user_id == slot("user_id")).order_by(_D.notification_type),
    _Choice,
)
_OF_TYPE = (_D.user_id == slot("user_id")) & (_D.notification_type == slot("notification_type"))
_DIGEST_AT = Statement(lambda: _D.select(_D.at).where(_OF_TYPE))
_DELETE_DIGEST = Statement(lambda: _D.delete().where(_OF_TYPE))
_SAVE_DIGEST = Statement(lambda: upsert([_D.user_id, _D.notification_type], [_D.frequency, _D.at, _D.updated_at]))


def digest_of(
    conn: sqlite3.Connection,
    user_id: str,
    notification_type: str,
    declared: str | None,
    declared_at: str | None,
    zone: str,
) -> Digest | None:
    """The digest for a type: the user's choice for it, else for every type, else the type's own; None without a digest.
    ``zone`` is the default time zone."""
    found = _DIGEST.one(conn, user_id=user_id, notification_type=notification_type)
    assert found is not None
    frequency, at = (declared, declared_at) if found.frequency is None else (found.frequency, found.at)
    if frequency is None or frequency == "off":
        return None
    return Digest(frequency=frequency, zone=_usable(found.timezone, zone), at=at or DIGEST_AT)


def digests_of(conn: sqlite3.Connection, user_id: str) -> dict[str, DigestChoice]:
    """The user's choices by type; ``*`` is every type."""
    return {
        row.notification_type: DigestChoice(frequency=row.frequency, at=row.at)
        for row in _DIGESTS.each(conn, user_id=user_id)
    }


def save_digest(tx: Tx, user_id: str, notification_type: str, frequency: str | None, at: str | None) -> None:
    """Store a choice; ``frequency`` None deletes it, ``at`` None keeps the stored time."""
    key = {"user_id": user_id, "notification_type": notification_type}
    if frequency is None:
        _DELETE_DIGEST.run(tx.conn, **key)
        return
    at = at or _DIGEST_AT.value(tx.conn, **key) or (DIGEST_AT if frequency == "daily" else None)
    _SAVE_DIGEST.run(tx.conn, **key, frequency=frequency, at=at, updated_at=tx.now_ms)
