"""Delivery settings in ``notifications.db``: contacts, quiet hours, do not disturb, digests."""

# Every ``send`` reads these inside its transaction: each read is one indexed query.

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import from_strings, to_json
from flashflow.backend.core.timezones import DAYS, is_zone
from flashflow.backend.domain.quiet_hours import Digest, QuietHours
from flashflow.backend.schemas.records import Record
from flashflow.backend.store.engine.writer import Tx

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


def contact_of(conn: sqlite3.Connection, user_id: str) -> Contact | None:
    """The user's addresses and language."""
    row = conn.execute("SELECT email, phone, locale, updated_at FROM contacts WHERE user_id = ?", (user_id,)).fetchone()
    if row is None:
        return None
    return Contact(email=row[0], phone=row[1], locale=row[2], updated_at=to_datetime(row[3]))


def addresses_of(conn: sqlite3.Connection, user_id: str) -> frozenset[str]:
    """The channels among ``email`` and ``sms`` that the user has an address for."""
    row = conn.execute("SELECT email, phone FROM contacts WHERE user_id = ?", (user_id,)).fetchone()
    if row is None:
        return frozenset()
    return frozenset(channel for channel, address in zip(("email", "sms"), row, strict=True) if address is not None)


def save_contact(tx: Tx, user_id: str, changes: Mapping[str, str | None]) -> Contact:
    """Apply ``changes`` to ``email``, ``phone``, ``locale``; None deletes a value."""
    known = contact_of(tx.conn, user_id) or Contact()
    if not changes:
        return known
    values = {name: changes.get(name, getattr(known, name)) for name in ("email", "phone", "locale")}
    tx.conn.execute(
        "INSERT INTO contacts (user_id, email, phone, locale, updated_at) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET email = excluded.email, phone = excluded.phone, locale = excluded.locale, "
        "updated_at = excluded.updated_at",
        (user_id, *values.values(), tx.now_ms),
    )
    return Contact(**values, updated_at=to_datetime(tx.now_ms))


# --- quiet hours and do not disturb -----------------------------------------------------------------------------------

_QUIET = "SELECT enabled, start_time, end_time, timezone, days, dnd_until FROM quiet_hours WHERE user_id = ?"
_UNSET: tuple[Any, ...] = (0, "22:00", "07:00", None, None, None)
"""The table's defaults, for a user without a row."""


def quiet_of(conn: sqlite3.Connection, user_id: str, default_zone: str) -> tuple[QuietHours | None, int | None]:
    """Enabled quiet hours, and ``dnd_until`` in milliseconds since 1970, which may be past."""
    row = conn.execute(_QUIET, (user_id,)).fetchone()
    if row is None:
        return None, None
    enabled, start, end, zone, days, dnd_until = row
    if not enabled:
        return None, dnd_until
    return QuietHours(start=start, end=end, zone=_usable(zone, default_zone), days=_days(days)), dnd_until


def quiet_setting(conn: sqlite3.Connection, user_id: str, default_zone: str, now_ms: int) -> QuietSetting:
    """The setting as shown to the user, enabled or not; a past do not disturb is None."""
    enabled, start, end, zone, days, dnd_until = conn.execute(_QUIET, (user_id,)).fetchone() or _UNSET
    return QuietSetting(
        enabled=bool(enabled),
        start=start,
        end=end,
        timezone=_usable(zone, default_zone),
        days=_days(days),
        do_not_disturb_until=to_datetime(dnd_until) if dnd_until is not None and dnd_until > now_ms else None,
    )


def save_quiet(tx: Tx, user_id: str, changes: Mapping[str, Any]) -> None:
    """Apply ``changes`` to ``enabled``, ``start``, ``end``, ``timezone``, ``days``; ``timezone`` None means the
    workspace's."""
    known = tx.conn.execute(_QUIET, (user_id,)).fetchone() or _UNSET
    values = dict(zip(("enabled", "start", "end", "timezone", "days"), known[:5], strict=True)) | dict(changes)
    if isinstance(values["days"], tuple):
        values["days"] = to_json(values["days"])
    tx.conn.execute(
        "INSERT INTO quiet_hours (user_id, enabled, start_time, end_time, timezone, days, updated_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET enabled = excluded.enabled, "
        "start_time = excluded.start_time, end_time = excluded.end_time, timezone = excluded.timezone, "
        "days = excluded.days, updated_at = excluded.updated_at",
        (user_id, *values.values(), tx.now_ms),
    )


def save_dnd(tx: Tx, user_id: str, until_ms: int | None) -> None:
    """Set do not disturb until ``until_ms`` (milliseconds since 1970); None ends it."""
    if until_ms is None:
        tx.conn.execute(
            "UPDATE quiet_hours SET dnd_until = NULL, updated_at = ? WHERE user_id = ?", (tx.now_ms, user_id)
        )
        return
    tx.conn.execute(
        "INSERT INTO quiet_hours (user_id, dnd_until, updated_at) VALUES (?, ?, ?) "
        "ON CONFLICT DO UPDATE SET dnd_until = excluded.dnd_until, updated_at = excluded.updated_at",
        (user_id, until_ms, tx.now_ms),
    )


def _days(stored: str | None) -> tuple[str, ...]:
    return from_strings(stored) if stored else DAYS


def _usable(zone: str | None, default: str) -> str:
    """``zone`` where this machine knows it, else ``default``: the data folder may come from another machine."""
    return zone if zone is not None and is_zone(zone) else default


# --- digests ----------------------------------------------------------------------------------------------------------


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
    own_zone, frequency, at = conn.execute(
        "SELECT q.timezone, d.frequency, d.at FROM (SELECT ? AS user_id) u "
        "LEFT JOIN quiet_hours q ON q.user_id = u.user_id "
        "LEFT JOIN digests d ON d.user_id = u.user_id AND d.notification_type IN (?, ?) "
        "ORDER BY d.notification_type = ? LIMIT 1",
        (user_id, notification_type, EVERY_TYPE, EVERY_TYPE),
    ).fetchone()
    if frequency is None:
        frequency, at = declared, declared_at
    if frequency is None or frequency == "off":
        return None
    return Digest(frequency=frequency, zone=_usable(own_zone, zone), at=at or DIGEST_AT)


def digests_of(conn: sqlite3.Connection, user_id: str) -> dict[str, DigestChoice]:
    """The user's choices by type; ``*`` is every type."""
    rows = conn.execute(
        "SELECT notification_type, frequency, at FROM digests WHERE user_id = ? ORDER BY notification_type", (user_id,)
    )
    return {kind: DigestChoice(frequency=frequency, at=at) for kind, frequency, at in rows}


def save_digest(tx: Tx, user_id: str, notification_type: str, frequency: str | None, at: str | None) -> None:
    """Store a choice; ``frequency`` None deletes it, ``at`` None keeps the stored time."""
    if frequency is None:
        tx.conn.execute("DELETE FROM digests WHERE user_id = ? AND notification_type = ?", (user_id, notification_type))
        return
    known = tx.conn.execute(
        "SELECT at FROM digests WHERE user_id = ? AND notification_type = ?", (user_id, notification_type)
    ).fetchone()
    at = at or (known[0] if known else None) or (DIGEST_AT if frequency == "daily" else None)
    tx.conn.execute(
        "INSERT INTO digests (user_id, notification_type, frequency, at, updated_at) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET frequency = excluded.frequency, at = excluded.at, updated_at = excluded.updated_at",
        (user_id, notification_type, frequency, at, tx.now_ms),
    )
