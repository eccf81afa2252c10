"""What FlashFlow hands out: frozen, typed objects. Times are aware UTC datetimes, durations are seconds."""

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
"""Filter of a user's notification list: a place in the inbox, a notification status, or all."""
DeliveryStatus = Literal["pending", "sending", "sent", "delivered", "held", "suppressed", "failed", "dead"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what is read from the store."""


class Tracked(Record, frozen=True, kw_only=True):
    """The answer to one activity: ``duplicate`` when this ``activity_id`` had been stored before. Where it was not
    ``stored``, ``reason`` says why (``no_consent``), and there are no ids."""

    activity_id: str | None
    session_id: str | None
    duplicate: bool = False
    stored: bool = True
    reason: str | None = None


class RejectedRow(Record, frozen=True, kw_only=True):
    """A row of a batch that was not stored: its ``index`` in the batch and why, as (field, message) pairs."""

    index: int
    errors: tuple[tuple[str, str], ...]


class BatchResult(Record, frozen=True, kw_only=True):
    """What became of a batch: counts of rows stored and already known, and the rows refused."""

    accepted: int
    duplicates: int
    rejected: tuple[RejectedRow, ...]


class Activity(Record, frozen=True, kw_only=True):
    """One thing a user did."""

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
    """A visit. ``duration`` is in seconds up to ``end_time``, or up to ``last_seen`` while it is open.

    ``pages_visited`` counts distinct pages, ``activities`` counts activities; ``end_reason`` is ``ended`` or
    ``timeout`` (DEFINITIONS.md, Session).
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
    """``created`` is false when the session was there already, or is None for want of consent."""

    session: Session | None
    created: bool

    @property
    def session_id(self) -> str | None:
        """The session's id; None where there is no session."""
        return None if self.session is None else self.session.id


class NameCount(Record, frozen=True, kw_only=True):
    """A page or a feature and how often it was used."""

    name: str
    count: int


class UserAnalytics(Record, frozen=True, kw_only=True):
    """The figures of one user.

    ``avg_session_duration`` is in seconds over ended sessions (None before the first), ``engagement_score`` 0 to 100
    with its parts in ``engagement_parts`` (DEFINITIONS.md, Engagement score).
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
    """A button of a notification."""

    label: str
    url: str


class Attempt(Record, frozen=True, kw_only=True):
    """One try of one delivery: when, for how long, what came of it, the provider's own words, and when the next try was
    to follow (None: there was to be none)."""

    started_at: datetime
    duration_ms: int
    outcome: str
    code: str
    text: str
    next_try_at: datetime | None = None


class Delivery(Record, frozen=True, kw_only=True):
    """One channel (and one device of it) of a notification; ``code`` and ``reason`` say why it is where it is."""

    id: str
    channel: str
    target: str | None
    status: str
    code: str | None
    reason: str | None
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None
    attempts: tuple[Attempt, ...] = ()
    release_at: datetime | None = None
    tries: int = 0
    """How many tries were begun since it was last queued afresh."""
    retry_until: datetime | None = None
    """Until when it is tried again; None where no try has failed yet or none follows."""


class Notification(Record, frozen=True, kw_only=True):
    """A notification for one user. ``inbox`` is its place in the in-app inbox, None where it has none; ``listed_at``
    orders lists: when it last reached the inbox (new, at its scheduled time, after a snooze, updated), else when it was
    stored."""

    id: str
    user_id: str
    app: str
    title: str
    message: str
    notification_type: str
    channels: tuple[str, ...]
    priority: str
    status: str
    inbox: str | None
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
    """A notification with every delivery and every attempt."""

    notification: Notification
    deliveries: tuple[Delivery, ...]

    @property
    def notification_id(self) -> str:
        """The notification's id."""
        return self.notification.id


class Decided(Record, frozen=True, kw_only=True):
    """How one delivery stood when it was stored; ``code`` and ``reason`` say why."""

    channel: str
    status: str
    code: str | None
    reason: str | None


class DryRunResult(Record, frozen=True, kw_only=True):
    """What a ``send`` would do now: the texts as they would be, and how each channel would stand."""

    user_id: str
    title: str
    message: str
    status: str
    deliveries: tuple[Decided, ...]


class Sent(Record, frozen=True, kw_only=True):
    """What became of one ``send``: the stored notification and how each channel stands."""

    notification_id: str
    user_id: str
    status: str
    deliveries: tuple[Decided, ...]


class NotificationPage(Record, frozen=True, kw_only=True):
    """Newest first; ``next_cursor`` is None on the last page; ``unread_count`` is over the whole inbox."""

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
    """A choice a user made; ``*`` stands for every type or every channel."""

    user_id: str
    notification_type: str
    channel: str
    enabled: bool
    updated_at: datetime


class TypePreference(Record, frozen=True, kw_only=True):
    """One row of the matrix as it takes effect: channel → whether it may be used, and which rule says so."""

    name: str
    label: str
    description: str
    app: str
    critical: bool
    channels: dict[str, bool]
    reasons: dict[str, str]


class PreferenceMatrix(Record, frozen=True, kw_only=True):
    """Everything a settings screen needs of one user: choices made, and the matrix they lead to."""

    user_id: str
    preferences: tuple[Preference, ...]
    types: tuple[TypePreference, ...]


class Throttle(Record, frozen=True, kw_only=True):
    """At most ``limit`` of one type to one user by one channel within ``minutes``."""

    limit: int
    minutes: int


class Stage(Record, frozen=True, kw_only=True):
    """One channel of a fail-over chain: it is used if the notice is still unread after so many minutes."""

    channel: str
    after_minutes: int


class NotificationType(Record, frozen=True, kw_only=True):
    """What a sibling app declares about a type of notice; ``channels`` are used where a ``send`` names none.

    ``critical`` is the owner's mark, ``asks_critical`` what the app wished for.
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
    """Texts with named variables; ``locale`` is empty for the default text.

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
    """A template with its variables filled in."""

    title: str
    message: str


class Device(Record, frozen=True, kw_only=True):
    """A registered device; ``token`` is masked."""

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
    """A key's public side; the key itself is shown once, when it is made."""

    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None


class TodayMetrics(Record, frozen=True, kw_only=True):
    """The dashboard's figures of the day ``day`` (ISO date) in ``zone`` (IANA name)."""

    day: str
    zone: str
    active_users: int
    sessions: int
    activities: int
    notifications: int
    delivered: int
    read: int
