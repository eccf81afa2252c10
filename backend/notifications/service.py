"""Notifications, the inbox, preferences, templates and devices behind one object.

    with NotificationService() as service:                     # notifications.db in the working folder
        sent = service.send_notification("ada", "Build finished", "All tests passed.")
        service.mark_notification_as_read(sent.notification_id)

Every change returns after COMMIT; every method may be called from any thread.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from flashflow.backend.activity.ingest import LOCAL_APP
from flashflow.backend.core.clock import Clock, IdMaker, SystemClock
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.core.events import Bus
from flashflow.backend.core.timezones import workspace_zone
from flashflow.backend.domain.channel_names import ChannelNames
from flashflow.backend.notifications import inbox
from flashflow.backend.notifications.delivery_settings import UserDeliverySettings
from flashflow.backend.notifications.devices import Devices
from flashflow.backend.notifications.inbox import NotificationKey
from flashflow.backend.notifications.orders import Order, check_order
from flashflow.backend.notifications.policy_inputs import PolicyInputLoader
from flashflow.backend.notifications.preferences import Preferences
from flashflow.backend.notifications.release_due import DigestRelease, DueRelease
from flashflow.backend.notifications.retry import Retry
from flashflow.backend.notifications.schedules import Schedules
from flashflow.backend.notifications.send import Sender
from flashflow.backend.notifications.templates import Templates
from flashflow.backend.schemas.records import (
    Device,
    DeviceRegistered,
    DryRunResult,
    ListStatus,
    Notification,
    NotificationDetail,
    NotificationPage,
    NotificationType,
    Preference,
    PreferenceMatrix,
    Sent,
    Template,
)
from flashflow.backend.schemas.references import NotificationRef, notification_id_of
from flashflow.backend.schemas.requests import DeviceIn, PreferenceIn, SendIn, TemplateIn, TypeIn, build
from flashflow.backend.schemas.values import timestamp_ms
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.open import open_store
from flashflow.backend.store.engine.writer import Write
from flashflow.backend.store.files import NOTIFICATION_SCHEMA
from flashflow.backend.store.notifications import notifications as table
from flashflow.backend.store.notifications import search
from flashflow.backend.store.notifications.deliveries import deliveries_of

log = logging.getLogger(__name__)


class NotificationService:
    """The notifications of one ``notifications.db``.

    ``db_path`` may be relative to the working folder; with ``keep_record`` a file beside it records the last known
    state. ``messages`` receives sentences for the owner about a damaged file; without it they are logged. Raises
    StorageError when the file cannot be used. The service stores and decides deliveries; the outbox of ``Backend``
    sends those that leave the inbox.
    """

    def __init__(
        self,
        db_path: str | Path = "notifications.db",
        *,
        bus: Bus | None = None,
        clock: Clock | None = None,
        messages: list[str] | None = None,
        keep_record: bool = False,
    ) -> None:
        self.bus = bus or Bus()
        self.clock = clock or SystemClock()
        self.new_id = IdMaker(self.clock)
        report = log.warning if messages is None else messages.append
        self.store: Store = open_store(
            Path(db_path).absolute(), NOTIFICATION_SCHEMA, self.clock, self.bus.publish, report, search.functions,
            keep_record=keep_record,
        )  # fmt: skip
        search.prepare_store(self.store)
        self.zone = workspace_zone().key
        self.channels = ChannelNames()
        self.policy_inputs = PolicyInputLoader(lambda: self.zone)
        self.sender = Sender(self.new_id, self.policy_inputs)
        self.due_release = DueRelease(self.new_id, self.policy_inputs)
        self.retry_handler = Retry(self.new_id, self.policy_inputs)
        self.templates = Templates(self.store, self.new_id, self.channels)
        self.devices = Devices(self.store, self.new_id)
        self.preferences = Preferences(self.store, self.channels)
        self.delivery_settings = UserDeliverySettings(self.store, lambda: self.zone)
        self.schedules = Schedules(
            self.store,
            self.new_id,
            order=self.order,
            dry_run=self.sender.dry_run,
            send=self.sender.send,
            zone=lambda: self.zone,
        )

    # --- sending --------------------------------------------------------------------------------------------------

    def send_notification(
        self,
        user_id: str,
        title: str | None = None,
        message: str | None = None,
        notification_type: str = "general",
        channel: str | None = None,
        data: dict[str, Any] | None = None,
        priority: str = "normal",
        channels: Sequence[str] | None = None,
        template: str | None = None,
        scheduled_at: datetime | None = None,
        expires_at: datetime | None = None,
        collapse_key: str | None = None,
        actions: Sequence[dict[str, str]] | None = None,
        app: str | None = None,
    ) -> Sent:
        """Store a notification and decide its deliveries; return the status and reason for each channel.

        Give ``title`` and ``message``, or a ``template`` to render from ``data``. Raises ValidationError.
        """
        order = build(
            SendIn,
            user_id=user_id,
            title=title,
            message=message,
            notification_type=notification_type,
            channel=channel,
            channels=None if channels is None else list(channels),
            data=data,
            priority=priority,
            template=template,
            scheduled_at=scheduled_at,
            expires_at=expires_at,
            collapse_key=collapse_key,
            actions=None if actions is None else list(actions),
            app=app,
        )
        return self.store.run(self.send_write(order, LOCAL_APP))[0]

    def send_write(self, request: SendIn, app: str, owner: str | None = None) -> Write[Order, tuple[Sent, ...]]:
        """Build the write of ``send_notification``: one Sent for each user. ``owner``: the only app whose templates may
        be used (None: any)."""
        order = self.order(request, app, owner)
        return Write(self.sender.send, order, len(order.users))

    def order(self, request: SendIn, app: str, owner: str | None) -> Order:
        """Check a request into an order. Raises ValidationError."""
        return check_order(request, app, owner, self.channels, self.clock.now_ms())

    def release_due(self) -> int:
        """Process everything due: scheduled sends, held deliveries, snoozes, expiries. Return the rows changed."""
        moved = 0
        for step in self.store.read(lambda conn: self.due_release.due(conn, self.clock.now_ms())):
            while count := self.store.write(step):
                moved += count
        return moved

    def dry_run(self, request: SendIn, app: str = LOCAL_APP, owner: str | None = None) -> tuple[DryRunResult, ...]:
        """Compute the result of ``send`` for each user without storing it. Raises ValidationError."""
        order = self.order(request, app, owner)
        return self.store.read(lambda conn: self.sender.dry_run(conn, order, self.clock.now_ms()))

    def send_digest_now(self, user_id: str, notification_type: str | None = None) -> DigestRelease:
        """Release the deliveries held by the user's digests, of one type or of all."""
        return self.store.run(self.send_digest_write(user_id, notification_type))

    def send_digest_write(self, user_id: str, notification_type: str | None) -> Write[Any, DigestRelease]:
        """Build the write of ``send_digest_now``."""
        return Write(self.due_release.send_now, (user_id, notification_type))

    def retire_stale_devices(self) -> int:
        """Deactivate push tokens that were not registered again for 270 days; return how many."""
        return self.devices.retire_stale()

    # --- the inbox ------------------------------------------------------------------------------------------------

    def get_user_notifications(
        self,
        user_id: str,
        status: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        *,
        notification_type: str | None = None,
        channel: str | None = None,
        priority: str | None = None,
        q: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        app: str | None = None,
    ) -> NotificationPage:
        """List a user's notifications by ``listed_at``, newest first; ``since`` and ``until`` compare ``listed_at``.

        ``status``: a place in the inbox (``unread``, ``read``, ``snoozed``, ``archived``), another notification status
        (``scheduled``, ``failed``, ``suppressed``, ...) or ``all``; None lists the inbox, unread and read. Raises
        ValidationError for any other.
        """
        if status is not None and status not in get_args(ListStatus):
            raise ValidationError.of("status", f"must be one of {', '.join(get_args(ListStatus))}")
        query = table.ListFilter(
            user_id=user_id,
            app=app,
            status=status,
            notification_type=notification_type,
            channel=channel,
            priority=priority,
            q=q,
            since=None if since is None else timestamp_ms("since", since),
            until=None if until is None else timestamp_ms("until", until),
            limit=limit,
            cursor=cursor,
        )
        return self.store.read(lambda conn: table.list_notifications(conn, query))

    def get_notification(self, notification_id: NotificationRef, app: str | None = None) -> NotificationDetail:
        """Get a notification with every delivery and attempt. Raises NotFound."""
        key = notification_id_of(notification_id), app

        def query(conn: sqlite3.Connection) -> NotificationDetail:
            seq, notification = inbox.find(conn, key)
            return NotificationDetail(notification=notification, deliveries=deliveries_of(conn, seq))

        return self.store.read(query)

    def unread_count(self, user_id: str) -> int:
        """Count the unread notifications of the user's inbox."""
        return self.store.read(lambda conn: table.unread_count(conn, user_id, None))

    def mark_notification_as_read(self, notification_id: NotificationRef) -> Notification:
        """Mark as read; an earlier ``read_at`` stays. Raises NotFound and Conflict."""
        return self._change("read", notification_id)

    def mark_notification_as_unread(self, notification_id: NotificationRef) -> Notification:
        """Mark as unread. Raises NotFound and Conflict."""
        return self._change("unread", notification_id)

    def mark_all_as_read(self, user_id: str) -> tuple[str, ...]:
        """Mark the whole inbox as read; return the ids that were unread."""
        return self.store.run(self.read_all_write(user_id, None))

    def read_all_write(self, user_id: str, app: str | None) -> Write[NotificationKey, tuple[str, ...]]:
        """Build the write of ``mark_all_as_read``, for one app's notifications or all."""
        return Write(inbox.read_all, (user_id, app))

    def mark_many_as_unread(self, notification_ids: Sequence[NotificationRef]) -> int:
        """Undo ``mark_all_as_read``; return how many became unread."""
        return self.store.run(Write(inbox.unread_many, tuple(map(notification_id_of, notification_ids))))

    def archive_notification(self, notification_id: NotificationRef) -> Notification:
        """Move out of the inbox; the notification stays stored. Raises NotFound and Conflict."""
        return self._change("archive", notification_id)

    def unarchive_notification(self, notification_id: NotificationRef) -> Notification:
        """Move back into the inbox. Raises NotFound and Conflict."""
        return self._change("unarchive", notification_id)

    def cancel_notification(self, notification_id: NotificationRef) -> Notification:
        """Cancel a scheduled or pending notification. Raises NotFound and Conflict."""
        return self._change("cancel", notification_id)

    def retry_notification(self, notification_id: NotificationRef) -> Notification:
        """Retry failed and dead deliveries now. Raises NotFound, and Conflict where none can be retried."""
        return self._change("retry", notification_id)

    def snooze_notification(self, notification_id: NotificationRef, until: datetime) -> Notification:
        """Hide from the unread until ``until``. Raises NotFound, Conflict and ValidationError."""
        return self.store.run(self.snooze_write((notification_id_of(notification_id), None), until))

    def snooze_write(self, key: NotificationKey, until: datetime) -> Write[tuple[NotificationKey, int], Notification]:
        """Build the write of ``snooze_notification``."""
        return Write(inbox.snooze, (key, self._future_ms("until", until)))

    def reschedule_notification(self, notification_id: NotificationRef, scheduled_at: datetime) -> Notification:
        """Move a scheduled notification to another time. Raises NotFound, Conflict and ValidationError."""
        return self.store.run(self.reschedule_write((notification_id_of(notification_id), None), scheduled_at))

    def reschedule_write(
        self, key: NotificationKey, scheduled_at: datetime
    ) -> Write[tuple[NotificationKey, int], Notification]:
        """Build the write of ``reschedule_notification``."""
        return Write(inbox.reschedule, (key, self._future_ms("scheduled_at", scheduled_at)))

    def _future_ms(self, field: str, when: datetime) -> int:
        ms = timestamp_ms(field, when)
        if ms <= self.clock.now_ms():
            raise ValidationError.of(field, "must lie in the future")
        return ms

    def inbox_write(self, verb: str, key: NotificationKey) -> Write[NotificationKey, Notification]:
        """Build the write of read, unread, archive, unarchive, cancel or retry."""
        return Write(self.retry_handler.retry if verb == "retry" else inbox.HANDLERS[verb], key)

    def _change(self, verb: str, notification_id: NotificationRef) -> Notification:
        return self.store.run(self.inbox_write(verb, (notification_id_of(notification_id), None)))

    # --- preferences, types, templates, devices -------------------------------------------------------------------

    def get_preferences(self, user_id: str) -> PreferenceMatrix:
        """The user's preferences and the effective matrix of types and channels."""
        return self.preferences.matrix(user_id)

    def update_notification_preference(
        self, user_id: str, notification_type: str, channel: str, enabled: bool
    ) -> Preference:
        """Allow or forbid this type (``*`` = all) on this channel (``*`` = all)."""
        choice = build(
            PreferenceIn, user_id=user_id, notification_type=notification_type, channel=channel, enabled=enabled
        )
        return self.store.run(self.preferences.choose_write([choice]))[0]

    def declare_type(self, name: str, app: str = LOCAL_APP, **fields: Any) -> NotificationType:
        """Declare a notification type: label, description, channels, critical, digest. Raises Conflict for another
        app's type."""
        return self.store.run(self.preferences.declare_write(build(TypeIn, name=name, **fields), app, owner=None))[0]

    def create_notification_template(
        self, name: str, title_template: str, message_template: str, app: str = LOCAL_APP, **fields: Any
    ) -> Template:
        """Create a template; keywords ``channels``, ``category``, ``data_schema``, ``locale``. Raises Conflict when the
        name and locale are taken."""
        text = build(TemplateIn, name=name, title_template=title_template, message_template=message_template, **fields)
        return self.store.run(self.templates.create_write(text, app))

    def register_device_token(
        self,
        user_id: str,
        token: str,
        platform: str,
        device_info: dict[str, Any] | None = None,
        app: str = LOCAL_APP,
    ) -> DeviceRegistered:
        """Register a device for push; the same token again keeps its id and moves to this user."""
        device = build(DeviceIn, user_id=user_id, token=token, platform=platform, device_info=device_info)
        return self.store.run(self.devices.register_write(device, app))

    def list_devices(self, user_id: str) -> tuple[Device, ...]:
        """A user's devices, tokens masked."""
        return self.devices.of(user_id)

    # --- lifecycle ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Finish queued writes and close the file. Safe to call twice."""
        self.store.close()

    def __enter__(self) -> NotificationService:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
