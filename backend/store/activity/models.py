"""Tables of activities, sessions and the counters of users in ``user_activities.db``.

- Frequent user agents are dimension keys (``agent``).
- No index has a column that every activity changes (``last_seen``): it would add a WAL page to every activity.
- No index by session: a session's activities are found by user and time range, or by time range alone if ``shared``
  says that another user's activity has the same session id (a visitor who logs in).
"""

from __future__ import annotations

from typing import ClassVar

from peewee import SQL, BigIntegerField, CompositeKey, FloatField, TextField

from flashflow.backend.store.engine.models import (
    AddressField,
    BaseModel,
    IdField,
    MillisecondsField,
    ObjectField,
    SequenceField,
    false,
    keep_revision,
    zero,
)

PARTITION_BITS = 28
"""A partition is 2**28 ms, 3.1 days (``rollups.partitions``)."""


class UserActivity(BaseModel):
    """An activity as an app reported it."""

    seq = SequenceField()
    id = IdField()
    user_id = TextField()
    activity_type = TextField()
    session_id = IdField()
    app = TextField()
    timestamp = MillisecondsField()
    received_at = MillisecondsField()
    metadata = ObjectField(null=True)
    page_url = TextField(null=True)
    referrer = TextField(null=True)
    user_agent = TextField(null=True)
    ip_address = AddressField(null=True)
    agent = BigIntegerField(null=True)

    class Meta:
        table_name = "user_activities"


UserActivity.add_index(UserActivity.id, name="user_activities_id", unique=True)
UserActivity.add_index(UserActivity.timestamp, name="user_activities_time")


class UserSession(BaseModel):
    """A session. ``implicit``: FlashFlow opened it itself, so it may be merged (``session_merge``)."""

    seq = SequenceField()
    id = IdField()
    user_id = TextField()
    app = TextField()
    start_time = MillisecondsField()
    last_seen = MillisecondsField()
    end_time = MillisecondsField(null=True)
    end_reason = TextField(null=True)
    pages_visited = zero()
    activities = zero()
    device_info = ObjectField(null=True)
    ip_address = AddressField(null=True)
    user_agent = TextField(null=True)
    shared = false()
    revision = BigIntegerField()
    key_activities = zero()
    implicit = false()

    class Meta:
        table_name = "user_sessions"
        triggers: ClassVar = (keep_revision("user_sessions"),)


UserSession.add_index(UserSession.id, name="user_sessions_id", unique=True)
UserSession.add_index(
    SQL(f"start_time >> {PARTITION_BITS}"), UserSession.user_id, UserSession.start_time, name="user_sessions_user"
)
UserSession.add_index(
    UserSession.user_id, UserSession.app, name="user_sessions_open", where=UserSession.end_time.is_null()
)
UserSession.add_index(UserSession.start_time, name="user_sessions_start")
UserSession.add_index(UserSession.revision, name="user_sessions_revision", unique=True)


class UserAnalytics(BaseModel):
    """Counters of a user, updated by writes, and the metrics computed at ``computed_at`` with ``formula``."""

    user_id = TextField(primary_key=True)
    total_sessions = zero()
    total_activities = zero()
    last_activity = MillisecondsField(null=True)
    avg_session_duration = FloatField(null=True)
    most_visited_pages = TextField(null=True)
    favorite_features = TextField(null=True)
    engagement_score = FloatField(null=True)
    engagement_parts = ObjectField(null=True)
    computed_at = MillisecondsField(null=True)
    formula = BigIntegerField(null=True)

    class Meta:
        table_name = "user_analytics"
        without_rowid = True


class ActivityByUser(BaseModel):
    """Index of activities by user: the activity ``seq`` of the user's key, ``at`` milliseconds into a partition."""

    partition = BigIntegerField()
    user = BigIntegerField()
    at = BigIntegerField()
    seq = BigIntegerField()

    class Meta:
        table_name = "activities_by_user"
        primary_key = CompositeKey("partition", "user", "at", "seq")
        without_rowid = True


class ActivityPartition(BaseModel):
    """A time partition of ActivityByUser that has entries."""

    partition = BigIntegerField(primary_key=True)

    class Meta:
        table_name = "activity_partitions"


class KeyRecount(BaseModel):
    """The progress of recalculating sessions after a change of key activities; no row if none is running."""

    after_seq = BigIntegerField()
    until_seq = BigIntegerField()

    class Meta:
        table_name = "key_recount"
        primary_key = False
