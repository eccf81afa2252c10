"""What ``notifications.db`` knows of a user's circumstances: addresses, quiet hours, do not disturb, digests.

The questions are asked inside the transaction of every ``send``: one indexed query each.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.encoding import from_strings, to_json
from flashflow.backend.domain.quiet_hours import DAYS, Digest, QuietHours, is_zone
from flashflow.backend.schemas.records import Record
from flashflow.backend.store.engine.writer import Tx

EVERY_TYPE = "*"
DIGEST_AT = "08:00"
"""When a daily digest goes out that nobody gave a time."""


class Contact(Record, frozen=True, kw_only=True):
    """How a user is reached beyond this machine, and in which language; ``phone`` is E.164."""

    email: str | None = None
    phone: str | None = None
    locale: str | None = None
    updated_at: datetime | None = None


class QuietSetting(Record, frozen=True, kw_only=True):
    """Quiet hours as they are set, and until when the user is not to be disturbed at all.

    ``timezone`` is what takes effect: the workspace's zone where the user has set none.
    """

    enabled: bool
    start: str
    end: str
    timezone: str
    days: tuple[str, ...]
    do_not_disturb_until: datetime | None


class DigestChoice(Record, frozen=True, kw_only=True):
    """``off``, ``hourly`` or ``daily``; ``at`` is the time of day ("HH:MM") that ``daily`` goes by."""

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
    """Of ``email`` and ``sms``, those that the user has an address for."""
    row = conn.execute("SELECT email, phone FROM contacts WHERE user_id = ?", (user_id,)).fetchone()
    if row is None:
        return frozenset()
    return frozenset(channel for channel, address in zip(("email", "sms"), row, strict=True) if address is not None)


def save_contact(tx: Tx, user_id: str, changes: Mapping[str, str | None]) -> Contact:
    """Store ``changes`` (of ``email``, ``phone``, ``locale``; None removes) over what stood there."""
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
"""The table's own defaults, for a user without a row."""


def quiet_of(conn: sqlite3.Connection, user_id: str, default_zone: str) -> tuple[QuietHours | None, int | None]:
    """The quiet hours where they are enabled, and ``dnd_until`` in milliseconds (which may be over)."""
    row = conn.execute(_QUIET, (user_id,)).fetchone()
    if row is None:
        return None, None
    enabled, start, end, zone, days, dnd_until = row
    if not enabled:
        return None, dnd_until
    return QuietHours(start=start, end=end, zone=_usable(zone, default_zone), days=_days(days)), dnd_until


def quiet_setting(conn: sqlite3.Connection, user_id: str, default_zone: str, now_ms: int) -> QuietSetting:
    """The same as the user sees it, enabled or not; a do not disturb that is over is none."""
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
    """Store ``changes`` (of ``enabled``, ``start``, ``end``, ``timezone``, ``days``) over what stood there;
    ``timezone`` None is the workspace's."""
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
    """Do not disturb until then; None ends it."""
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
    """A folder may come from a machine that knew zones which this one does not."""
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
    """The digest that a notice of this type waits for: the user's choice for the type, else for every type, else what
    the type declares; None where it goes out by itself. ``zone`` is for users who have set none."""
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
    """Store a choice; ``frequency`` None takes it back, ``at`` None leaves the time as it was."""
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


def re_evaluate_held(tx: Tx, user_id: str, code: str) -> None:
    """Have what is held for this reason decided again within the second: the reason may have gone."""
    tx.conn.execute(
        "UPDATE deliveries SET release_at = ? WHERE status = 'held' AND code = ? AND EXISTS "
        "(SELECT 1 FROM notifications n WHERE n.seq = notification_seq AND n.user_id = ?)",
        (tx.now_ms, code, user_id),
    )
