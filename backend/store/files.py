"""The two files and their tables."""

from __future__ import annotations

from flashflow.backend.store.activity import models as activity
from flashflow.backend.store.activity.user_index import VIEW_DDL
from flashflow.backend.store.engine.models import DamagedRow, HighestRevision, IdempotencyKey
from flashflow.backend.store.engine.schema import FileSchema, Step
from flashflow.backend.store.flow import models as flow
from flashflow.backend.store.migrations import activity as activity_steps
from flashflow.backend.store.migrations import notifications as notification_steps
from flashflow.backend.store.notifications import models as notifications
from flashflow.backend.store.privacy import models as privacy
from flashflow.backend.store.rollups import models as rollups

_IN_BOTH = (IdempotencyKey, DamagedRow, HighestRevision, privacy.Tombstone, privacy.TombstoneSalt)

ACTIVITY_SCHEMA = FileSchema(
    models=(
        activity.UserActivity,
        activity.UserSession,
        activity.UserAnalytics,
        activity.ActivityByUser,
        activity.ActivityPartition,
        activity.KeyRecount,
        rollups.UserKey,
        rollups.Dimension,
        rollups.RollupState,
        rollups.UserDay,
        rollups.UserTypeDay,
        rollups.TypeWeek,
        rollups.UserSpan,
        rollups.ActiveDay,
        rollups.CohortDay,
        rollups.SessionDay,
        rollups.NameDay,
        rollups.ActivityHour,
        rollups.NameBlock,
        rollups.HourBlock,
        rollups.HeavyUser,
        rollups.UserName,
        privacy.Consent,
        privacy.Pruned,
        *_IN_BOTH,
    ),
    views=(VIEW_DDL,),
    version=102,
    steps=(
        Step(13, 15, activity_steps.from_13),
        Step(15, 100, activity_steps.from_15),
        Step(100, 101, activity_steps.from_100),
        Step(101, 102, activity_steps.from_101),
    ),
)
"""``user_activities.db``."""

NOTIFICATION_SCHEMA = FileSchema(
    models=(
        notifications.Notification,
        notifications.InboxCount,
        notifications.Delivery,
        notifications.DeliveryAttempt,
        notifications.NotificationPreference,
        notifications.NotificationType,
        notifications.NotificationTemplate,
        notifications.DeviceToken,
        notifications.ApiKey,
        notifications.Contact,
        notifications.QuietHours,
        notifications.Digest,
        notifications.ThrottleUse,
        notifications.Schedule,
        notifications.Rule,
        notifications.RuleUse,
        notifications.RuleMark,
        notifications.SearchState,
        flow.FlowRow,
        flow.FlowUniqueValue,
        flow.FlowJob,
        flow.FlowDeclaration,
        *_IN_BOTH,
    ),
    # ``search`` creates the index and its triggers where SQLite supports it.
    optional=("notification_search", "search_"),
    version=103,
    steps=(
        Step(7, 15, notification_steps.from_7),
        Step(15, 100, notification_steps.from_15),
        Step(100, 101, notification_steps.from_100),
        Step(101, 102, notification_steps.from_101),
        Step(102, 103, notification_steps.from_102),
    ),
)
"""``notifications.db``."""
