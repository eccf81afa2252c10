"""Tables of ``notifications.db``."""

from __future__ import annotations

from typing import ClassVar

from peewee import SQL, BigIntegerField, BooleanField, CompositeKey, Default, TextField

from flashflow.backend.schemas.records import Stage, Throttle
from flashflow.backend.store.engine.models import (
    BaseModel,
    BytesField,
    IdField,
    JsonField,
    MillisecondsField,
    ObjectField,
    SequenceField,
    StringsField,
    false,
    keep_revision,
    parent,
    zero,
)


def _count_unread(name: str, when: str, row: str, by: int) -> str:
    """Build the trigger ``name`` that adds ``by`` to the unread count of a row's user and app."""
    return (
        f"CREATE TRIGGER inbox_counts_{name} AFTER {when} BEGIN INSERT INTO inbox_counts (user_id, app, unread) "
        f"VALUES ({row}.user_id, {row}.app, {by}) ON CONFLICT (user_id, app) DO UPDATE SET unread = unread + {by}; END"
    )


class Notification(BaseModel):
    """A notification.

    ``revision`` grows with every change, so that an event stream can read later changes. ``listed_at`` is the time by
    which lists and retention go: the last arrival in the inbox, or before that the time of storing.
    """

    seq = SequenceField()
    id = IdField()
    user_id = TextField()
    app = TextField()
    title = TextField()
    message = TextField()
    notification_type = TextField()
    channels = StringsField()
    priority = TextField()
    status = TextField()
    inbox = TextField(null=True)
    data = ObjectField(null=True)
    actions = TextField(null=True)
    device_tokens = StringsField(null=True)
    collapse_key = TextField(null=True)
    created_at = MillisecondsField()
    scheduled_at = MillisecondsField(null=True)
    expires_at = MillisecondsField(null=True)
    sent_at = MillisecondsField(null=True)
    delivered_at = MillisecondsField(null=True)
    read_at = MillisecondsField(null=True)
    archived_at = MillisecondsField(null=True)
    revision = BigIntegerField()
    count = BigIntegerField(constraints=[Default(1)])
    snoozed_until = MillisecondsField(null=True)
    category = TextField(null=True)
    listed_at = MillisecondsField(constraints=[Default(0)])

    class Meta:
        table_name = "notifications"
        # Triggers update the unread counts, so that no write path can miss them.
        triggers: ClassVar = (
            _count_unread("insert", "INSERT ON notifications WHEN NEW.inbox = 'unread'", "NEW", 1),
            _count_unread("delete", "DELETE ON notifications WHEN OLD.inbox = 'unread'", "OLD", -1),
            _count_unread(
                "enter",
                "UPDATE OF inbox ON notifications WHEN NEW.inbox = 'unread' AND OLD.inbox IS NOT 'unread'",
                "NEW",
                1,
            ),
            _count_unread(
                "leave",
                "UPDATE OF inbox ON notifications WHEN OLD.inbox = 'unread' AND NEW.inbox IS NOT 'unread'",
                "OLD",
                -1,
            ),
            keep_revision("notifications"),
        )


_NOT_ARCHIVED = SQL("inbox IS NOT 'archived'")

Notification.add_index(Notification.id, name="notifications_id", unique=True)
# (listed_at, seq) is a total order. With ``revision``, which stands behind ``data`` in the row, a list reads no rows.
Notification.add_index(
    Notification.user_id,
    Notification.inbox,
    Notification.listed_at,
    Notification.seq,
    Notification.revision,
    name="notifications_inbox",
)
Notification.add_index(Notification.listed_at, name="notifications_listed")
Notification.add_index(
    Notification.scheduled_at, name="notifications_scheduled", where=Notification.status == "scheduled"
)
# Archived notifications never expire.
Notification.add_index(
    Notification.expires_at,
    name="notifications_expiring",
    where=Notification.expires_at.is_null(False)
    & Notification.status.in_(("scheduled", "pending", "sent", "delivered"))
    & _NOT_ARCHIVED,
)
Notification.add_index(Notification.revision, name="notifications_revision", unique=True)
# Only notifications that a collapse can update: a key may have 100,000 read ones.
Notification.add_index(
    Notification.user_id,
    Notification.app,
    Notification.collapse_key,
    name="notifications_collapse",
    where=Notification.collapse_key.is_null(False)
    & (Notification.read_at.is_null() | (Notification.inbox == "snoozed"))
    & _NOT_ARCHIVED,
)
Notification.add_index(
    Notification.snoozed_until, name="notifications_snoozed", where=Notification.snoozed_until.is_null(False)
)


class InboxCount(BaseModel):
    """Unread notifications of a user in an app."""

    user_id = TextField()
    app = TextField()
    unread = BigIntegerField()

    class Meta:
        table_name = "inbox_counts"
        primary_key = CompositeKey("user_id", "app")
        without_rowid = True


