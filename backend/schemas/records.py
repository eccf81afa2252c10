"""Result objects of the services and the API. Times are aware UTC datetimes, durations are seconds."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

Scope = Literal["track", "send", "read", "manage", "admin"]
SCOPES: tuple[Scope, ...] = ("track", "send", "read", "manage", "admin")

Channel = Literal["in_app", "email", "sms", "push"]
CHANNELS: tuple[Channel, ...] = ("in_app", "push", "email", "sms")

Platform = Literal["ios", "android", "web", "desktop"]
Priority = Literal["low", "normal", "high", "urgent"]
Inbox = Literal["unread", "read", "snoozed", "archived"]
NotificationStatus = Literal[
    "scheduled", "pending", "sent", "delivered", "read", "failed", "suppressed", "cancelled", "expired"
]
ListStatus = Literal[
    "unread", "read", "snoozed", "archived", "all",
    "scheduled", "pending", "sent", "delivered", "failed", "suppressed", "cancelled", "expired",
]  # fmt: skip
"""Filter of a user's notification list: an inbox state, a notification status, or all."""
DeliveryStatus = Literal["pending", "sending", "sent", "delivered", "held", "suppressed", "failed", "dead"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base class of result objects."""


class Tracked(Record, frozen=True, kw_only=True):
    """Result of tracking one activity. ``duplicate``: the ``activity_id`` was already stored. If not ``stored``,
    ``reason`` holds the cause (``no_consent``) and the ids are None."""

    activity_id: str | None
    session_id: str | None
    duplicate: bool = False
    stored: bool = True
    reason: str | None = None


class RejectedRow(Record, frozen=True, kw_only=True):
    """Refused row of a batch: its ``index`` and the errors as (field, message) pairs."""

    index: int
    errors: tuple[tuple[str, str], ...]


class BatchResult(Record, frozen=True, kw_only=True):
    """Result of a batch: number of rows stored and already known, and the refused rows."""

    accepted: int
    duplicates: int
    rejected: tuple[RejectedRow, ...]


class Activity(Record, frozen=True, kw_only=True):
    """Activity of a user."""

    id: str
    user_id: str
    activity_type: str
    session_id: str
    app: str
    timestamp: datetime
    received_at: datetime
    metadata: dict[str, Any]
    page_url: str | None
    referrer: str | None
    user_agent: str | None
    ip_address: str | None


class Session(Record, frozen=True, kw_only=True):
    """Session of a user. ``duration`` is in seconds up to ``end_time``, or up to ``last_seen`` while it is open.

    ``pages_visited`` counts distinct pages, ``activities`` counts activities; ``end_reason`` is ``ended`` or
    ``timeout`` (docs/analytics.md).
    """

    id: str
    user_id: str
    app: str
    start_time: datetime
    last_seen: datetime
    end_time: datetime | None
    end_reason: str | None
    duration: float
    pages_visited: int
    activities: int
    device_info: dict[str, Any]
    ip_address: str | None
    user_agent: str | None

    @property
    def session_id(self) -> str:
        return self.id


class SessionStarted(Record, frozen=True, kw_only=True):
    """Result of starting a session; ``created`` is False for an existing session, and without consent (None)."""

    session: Session | None
    created: bool

    @property
    def session_id(self) -> str | None:
        """Id of the session; None without one."""
        return None if self.session is None else self.session.id


class NameCount(Record, frozen=True, kw_only=True):
    """Page or feature, and the number of its uses."""

    name: str
    count: int


class UserAnalytics(Record, frozen=True, kw_only=True):
    """Metrics of one user.

    ``avg_session_duration`` is in seconds over ended sessions (None before the first), ``engagement_score`` 0 to 100
    with its parts in ``engagement_parts`` (docs/analytics.md).
    """

    user_id: str
    total_sessions: int
    total_activities: int
    last_activity: datetime | None
    avg_session_duration: float | None
    most_visited_pages: tuple[NameCount, ...]
    favorite_features: tuple[NameCount, ...]
    engagement_score: float | None
    engagement_parts: dict[str, float]


class Action(Record, frozen=True, kw_only=True):
    """Button of a notification."""

    label: str
    url: str


class Attempt(Record, frozen=True, kw_only=True):
    """Attempt of a delivery: start, duration, outcome, the provider's message, and the planned time of the next attempt
    (None: none follows)."""

    started_at: datetime
    duration_ms: int
    outcome: str
    code: str
    text: str
    next_try_at: datetime | None = None


class Delivery(Record, frozen=True, kw_only=True):
    """Delivery of a notification by one channel (to one device); ``code`` and ``reason`` explain ``status``."""

    id: str
    channel: str
    target: str | None
    status: DeliveryStatus
    code: str | None
    reason: str | None
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None
    attempts: tuple[Attempt, ...] = ()
    release_at: datetime | None = None
    tries: int = 0
    """Attempts started since the delivery was last queued."""
    retry_until: datetime | None = None
    """End of the retries; None where no attempt has failed or none follows."""


class Notification(Record, frozen=True, kw_only=True):
    """Notification for one user. ``inbox`` is its inbox state, None where it is not in the inbox. Lists are ordered by
    ``listed_at``: the time it last entered the inbox (new, scheduled, after a snooze, updated), else of storing."""

    id: str
    user_id: str
    app: str
    title: str
    message: str
    notification_type: str
    channels: tuple[str, ...]
    priority: Priority
    status: NotificationStatus
    inbox: Inbox | None
    data: dict[str, Any]
    actions: tuple[Action, ...]
    collapse_key: str | None
    created_at: datetime
    scheduled_at: datetime | None
    expires_at: datetime | None
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    archived_at: datetime | None
    snoozed_until: datetime | None = None
    count: int = 1
    listed_at: datetime

    @property
    def notification_id(self) -> str:
        return self.id


class NotificationDetail(Record, frozen=True, kw_only=True):
    """Notification with all deliveries and attempts."""

    notification: Notification
    deliveries: tuple[Delivery, ...]

    @property
    def notification_id(self) -> str:
        """Id of the notification."""
        return self.notification.id


class Decided(Record, frozen=True, kw_only=True):
    """Policy decision for one delivery; ``code`` and ``reason`` explain ``status``."""

    channel: str
    status: str
    code: str | None
    reason: str | None


class DryRunResult(Record, frozen=True, kw_only=True):
    """Result of a dry run of ``send``: rendered texts and the decision per channel."""

    user_id: str
    title: str
    message: str
    status: str
    deliveries: tuple[Decided, ...]


class Sent(Record, frozen=True, kw_only=True):
    """Result of ``send`` for one user: the stored notification and the decision per channel."""

    notification_id: str
    user_id: str
    status: str
    deliveries: tuple[Decided, ...]


class NotificationPage(Record, frozen=True, kw_only=True):
    """Page of notifications, newest first; ``next_cursor`` is None on the last; ``unread_count`` covers the inbox."""

    notifications: tuple[Notification, ...]
    unread_count: int
    next_cursor: str | None


class ActivityPage(Record, frozen=True, kw_only=True):
    activities: tuple[Activity, ...]
    next_cursor: str | None


class SessionPage(Record, frozen=True, kw_only=True):
    sessions: tuple[Session, ...]
    next_cursor: str | None


class Preference(Record, frozen=True, kw_only=True):
    """A user's choice; ``*`` stands for every type or channel."""

    user_id: str
    notification_type: str
    channel: str
    enabled: bool
    updated_at: datetime


class TypePreference(Record, frozen=True, kw_only=True):
    """Row of the preference matrix: channel → whether it may be used, and the text of the deciding rule."""

    name: str
    label: str
    description: str
    app: str
    critical: bool
    channels: dict[str, bool]
    reasons: dict[str, str]


class PreferenceMatrix(Record, frozen=True, kw_only=True):
    """A user's choices and the resulting preference matrix."""

    user_id: str
    preferences: tuple[Preference, ...]
    types: tuple[TypePreference, ...]


class Throttle(Record, frozen=True, kw_only=True):
    """Throttle: at most ``limit`` of a type to one user by one channel within ``minutes``."""

    limit: int
    minutes: int


class Stage(Record, frozen=True, kw_only=True):
    """Stage of a fail-over chain: used if the notification is unread after ``after_minutes``."""

    channel: str
    after_minutes: int


class NotificationType(Record, frozen=True, kw_only=True):
    """Notification type that an app declared; ``channels`` is the default of ``send``.

    ``critical`` is set by the owner; ``asks_critical`` is the app's request.
    """

    name: str
    label: str
    description: str
    channels: tuple[str, ...]
    critical: bool
    digest: str | None
    app: str
    created_at: datetime
    updated_at: datetime
    asks_critical: bool = False
    category: str | None = None
    digest_at: str | None = None
    throttle: Throttle | None = None
    failover: tuple[Stage, ...] = ()


class Template(Record, frozen=True, kw_only=True):
    """Template with named variables; ``locale`` is empty for the default text.

    ``data_schema_checked``: whether the data of each send is checked against ``data_schema``; false without a schema
    and on systems that have no package jsonschema-rs.
    """

    id: str
    name: str
    locale: str
    title_template: str
    message_template: str
    channels: tuple[str, ...]
    category: str | None
    data_schema: dict[str, Any] | None
    data_schema_checked: bool
    variables: tuple[str, ...]
    app: str
    created_at: datetime
    updated_at: datetime


class Rendered(Record, frozen=True, kw_only=True):
    """Rendered template."""

    title: str
    message: str


class Device(Record, frozen=True, kw_only=True):
    """Registered device; ``token`` is masked."""

    id: str
    user_id: str
    platform: str
    token: str
    device_info: dict[str, Any]
    is_active: bool
    app: str
    created_at: datetime
    last_used_at: datetime | None


class DeviceRegistered(Record, frozen=True, kw_only=True):
    device: Device
    created: bool


class ApiKey(Record, frozen=True, kw_only=True):
    """API key without its secret, which is shown only once, at creation."""

    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None


class TodayMetrics(Record, frozen=True, kw_only=True):
    """Dashboard metrics of ``day`` (ISO date) in ``zone`` (IANA name)."""

    day: str
    zone: str
    active_users: int
    sessions: int
    activities: int
    notifications: int
    delivered: int
    read: int
