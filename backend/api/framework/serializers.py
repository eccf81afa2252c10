"""Records and rows as JSON. Times are RFC 3339 in UTC with milliseconds and ``Z``."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from flashflow.backend.core.clock import rfc3339, rfc3339_of
from flashflow.backend.core.encoding import DAMAGED, decode_address, decode_id, decode_json, encode_json, from_object
from flashflow.backend.schemas.records import Delivery, Record, Sent
from flashflow.backend.store.activity.session_table import to_session
from flashflow.backend.store.notifications.notifications import (
    ListFilter,
    Spot,
    cursor_after,
    list_places,
    revisions_at,
    rows_at,
)

_EMPTY_OBJECT = msgspec.Raw(b"{}")
_EMPTY_LIST = msgspec.Raw(b"[]")
_decode_list = msgspec.json.Decoder(list[Any]).decode


def to_json_types(record: Record) -> dict[str, Any]:
    """Return a record's fields by name, with times as text. Nested records are left to the encoder."""
    fields = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        fields[name] = rfc3339_of(value) if isinstance(value, datetime) else value
    return fields


def delivery_json(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery with its attempts."""
    return to_json_types(delivery) | {"attempts": [to_json_types(attempt) for attempt in delivery.attempts]}


def sent_json(sent: Sent) -> dict[str, Any]:
    """Return one user's part of a ``send`` response."""
    return {
        "notification_id": sent.notification_id,
        "status": sent.status,
        "deliveries": [
            {"channel": d.channel, "status": d.status, "reason": d.reason, "code": d.code} for d in sent.deliveries
        ],
    }


def _rfc3339_ms(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def _raw(text: str | None, empty: msgspec.Raw) -> msgspec.Raw:
    if text and DAMAGED in text:  # replaced bytes: may no longer be valid JSON
        return msgspec.Raw(
            encode_json(from_object(text) if empty is _EMPTY_OBJECT else decode_json(_decode_list, text, []))
        )
    return msgspec.Raw(text.encode()) if text else empty


def notification_row_json(row: tuple[Any, ...]) -> dict[str, Any]:
    """Return a row of the notifications' COLUMNS as ``to_json_types`` writes its record; stored JSON is copied.

    Takes a third of the time of the conversion through records, for the API's busiest read. A test keeps both equal.
    """
    (
        _, id_, user_id, app, title, message, kind, channels, priority, status, inbox, data, actions, collapse,
        created, scheduled, expires, sent, delivered, read, archived, snoozed, count, listed,
    ) = row  # fmt: skip
    return {
        "id": decode_id(id_),
        "user_id": user_id,
        "app": app,
        "title": title,
        "message": message,
        "notification_type": kind,
        "channels": _raw(channels, _EMPTY_LIST),
        "priority": priority,
        "status": status,
        "inbox": inbox,
        "data": _raw(data, _EMPTY_OBJECT),
        "actions": _raw(actions, _EMPTY_LIST),
        "collapse_key": collapse,
        "created_at": rfc3339(created),
        "scheduled_at": _rfc3339_ms(scheduled),
        "expires_at": _rfc3339_ms(expires),
        "sent_at": _rfc3339_ms(sent),
        "delivered_at": _rfc3339_ms(delivered),
        "read_at": _rfc3339_ms(read),
        "archived_at": _rfc3339_ms(archived),
        "snoozed_until": _rfc3339_ms(snoozed),
        "count": count,
        "listed_at": rfc3339(listed),
    }


def activity_row_json(row: tuple[Any, ...]) -> dict[str, Any]:
    """Return a row of the activities' COLUMNS as ``to_json_types`` writes its record; stored JSON is copied."""
    (_, id_, user_id, kind, session_id, app, timestamp, received, metadata, page, referrer, agent, ip) = row
    return {
        "id": decode_id(id_),
        "user_id": user_id,
        "activity_type": kind,
        "session_id": decode_id(session_id),
        "app": app,
        "timestamp": rfc3339(timestamp),
        "received_at": rfc3339(received),
        "metadata": _raw(metadata, _EMPTY_OBJECT),
        "page_url": page,
        "referrer": referrer,
        "user_agent": agent,
        "ip_address": decode_address(ip),
    }


def session_row_json(row: tuple[Any, ...]) -> dict[str, Any]:
    """Return a row of the sessions' READ_COLUMNS as ``to_json_types`` writes its record; stored JSON is copied."""
    info = 10
    return to_json_types(to_session((*row[:info], None, *row[info + 1 :]))) | {
        "device_info": _raw(row[info], _EMPTY_OBJECT)
    }


class NotificationPages:
    """Encode pages of notifications as JSON; cache each notification by its revision.

    A change gives its notification a new, unique revision, so entries are never stale. Thread-safe: each dictionary
    operation is atomic, and an entry dropped by another thread is encoded again.
    """

    def __init__(self, most: int = 2048, largest: int = 8192) -> None:
        self._cache: dict[tuple[int, int], bytes] = {}
        self._most = most
        self._largest = largest

    def page(self, conn: sqlite3.Connection, filters: ListFilter, most_bytes: int) -> tuple[bytes, bool]:
        """Return the response body for ``filters``, and whether it was cut short.

        The page takes no further notification at ``most_bytes`` in total; its cursor continues there.
        """
        spots, unread, more = list_places(conn, filters)
        parts = self._encoded(conn, spots, most_bytes)
        cut = len(parts) < len(spots)
        body = b'{"success":true,"notifications":[%s],"unread_count":%d,"next_cursor":%s}' % (
            b",".join(parts),
            unread,
            msgspec.json.encode(cursor_after(spots[: len(parts)], more=more or cut)),
        )
        return body, cut

    def _encoded(self, conn: sqlite3.Connection, spots: Sequence[Spot], most_bytes: int) -> list[bytes]:
        cache = self._cache
        if len(cache) > self._most:
            cache.clear()
        parts: list[bytes] = []
        size = 0
        for spot, revision in zip(spots, revisions_at(conn, [spot.seq for spot in spots]), strict=True):
            if size >= most_bytes:
                break
            part = cache.get((spot.seq, revision))
            if part is None:
                (row,) = rows_at(conn, [spot.seq])
                part = msgspec.json.encode(notification_row_json(row))
                if len(part) <= self._largest:
                    cache[spot.seq, revision] = part
            parts.append(part)
            size += len(part)
        return parts