class Delivery(BaseModel):
    """One notification on one channel, with the queue (``route``) it waits in."""

    seq = SequenceField()
    id = IdField()
    notification_seq = parent(Notification, "notification_seq")
    channel = TextField()
    device_seq = BigIntegerField(null=True)
    status = TextField()
    code = TextField(null=True)
    reason = TextField(null=True)
    created_at = MillisecondsField()
    updated_at = MillisecondsField()
    next_attempt_at = MillisecondsField(null=True)
    lease_until = MillisecondsField(null=True)
    tries = zero()
    route = TextField(constraints=[Default("''")])
    release_at = MillisecondsField(null=True)
    digest_seq = BigIntegerField(null=True)
    failed_over = false()
    tried_since = MillisecondsField(null=True)
    retry_until = MillisecondsField(null=True)

    class Meta:
        table_name = "deliveries"


Delivery.add_index(Delivery.id, name="deliveries_id", unique=True)
Delivery.add_index(Delivery.notification_seq, name="deliveries_notification")
Delivery.add_index(
    Delivery.route,
    Delivery.next_attempt_at,
    name="deliveries_due",
    where=(Delivery.status == "pending") & Delivery.next_attempt_at.is_null(False),
)
Delivery.add_index(Delivery.lease_until, name="deliveries_leased", where=Delivery.status == "sending")
Delivery.add_index(Delivery.release_at, name="deliveries_held", where=Delivery.status == "held")
Delivery.add_index(Delivery.digest_seq, name="deliveries_digest", where=Delivery.digest_seq.is_null(False))


class DeliveryAttempt(BaseModel):
    """One try to hand a delivery to a provider."""

    seq = BigIntegerField(primary_key=True)
    delivery_seq = parent(Delivery, "delivery_seq")
    started_at = MillisecondsField()
    duration_ms = BigIntegerField()
    outcome = TextField()
    code = TextField()
    text = TextField()
    next_try_at = MillisecondsField(null=True)

    class Meta:
        table_name = "delivery_attempts"


DeliveryAttempt.add_index(DeliveryAttempt.delivery_seq, name="delivery_attempts_delivery")


class NotificationPreference(BaseModel):
    """A user's choice for one type on one channel."""

    user_id = TextField()
    notification_type = TextField()
    channel = TextField()
    enabled = BooleanField()
    updated_at = MillisecondsField()

    class Meta:
        table_name = "notification_preferences"
        primary_key = CompositeKey("user_id", "notification_type", "channel")
        without_rowid = True


class NotificationType(BaseModel):
    """A type declared by an app or seen in a send, numbered by age."""

    # The time alone gives no order within a millisecond.
    name = TextField(primary_key=True)
    label = TextField()
    description = TextField()
    channels = StringsField()
    critical = BooleanField()
    digest = TextField(null=True)
    app = TextField()
    created_at = MillisecondsField()
    updated_at = MillisecondsField()
    category = TextField(null=True)
    asks_critical = false()
    digest_at = TextField(null=True)
    throttle = JsonField(Throttle, None, null=True)
    failover = JsonField(tuple[Stage, ...], (), null=True)
    seq = zero()

    class Meta:
        table_name = "notification_types"
        without_rowid = True


NotificationType.add_index(NotificationType.seq, name="notification_types_seq", unique=True)


class NotificationTemplate(BaseModel):
    """A template's text in one locale."""

    seq = SequenceField()
    id = IdField()
    name = TextField()
    locale = TextField()
    title_template = TextField()
    message_template = TextField()
    channels = StringsField()
    category = TextField(null=True)
    data_schema = ObjectField(null=True)
    app = TextField()
    created_at = MillisecondsField()
    updated_at = MillisecondsField()

    class Meta:
        table_name = "notification_templates"


NotificationTemplate.add_index(
    NotificationTemplate.name, NotificationTemplate.locale, name="notification_templates_name", unique=True
)


class DeviceToken(BaseModel):
    """A user's device; ``identity`` is its provider address, equal for every spelling of the token."""

    seq = SequenceField()
    id = IdField()
    user_id = TextField()
    token = TextField()
    platform = TextField()
    device_info = ObjectField(null=True)
    is_active = BooleanField()
    app = TextField()
    created_at = MillisecondsField()
    updated_at = MillisecondsField()
    last_used_at = MillisecondsField(null=True)
    identity = TextField(constraints=[Default("''")])

    class Meta:
        table_name = "device_tokens"


DeviceToken.add_index(DeviceToken.user_id, name="device_tokens_user")
DeviceToken.add_index(DeviceToken.identity, name="device_tokens_identity", unique=True)


class ApiKey(BaseModel):
    """A hashed key with its scopes, numbered by age."""

    name = TextField(primary_key=True)
    hash = BytesField()
    scopes = StringsField()
    created_at = MillisecondsField()
    revoked_at = MillisecondsField(null=True)
    seq = zero()

    class Meta:
        table_name = "api_keys"
        without_rowid = True


