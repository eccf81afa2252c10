"""Import exported notifications as history: an import never sends anything."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from flashflow.backend.activity.batch import MOST_ROWS, Rows, prepare_rows, result_of, without_users
from flashflow.backend.activity.ingest import LOCAL_APP, past_ms
from flashflow.backend.core.clock import Clock
from flashflow.backend.core.encoding import to_json
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.schemas.records import BatchResult, Inbox, NotificationStatus, Priority
from flashflow.backend.schemas.requests import (
    SLUG,
    ActionIn,
    AppName,
    Channel,
    Input,
    Message,
    Name,
    Timestamp,
    Title,
    TypeName,
    UserId,
)
from flashflow.backend.schemas.validation import decode_row
from flashflow.backend.schemas.values import metadata_json, timestamp_ms
from flashflow.backend.store.engine.writer import Tx, Write
from flashflow.backend.store.notifications import notification_import
from flashflow.backend.store.notifications.notification_import import OldNotification
from flashflow.backend.store.privacy import tombstones

UNSENT = frozenset({"scheduled", "pending"})
MOST_COUNTED = 1_000_000_000


class ImportedNotificationIn(Input, frozen=True, kw_only=True):
    """An exported notification."""

    id: Annotated[str, Meta(min_length=1, max_length=200, pattern=SLUG)]
    user_id: UserId
    title: Title
    message: Message
    status: NotificationStatus
    created_at: Timestamp
    app: AppName | None = None
    notification_type: TypeName = "general"
    channels: Annotated[list[Channel], Meta(min_length=1, max_length=16)] | None = None
    priority: Priority = "normal"
    inbox: Inbox | None = None
    data: dict[str, Any] | None = None
    actions: Annotated[list[ActionIn], Meta(max_length=3)] | None = None
    collapse_key: Name | None = None
    scheduled_at: Timestamp | None = None
    expires_at: Timestamp | None = None
    sent_at: Timestamp | None = None
    delivered_at: Timestamp | None = None
    read_at: Timestamp | None = None
    archived_at: Timestamp | None = None
    snoozed_until: Timestamp | None = None
    count: Annotated[int, Meta(ge=1, le=MOST_COUNTED)] = 1
    listed_at: Timestamp | None = None


class ImportNotificationsIn(Input, frozen=True, kw_only=True):
    """Up to 1,000 rows of an export; each is checked on its own."""

    notifications: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MOST_ROWS)]


NotificationRows = Rows[OldNotification]
decode_notification = partial(decode_row, ImportedNotificationIn)


def import_notifications_write(
    clock: Clock, rows: Sequence[msgspec.Raw | bytes], app: str = LOCAL_APP
) -> Write[NotificationRows, BatchResult]:
    """Build the write that stores exported notifications (JSON). ``app`` is the default app."""
    now_ms = clock.now_ms()
    checked = prepare_rows(rows, lambda _, raw: _prepare(decode_notification(raw), now_ms, app))
    return Write(_store, checked, len(checked.good))


def _store(tx: Tx, items: Sequence[NotificationRows]) -> list[BatchResult]:
    erased = tombstones.erased_among(tx.conn, {row.user_id for _, good, _ in items for row in good})
    refused = {user: tombstones.refusal(user) for user in erased}
    items = [without_users(item, refused) for item in items]
    return [result_of(item, notification_import.take_in(tx, item.good)) for item in items]


def _prepare(row: ImportedNotificationIn, now_ms: int, app: str) -> OldNotification:
    faults = ErrorCollector()
    if row.status in UNSENT:
        faults.add("status", f"is “{row.status}”: it is still to be sent, and an import sends nothing")
    if (row.inbox == "snoozed") != (row.snoozed_until is not None):
        faults.add("snoozed_until", "and a snoozed place in the inbox belong together")
    times: dict[str, int | None] = dict.fromkeys(_TIMES)
    for name in _TIMES:
        with faults:
            if (time := getattr(row, name)) is not None:
                times[name] = timestamp_ms(name, time) if name in _PLANNED else past_ms(name, time, now_ms)
    data = None
    with faults:
        data = metadata_json(row.data, "data")
    faults.done()
    created = times.pop("created_at")
    assert created is not None
    listed = times.pop("listed_at")
    if listed is None:  # an export of an older version: a scheduled notification reached the inbox at that time
        listed = max(created, min(times["scheduled_at"] or 0, now_ms))
    return OldNotification(
        id=row.id,
        user_id=row.user_id,
        app=row.app or app,
        title=row.title,
        message=row.message,
        notification_type=row.notification_type,
        channels=to_json(row.channels or ["in_app"]),
        priority=row.priority,
        status=row.status,
        inbox=row.inbox,
        data=data,
        actions=to_json(row.actions) if row.actions else None,
        collapse_key=row.collapse_key,
        created_at=created,
        count=row.count,
        listed_at=listed,
        **times,
    )


_PLANNED = {"scheduled_at", "expires_at", "snoozed_until"}
_TIMES = (
    "created_at", "scheduled_at", "expires_at", "sent_at", "delivered_at", "read_at", "archived_at", "snoozed_until",
    "listed_at",
)  # fmt: skip
