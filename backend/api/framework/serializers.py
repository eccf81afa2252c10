"""Records and rows as JSON. Times are RFC 3339 in UTC with milliseconds and ``Z``."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, get_args, get_type_hints

import msgspec

from flashflow.backend.core.clock import rfc3339, rfc3339_of
from flashflow.backend.core.encoding import DAMAGED, decode_address, decode_id, decode_json, encode_json, from_object
from flashflow.backend.schemas.records import Record
from flashflow.backend.schemas.requests import Input
from flashflow.backend.store.activity.session_cache import SessionRow
from flashflow.backend.store.activity.session_table import to_session
from flashflow.backend.store.activity.user_index import ActivityRow
from flashflow.backend.store.notifications.notifications import (
    ListFilter,
    NotificationRow,
    Spot,
    cursor_after,
    list_places,
    rows_at,
)

_EMPTY_OBJECT = msgspec.Raw(b"{}")
_EMPTY_LIST = msgspec.Raw(b"[]")
_decode_list = msgspec.json.Decoder(list[Any]).decode


def to_json_types(record: Record) -> dict[str, Any]:
    """Return a record's fields by name, with times as text, in nested records too. The rest is left to the encoder."""
    fields = msgspec.structs.asdict(record)
    for name in _fields_with_times(type(record)):
        fields[name] = with_times_as_text(fields[name])
    return fields


def with_times_as_text(value: Any) -> Any:
    """Return a record, a list of records or a time for the encoder, which would write microseconds."""
    if isinstance(value, datetime):
        return rfc3339_of(value)
    if isinstance(value, Record):
        return to_json_types(value) if _fields_with_times(type(value)) else value
    if isinstance(value, list | tuple) and value and isinstance(value[0], Record):
        return [with_times_as_text(one) for one in value]
    return value


@cache
def _fields_with_times(kind: type[Record]) -> tuple[str, ...]:
    return tuple(name for name, hint in get_type_hints(kind).items() if _has_times(hint))


def _has_times(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, Record):
        return bool(_fields_with_times(hint))
    return hint is datetime or any(map(_has_times, get_args(hint)))


def complete(part: Input | None) -> dict[str, Any] | None:
    """Return every field of a request object, so that a client can send it back: the encoder omits defaults."""
    if part is None:
        return None
    return {name: with_times_as_text(value) for name, value in msgspec.structs.asdict(part).items()}


def _rfc3339_ms(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def _raw(text: str | None, empty: msgspec.Raw) -> msgspec.Raw:
    if text and DAMAGED in text:  # replaced bytes: may no longer be valid JSON
        return msgspec.Raw(
            encode_json(from_object(text) if empty is _EMPTY_OBJECT else decode_json(_decode_list, text, []))
        )
    return msgspec.Raw(text.encode()) if text else empty


def notification_row_json(row: NotificationRow) -> dict[str, Any]:
    """Return a row of a notification as ``to_json_types`` writes its record; stored JSON is copied.

    Takes a third of the time of the conversion through records, for the API's busiest read. A test keeps both equal.
    """
    return {
        "id": decode_id(row.id),
        "user_id": row.user_id,
        "app": row.app,
        "title": row.title,
        "message": row.message,
        "notification_type": row.notification_type,
        "channels": _raw(row.channels, _EMPTY_LIST),
        "priority": row.priority,
        "status": row.status,
        "inbox": row.inbox,
        "data": _raw(row.data, _EMPTY_OBJECT),
        "actions": _raw(row.actions, _EMPTY_LIST),
        "collapse_key": row.collapse_key,
        "created_at": rfc3339(row.created_at),
        "scheduled_at": _rfc3339_ms(row.scheduled_at),
        "expires_at": _rfc3339_ms(row.expires_at),
        "sent_at": _rfc3339_ms(row.sent_at),
        "delivered_at": _rfc3339_ms(row.delivered_at),
        "read_at": _rfc3339_ms(row.read_at),
        "archived_at": _rfc3339_ms(row.archived_at),
        "snoozed_until": _rfc3339_ms(row.snoozed_until),
        "count": row.count,
        "listed_at": rfc3339(row.listed_at),
    }


def activity_row_json(row: ActivityRow) -> dict[str, Any]:
    """Return an activity's row as ``to_json_types`` writes its record; stored JSON is copied."""
    return {
        "id": decode_id(row.id),
        "user_id": row.user_id,
        "activity_type": row.activity_type,
        "session_id": decode_id(row.session_id),
        "app": row.app,
        "timestamp": rfc3339(row.timestamp),
        "received_at": rfc3339(row.received_at),
        "metadata": _raw(row.metadata, _EMPTY_OBJECT),
        "page_url": row.page_url,
        "referrer": row.referrer,
        "user_agent": row.user_agent,
        "ip_address": decode_address(row.ip_address),
    }


def session_row_json(row: SessionRow) -> dict[str, Any]:
    """Return a session's row as ``to_json_types`` writes its record; stored JSON is copied."""
    return to_json_types(to_session(row._replace(device_info=None))) | {
        "device_info": _raw(row.device_info, _EMPTY_OBJECT)
    }


class NotificationPages:
    """Encode pages of notifications as JSON; cache each notification by its revision.

    A change gives its notification a new, unique revision, so entries are never stale. Thread-safe: each dictionary
    operation is atomic, and an entry dropped by another thread is encoded again.
    """

    def __init__(self, most: int = 2048, largest: int = 8192) -> None:
        self._cache: dict[Spot, bytes] = {}
        self._most = most
        self._largest = largest

    def page(self, conn: sqlite3.Connection, filters: ListFilter, most_bytes: int) -> tuple[bytes, bool]:
        """Return the response body for ``filters``, and whether it was cut short.

        The page takes no further notification at ``most_bytes`` in total; its cursor continues there.
        """
        spots, unread, more = list_places(conn, filters)
        cached = [part for spot in spots if (part := self._cache.get(spot)) is not None]
        is_whole = len(cached) == len(spots) and sum(map(len, cached)) <= most_bytes
        parts = cached if is_whole else self._encoded(conn, spots, most_bytes)
        cut = len(parts) < len(spots)
        body = b'{"success":true,"notifications":[%s],"unread_count":%d,"next_cursor":%s}' % (
            b",".join(parts),
            unread,
            msgspec.json.encode(cursor_after(spots[: len(parts)], more=more or cut)),
        )
        return body, cut

    def _encoded(self, conn: sqlite3.Connection, spots: Sequence[Spot], most_bytes: int) -> list[bytes]:
        """Return the notifications of ``spots`` up to ``most_bytes``, encoding those that are not cached."""
        cache = self._cache
        if len(cache) > self._most:
            cache.clear()
        parts: list[bytes] = []
        size = 0
        for spot in spots:
            if size >= most_bytes:
                break
            part = cache.get(spot)
            if part is None:
                (row,) = rows_at(conn, [spot.seq])
                part = msgspec.json.encode(notification_row_json(row))
                if len(part) <= self._largest:
                    cache[spot] = part
            parts.append(part)
            size += len(part)
        return parts