ApiKey.add_index(ApiKey.seq, name="api_keys_seq", unique=True)


class Contact(BaseModel):
    """A user's addresses."""

    user_id = TextField(primary_key=True)
    email = TextField(null=True)
    phone = TextField(null=True)
    locale = TextField(null=True)
    updated_at = MillisecondsField()

    class Meta:
        table_name = "contacts"
        without_rowid = True


class QuietHours(BaseModel):
    """A user's quiet hours, and until when they do not want to be disturbed."""

    user_id = TextField(primary_key=True)
    enabled = false()
    start_time = TextField(constraints=[Default("'22:00'")])
    end_time = TextField(constraints=[Default("'07:00'")])
    timezone = TextField(null=True)
    days = TextField(null=True)
    dnd_until = MillisecondsField(null=True)
    updated_at = MillisecondsField()

    class Meta:
        table_name = "quiet_hours"
        without_rowid = True


class Digest(BaseModel):
    """A user's digest of one type."""

    user_id = TextField()
    notification_type = TextField()
    frequency = TextField()
    at = TextField(null=True)
    updated_at = MillisecondsField()

    class Meta:
        table_name = "digests"
        primary_key = CompositeKey("user_id", "notification_type")
        without_rowid = True


class ThrottleUse(BaseModel):
    """The latest send times for a user, type and channel, as many as the throttle counts."""

    user_id = TextField()
    notification_type = TextField()
    channel = TextField()
    times = JsonField(list[int], ())

    class Meta:
        table_name = "throttles"
        primary_key = CompositeKey("user_id", "notification_type", "channel")
        without_rowid = True


class Schedule(BaseModel):
    """A send that repeats; ``rule`` says when."""

    seq = SequenceField()
    id = IdField()
    name = TextField()
    app = TextField()
    request = TextField()
    rule = TextField()
    next_at = MillisecondsField(null=True)
    last_at = MillisecondsField(null=True)
    created_at = MillisecondsField()
    updated_at = MillisecondsField()

    class Meta:
        table_name = "schedules"


Schedule.add_index(Schedule.id, name="schedules_id", unique=True)
Schedule.add_index(Schedule.app, Schedule.name, name="schedules_name", unique=True)
Schedule.add_index(Schedule.next_at, name="schedules_due", where=Schedule.next_at.is_null(False))


class Rule(BaseModel):
    """A rule over activities; those after ``after_seq`` count."""

    seq = SequenceField()
    id = IdField()
    name = TextField()
    app = TextField()
    owner = TextField(null=True)
    enabled = BooleanField()
    rule = TextField()
    after_seq = BigIntegerField()
    checked_at = MillisecondsField()
    fired = zero()
    last_fired_at = MillisecondsField(null=True)
    last_error = TextField(null=True)
    created_at = MillisecondsField()
    updated_at = MillisecondsField()
    last_error_at = MillisecondsField(null=True)

    class Meta:
        table_name = "rules"
        triggers: ClassVar = tuple(
            f"CREATE TRIGGER rules_{name} AFTER {event} ON rules "
            "BEGIN UPDATE rule_mark SET revision = revision + 1; END"
            for name, event in (
                ("insert", "INSERT"),
                ("delete", "DELETE"),
                ("update", "UPDATE OF name, app, owner, enabled, rule, after_seq"),
            )
        )


Rule.add_index(Rule.id, name="rules_id", unique=True)
Rule.add_index(Rule.name, Rule.app, name="rules_name", unique=True)
Rule.add_index(Rule.app, name="rules_app")


class RuleUse(BaseModel):
    """A rule's state for one user."""

    rule_seq = parent(Rule, "rule_seq")
    user_id = TextField()
    times = JsonField(tuple[int, ...], ())
    fired_at = MillisecondsField(null=True)
    useful_until = MillisecondsField()

    class Meta:
        table_name = "rule_uses"
        primary_key = CompositeKey("rule_seq", "user_id")
        without_rowid = True


RuleUse.add_index(RuleUse.useful_until, name="rule_uses_over")
RuleUse.add_index(RuleUse.user_id, name="rule_uses_user")


class RuleMark(BaseModel):
    """One row: the activity up to which rules were evaluated, and the revision of the rules."""

    evaluated_to = BigIntegerField()
    revision = BigIntegerField()

    class Meta:
        table_name = "rule_mark"
        primary_key = False
        initial_rows: ClassVar = ("INSERT INTO rule_mark VALUES (0, 0)",)


class SearchState(BaseModel):
    """One row: the notification up to which the search index goes; NULL without an index (``search``)."""

    indexed_to = BigIntegerField(null=True)

    class Meta:
        table_name = "search_state"
        primary_key = False
        initial_rows: ClassVar = ("INSERT INTO search_state VALUES (NULL)",)
