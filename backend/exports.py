"""Names that ``flashflow.backend`` exports; it loads this module when one of them is first used.

``X as X`` tells type checkers that X is exported (PEP 484).
"""

from flashflow.backend.activity.service import UserActivityService as UserActivityService
from flashflow.backend.analytics.query import Filters as Filters
from flashflow.backend.app import SETTINGS_FILE as SETTINGS_FILE, Backend as Backend
from flashflow.backend.core.config import VERSION as VERSION, Config as Config, load_config as load_config
from flashflow.backend.core.errors import (
    AlreadyRunning as AlreadyRunning,
    Conflict as Conflict,
    FieldError as FieldError,
    FlashFlowError as FlashFlowError,
    Forbidden as Forbidden,
    NotFound as NotFound,
    SchemaTooNew as SchemaTooNew,
    StorageError as StorageError,
    StorageFull as StorageFull,
    Unauthorized as Unauthorized,
    ValidationError as ValidationError,
)
from flashflow.backend.core.events import Bus as Bus, Event as Event, EventKind as EventKind
from flashflow.backend.data.erasure import ErasedUser as ErasedUser
from flashflow.backend.data.retention import RetentionStatus as RetentionStatus
from flashflow.backend.delivery.channel_registry import ChannelState as ChannelState
from flashflow.backend.domain.metric_definitions import DEFINITIONS as DEFINITIONS
from flashflow.backend.notifications.channel_test import ChannelTest as ChannelTest
from flashflow.backend.notifications.service import NotificationService as NotificationService
from flashflow.backend.rules.dry_run import DryRun as DryRun
from flashflow.backend.rules.service import RuleRef as RuleRef, Rules as Rules
from flashflow.backend.schemas.analytics import (
    ActivityType as ActivityType,
    Cohort as Cohort,
    Funnel as Funnel,
    FunnelStep as FunnelStep,
    HeatMap as HeatMap,
    Metric as Metric,
    Named as Named,
    Names as Names,
    Overview as Overview,
    Period as Period,
    Retention as Retention,
    Trend as Trend,
    TrendPoint as TrendPoint,
    UserRow as UserRow,
    UserRows as UserRows,
)
from flashflow.backend.schemas.delivery_settings import (
    ContactsIn as ContactsIn,
    DigestIn as DigestIn,
    QuietHoursIn as QuietHoursIn,
    given as given,
)
from flashflow.backend.schemas.records import (
    Action as Action,
    Activity as Activity,
    ActivityPage as ActivityPage,
    ApiKey as ApiKey,
    Attempt as Attempt,
    BatchResult as BatchResult,
    Decided as Decided,
    Delivery as Delivery,
    Device as Device,
    DeviceRegistered as DeviceRegistered,
    DryRunResult as DryRunResult,
    NameCount as NameCount,
    Notification as Notification,
    NotificationDetail as NotificationDetail,
    NotificationPage as NotificationPage,
    NotificationType as NotificationType,
    Preference as Preference,
    PreferenceMatrix as PreferenceMatrix,
    Rendered as Rendered,
    Sent as Sent,
    Session as Session,
    SessionPage as SessionPage,
    SessionStarted as SessionStarted,
    Template as Template,
    TodayMetrics as TodayMetrics,
    Tracked as Tracked,
    TypePreference as TypePreference,
    UserAnalytics as UserAnalytics,
)
from flashflow.backend.schemas.requests import SendIn as SendIn, TypeIn as TypeIn, build as build
from flashflow.backend.schemas.rules import RuleIn as RuleIn
from flashflow.backend.settings.model import PrivacySettings as PrivacySettings, RetentionSettings as RetentionSettings
from flashflow.backend.store.notifications.delivery_settings import (
    Contact as Contact,
    DigestChoice as DigestChoice,
    QuietSetting as QuietSetting,
)
from flashflow.backend.store.notifications.rules import Rule as Rule
