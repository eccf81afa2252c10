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
Inbox = Literal["unread", "read", "archived"]
NotificationStatus = Literal[
    "scheduled", "pending", "sent", "delivered", "read", "failed", "suppressed", "cancelled", "expired"
]
DeliveryStatus = Literal["pending", "sending", "sent", "delivered", "held", "suppressed", "failed", "dead"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what is read from the store."""


class Tracked(Record):
    """The answer to one activity: ``duplicate`` when this ``activity_id`` had been stored before."""

    activity_id: str
    session_id: str
    duplicate: bool = False


class RejectedRow(Record):
    """A row of a batch that was not stored: its ``index`` in the batch and why, as (field, message) pairs."""

    index: int
    errors: tuple[tuple[str, str], ...]


class BatchResult(Record):
    """What became of a batch: counts of rows stored and already known, and the rows refused."""

    accepted: int
    duplicates: int
    rejected: tuple[RejectedRow, ...]


class Activity(Record):
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


class Session(Record):
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


class SessionStarted(Record):
    """``created`` is false when the session was there already."""

    session: Session
    created: bool


class NameCount(Record):
    """A page or a feature and how often it was used."""

    name: str
    count: int


class UserAnalytics(Record):
    """The figures of one user. ``avg_session_duration`` is in seconds over ended sessions, ``engagement_score`` 0–100
    with its parts in ``engagement_parts`` (DEFINITIONS.md, Engagement score); None where there is nothing to say yet."""

    user_id: str
    total_sessions: int
    total_activities: int
    last_activity: datetime | None
    avg_session_duration: float | None
    most_visited_pages: tuple[NameCount, ...]
    favorite_features: tuple[NameCount, ...]
    engagement_score: float | None
    engagement_parts: dict[str, float]


class Action(Record):
    """A button of a notification."""

    label: str
    url: str


class Attempt(Record):
    """One try of one delivery: when, for how long, what came of it and the provider's own words."""

    started_at: datetime
    duration_ms: int
    outcome: str
    code: str
    text: str


class Delivery(Record):
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


class Notification(Record):
    """A notice to one user. ``inbox`` is its place in the in-app inbox, None where it has none."""

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


class NotificationDetail(Record):
    """A notification with every delivery and every attempt."""

    notification: Notification
    deliveries: tuple[Delivery, ...]


class Sent(Record):
    """What became of one ``send``: the stored notification and how each channel stands."""

    notification_id: str
    user_id: str
    status: str
    deliveries: tuple[Delivery, ...]


class NotificationPage(Record):
    """Newest first; ``next_cursor`` is None on the last page; ``unread_count`` is over the whole inbox."""

    notifications: tuple[Notification, ...]
    unread_count: int
    next_cursor: str | None


class ActivityPage(Record):
    activities: tuple[Activity, ...]
    next_cursor: str | None


class SessionPage(Record):
    sessions: tuple[Session, ...]
    next_cursor: str | None


class Preference(Record):
    """A choice a user made; ``*`` stands for every type or every channel."""

    user_id: str
    notification_type: str
    channel: str
    enabled: bool
    updated_at: datetime


class TypePreference(Record):
    """One row of the matrix as it takes effect: channel → whether it may be used, and which rule says so."""

    name: str
    label: str
    description: str
    app: str
    critical: bool
    channels: dict[str, bool]
    reasons: dict[str, str]


class PreferenceMatrix(Record):
    """Everything a settings screen needs of one user: choices made, and the matrix they lead to."""

    user_id: str
    preferences: tuple[Preference, ...]
    types: tuple[TypePreference, ...]


class NotificationType(Record):
    """What a sibling app declares about a type of notice; ``channels`` are used where a ``send`` names none."""

    name: str
    label: str
    description: str
    channels: tuple[str, ...]
    critical: bool
    digest: str | None
    app: str
    created_at: datetime
    updated_at: datetime


class Template(Record):
    """Texts with named variables; ``locale`` is empty for the default text."""

    id: str
    name: str
    locale: str
    title_template: str
    message_template: str
    channels: tuple[str, ...]
    category: str | None
    data_schema: dict[str, Any] | None
    variables: tuple[str, ...]
    app: str
    created_at: datetime
    updated_at: datetime


class Rendered(Record):
    """A template with its variables filled in."""

    title: str
    message: str


class Device(Record):
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


class DeviceRegistered(Record):
    device: Device
    created: bool


class ApiKey(Record):
    """A key's public side; the key itself is shown once, when it is made."""

    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None


class TodayFigures(Record):
    """The dashboard's figures of the day ``day`` (ISO date) in ``zone`` (IANA name)."""

    day: str
    zone: str
    active_users: int
    sessions: int
    activities: int
    notifications: int
    delivered: int
    read: int
    unread: int
