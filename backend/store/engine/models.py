"""Tables as Peewee models, bound to one open file each.

Migrations create the schema with its indexes and triggers; a test compares the two. Hot paths use constant SQL on the
same connection instead of these models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from peewee import (
    BigIntegerField,
    BlobField,
    BooleanField,
    CompositeKey,
    Field,
    FloatField,
    IntegerField,
    Model,
    SqliteDatabase,
    TextField,
)

from flashflow.backend.core.encoding import (
    decode_address,
    decode_id,
    encode_address,
    encode_id,
    from_object,
    from_strings,
    to_json,
)

if TYPE_CHECKING:
    TextLikeField = Field[str]
else:
    TextLikeField = Field  # generic only in its stubs


class IdField(TextLikeField):
    """An id: 16 bytes for a UUID, text for any other id of a caller."""

    field_type = "BLOB"

    def db_value(self, value: str | None) -> bytes | str | None:
        return None if value is None else encode_id(value)

    def python_value(self, value: bytes | str | None) -> str | None:
        return None if value is None else decode_id(value)


class AddressField(TextLikeField):
    """An IP address as 4 or 16 bytes."""

    field_type = "TEXT"

    def db_value(self, value: str | None) -> bytes | str | None:
        return encode_address(value)

    def python_value(self, value: bytes | str | None) -> str | None:
        return decode_address(value)


class ObjectField(TextField):
    """A JSON object; NULL reads as an empty object."""

    def db_value(self, value: dict[str, Any] | None) -> str | None:
        return to_json(value) if value else None

    def python_value(self, value: str | None) -> dict[str, Any]:
        return from_object(value)


class StringsField(TextField):
    """A JSON list of strings."""

    def db_value(self, value: tuple[str, ...]) -> str:
        return to_json(value)

    def python_value(self, value: str | None) -> tuple[str, ...]:
        return from_strings(value)


class ActivityModels(NamedTuple):
    """The tables of ``user_activities.db``."""

    activity: type[Model]
    session: type[Model]
    analytics: type[Model]


class NotificationModels(NamedTuple):
    """The tables of ``notifications.db``."""

    notification: type[Model]
    delivery: type[Model]
    attempt: type[Model]
    preference: type[Model]
    template: type[Model]
    device: type[Model]
    api_key: type[Model]
    notification_type: type[Model]


def activity_models(db: SqliteDatabase) -> ActivityModels:
    """The activity tables, bound to ``db``."""

    class Base(Model):
        class Meta:
            database = db
            legacy_table_names = False

    class UserActivity(Base):
        seq = IntegerField(primary_key=True)
        id = IdField(unique=True)
        user_id = TextField()
        activity_type = TextField()
        session_id = IdField()
        app = TextField()
        timestamp = BigIntegerField()
        received_at = BigIntegerField()
        metadata = ObjectField(null=True)
        page_url = TextField(null=True)
        referrer = TextField(null=True)
        user_agent = TextField(null=True)
        ip_address = AddressField(null=True)
        agent = IntegerField(null=True)

        class Meta:
            table_name = "user_activities"

    class UserSession(Base):
        seq = IntegerField(primary_key=True)
        id = IdField(unique=True)
        user_id = TextField()
        app = TextField()
        start_time = BigIntegerField()
        last_seen = BigIntegerField()
        end_time = BigIntegerField(null=True)
        end_reason = TextField(null=True)
        pages_visited = IntegerField(default=0)
        activities = IntegerField(default=0)
        device_info = ObjectField(null=True)
        ip_address = TextField(null=True)
        user_agent = TextField(null=True)
        shared = BooleanField(default=False)
        revision = IntegerField(unique=True)
        key_activities = IntegerField(default=0)
        implicit = BooleanField(default=False)

        class Meta:
            table_name = "user_sessions"

    class UserAnalytics(Base):
        user_id = TextField(primary_key=True)
        total_sessions = IntegerField(default=0)
        total_activities = IntegerField(default=0)
        last_activity = BigIntegerField(null=True)
        avg_session_duration = FloatField(null=True)
        most_visited_pages = TextField(null=True)
        favorite_features = TextField(null=True)
        engagement_score = FloatField(null=True)
        engagement_parts = ObjectField(null=True)
        computed_at = BigIntegerField(null=True)
        formula = IntegerField(null=True)

        class Meta:
            table_name = "user_analytics"
            without_rowid = True

    return ActivityModels(UserActivity, UserSession, UserAnalytics)


def notification_models(db: SqliteDatabase) -> NotificationModels:
    """The notification tables, bound to ``db``."""

    class Base(Model):
        class Meta:
            database = db
            legacy_table_names = False

    class Notification(Base):
        seq = IntegerField(primary_key=True)
        id = IdField(unique=True)
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
        created_at = BigIntegerField()
        scheduled_at = BigIntegerField(null=True)
        expires_at = BigIntegerField(null=True)
        sent_at = BigIntegerField(null=True)
        delivered_at = BigIntegerField(null=True)
        read_at = BigIntegerField(null=True)
        archived_at = BigIntegerField(null=True)
        revision = IntegerField(unique=True)
        count = IntegerField(default=1)
        snoozed_until = BigIntegerField(null=True)
        category = TextField(null=True)
        listed_at = BigIntegerField(default=0)

        class Meta:
            table_name = "notifications"

    class Delivery(Base):
        seq = IntegerField(primary_key=True)
        id = IdField(unique=True)
        notification_seq = IntegerField()
        channel = TextField()
        device_seq = IntegerField(null=True)
        status = TextField()
        code = TextField(null=True)
        reason = TextField(null=True)
        created_at = BigIntegerField()
        updated_at = BigIntegerField()
        next_attempt_at = BigIntegerField(null=True)
        lease_until = BigIntegerField(null=True)
        tries = IntegerField(default=0)
        route = TextField(default="")
        release_at = BigIntegerField(null=True)
        carrier_seq = IntegerField(null=True)
        in_turn = BooleanField(default=False)
        tried_since = BigIntegerField(null=True)
        retry_until = BigIntegerField(null=True)

        class Meta:
            table_name = "deliveries"

    class DeliveryAttempt(Base):
        seq = IntegerField(primary_key=True)
        delivery_seq = IntegerField()
        started_at = BigIntegerField()
        duration_ms = IntegerField()
        outcome = TextField()
        code = TextField()
        text = TextField()
        next_try_at = BigIntegerField(null=True)

        class Meta:
            table_name = "delivery_attempts"

    class NotificationPreference(Base):
        user_id = TextField()
        notification_type = TextField()
        channel = TextField()
        enabled = BooleanField()
        updated_at = BigIntegerField()

        class Meta:
            table_name = "notification_preferences"
            primary_key = CompositeKey("user_id", "notification_type", "channel")
            without_rowid = True

    class NotificationType(Base):
        name = TextField(primary_key=True)
        label = TextField()
        description = TextField()
        channels = StringsField()
        critical = BooleanField()
        digest = TextField(null=True)
        app = TextField()
        created_at = BigIntegerField()
        updated_at = BigIntegerField()
        category = TextField(null=True)
        asks_critical = BooleanField(default=False)
        digest_at = TextField(null=True)
        throttle = TextField(null=True)
        failover = TextField(null=True)
        seq = IntegerField(default=0, unique=True)

        class Meta:
            table_name = "notification_types"
            without_rowid = True

    class NotificationTemplate(Base):
        seq = IntegerField(primary_key=True)
        id = IdField(unique=True)
        name = TextField()
        locale = TextField()
        title_template = TextField()
        message_template = TextField()
        channels = StringsField()
        category = TextField(null=True)
        data_schema = ObjectField(null=True)
        app = TextField()
        created_at = BigIntegerField()
        updated_at = BigIntegerField()

        class Meta:
            table_name = "notification_templates"

    class DeviceToken(Base):
        seq = IntegerField(primary_key=True)
        id = IdField(unique=True)
        user_id = TextField()
        token = TextField()
        identity = TextField(unique=True)
        platform = TextField()
        device_info = ObjectField(null=True)
        is_active = BooleanField()
        app = TextField()
        created_at = BigIntegerField()
        updated_at = BigIntegerField()
        last_used_at = BigIntegerField(null=True)

        class Meta:
            table_name = "device_tokens"

    class ApiKey(Base):
        name = TextField(primary_key=True)
        hash = BlobField()
        scopes = StringsField()
        created_at = BigIntegerField()
        revoked_at = BigIntegerField(null=True)
        seq = IntegerField(default=0, unique=True)

        class Meta:
            table_name = "api_keys"
            without_rowid = True

    return NotificationModels(
        Notification,
        Delivery,
        DeliveryAttempt,
        NotificationPreference,
        NotificationTemplate,
        DeviceToken,
        ApiKey,
        NotificationType,
    )
