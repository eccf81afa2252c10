"""Response types of every route, for the OpenAPI document."""

from __future__ import annotations

import types
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType

from flashflow.backend.activity.consent import Consent
from flashflow.backend.data.formats import MEDIA_TYPES
from flashflow.backend.data.retention import PruneResult
from flashflow.backend.delivery.channel_registry import ChannelState
from flashflow.backend.notifications.channel_test import ChannelTest
from flashflow.backend.notifications.release_due import DigestRelease
from flashflow.backend.rules.dry_run import ActivityExample, AlertExample
from flashflow.backend.schemas import analytics, records
from flashflow.backend.schemas.requests import Moment
from flashflow.backend.store.analytics.verify import Difference
from flashflow.backend.store.notifications.delivery_settings import Contact, DigestChoice, QuietSetting
from flashflow.backend.store.notifications.rules import Rule
from flashflow.backend.store.notifications.schedules import Schedule

Answers = Mapping[int, type[msgspec.Struct]]


class Operation(NamedTuple):
    """A route's operation id, and its response type by status; for other than JSON, the media types."""

    name: str
    answers: Answers
    media_types: tuple[str, ...] = ("application/json",)


@cache
def written(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Return ``kind`` with every field required, as responses write it; nested records too."""
    hints = get_type_hints(kind, include_extras=True)
    fields = [(f.encode_name, _CHANGED.get((kind.__name__, f.name), _written(hints[f.name]))) for f in
              msgspec.structs.fields(kind)]  # fmt: skip
    return msgspec.defstruct(_NAMES.get(kind, kind.__name__), fields, kw_only=True, namespace={"__doc__": kind.__doc__})


def _written(hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is datetime:
        return Moment
    if isinstance(hint, type) and issubclass(hint, records.Record):
        return written(hint)
    if origin in {Union, types.UnionType}:
        return Union[tuple(map(_written, arguments))]  # noqa: UP007 built at run time
    if origin is tuple:
        return list[_written(arguments[0])]  # type: ignore[misc]
    if origin in {list, dict}:
        return origin[tuple(map(_written, arguments))]
    return hint


_NAMES: Mapping[type, str] = {Rule: "RuleState", Schedule: "ScheduleState"}
"""Schema names of records whose own names belong to request types."""
_EXAMPLES = Annotated[
    list[Any],
    Meta(
        extra_json_schema={
            "items": {
                "anyOf": [
                    {"$ref": "#/components/schemas/ActivityExample"},
                    {"$ref": "#/components/schemas/AlertExample"},
                ]
            }
        }
    ),
]
_CHANGED: Mapping[tuple[str, str], Any] = {
    ("Notification", "priority"): records.Priority,
    ("Notification", "status"): records.NotificationStatus,
    ("Notification", "inbox"): records.Inbox | None,
    ("Delivery", "status"): records.DeliveryStatus,
    ("Decided", "status"): records.DeliveryStatus,
}
"""(type, field) → its type in responses, for fields that are ``str`` in the record and an enum in the API."""
BESIDE = (written(ActivityExample), written(AlertExample))
"""Types referenced only inside other schemas."""


def answer(name: str, /, **fields: Any) -> type[msgspec.Struct]:
    """Return a response type: ``success`` and these fields; an optional one is ``… | UnsetType``."""
    made: list[Any] = [("success", Literal[True])]
    for field, hint in fields.items():
        made.append((field, hint, UNSET) if UnsetType in get_args(hint) else (field, hint))
    return msgspec.defstruct(name, made, kw_only=True)


def part(name: str, /, **fields: Any) -> type[msgspec.Struct]:
    """Return an object type nested in a response."""
    return msgspec.defstruct(name, list(fields.items()), kw_only=True)


def plus(name: str, kind: type[msgspec.Struct], /, **fields: Any) -> type[msgspec.Struct]:
    """Return a response type with the fields of the record ``kind`` and others."""
    whole = written(kind)
    return answer(name, **get_type_hints(whole, include_extras=True), **fields)


W = written
Text = str | None
NOTIFICATION = W(records.Notification)
DECIDED: Any = list[W(records.Decided)]  # type: ignore[misc]
FIELD = part("FieldFault", field=str, message=str)
REJECTED = part("RejectedActivity", index=int, errors=list[FIELD])  # type: ignore[valid-type]
BATCH = answer("BatchAnswer", accepted=int, duplicates=int, rejected=list[REJECTED])  # type: ignore[valid-type]
TRACKED = answer(
    "TrackAnswer", activity_id=Text, duplicate=bool | UnsetType, stored=bool | UnsetType, reason=str | UnsetType
)
STARTED = answer("SessionStartAnswer", session_id=Text, stored=bool | UnsetType, reason=str | UnsetType)
SENT = part("SentToUser", notification_id=str, user_id=str, status=records.NotificationStatus, deliveries=DECIDED)
REFUSED = part("RefusedUser", user_id=str, code=str)
SEND = answer(
    "SendAnswer", notification_id=str | UnsetType, status=records.NotificationStatus | UnsetType,
    deliveries=DECIDED | UnsetType, notifications=list[SENT] | UnsetType,  # type: ignore[valid-type]
    refused=list[REFUSED] | UnsetType,  # type: ignore[valid-type]
)  # fmt: skip
REHEARSED = W(records.DryRunResult)
REHEARSAL = answer(
    "SendDryRunAnswer", dry_run=Literal[True], user_id=str | UnsetType, title=str | UnsetType,
    message=str | UnsetType, status=str | UnsetType, deliveries=DECIDED | UnsetType,
    notifications=list[REHEARSED] | UnsetType,  # type: ignore[valid-type]
)  # fmt: skip
DETAIL = msgspec.defstruct(
    "NotificationDetail",
    [*get_type_hints(NOTIFICATION, include_extras=True).items(), ("deliveries", list[W(records.Delivery)])],  # type: ignore[misc]
    kw_only=True,
)
MOVED = answer("NotificationAnswer", notification=NOTIFICATION)
PERIOD = W(analytics.Period)
DRY_RUN = answer("RuleDryRunAnswer", would_have_fired=int, examples=_EXAMPLES, days=int, judged=int, complete=bool)
RULE, SCHEDULE = answer("RuleAnswer", rule=W(Rule)), answer("ScheduleAnswer", schedule=W(Schedule))
CONTACTS, CONSENT = answer("ContactsAnswer", contacts=W(Contact)), answer("ConsentAnswer", consent=W(Consent))
TEMPLATE = answer("TemplateAnswer", template=W(records.Template))
TYPE = answer("NotificationTypeAnswer", notification_type=W(records.NotificationType))
DEVICE_ID = answer("DeviceRegisteredAnswer", device_token_id=str)
SUCCESS = answer("SuccessAnswer")
PLAIN: Answers = {}


def listed(name: str, field: str, kind: type[msgspec.Struct], **more: Any) -> type[msgspec.Struct]:
    """Return the response type of one page of ``kind``."""
    return answer(name, **{field: list[W(kind)]}, **more, next_cursor=Text)  # type: ignore[misc]


def _one(name: str, made: type[msgspec.Struct], status: int = 200) -> Operation:
    return Operation(name, {status: made})


def _top(kind: str) -> Operation:
    return _one(f"top_{kind}", answer(f"Top{kind.capitalize()}Answer", **{kind: W(analytics.Names)}))


def _analytics(name: str, kind: type[msgspec.Struct]) -> Operation:
    return _one(f"get_{name}", answer(f"{kind.__name__}Answer", **{name: W(kind)}))


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("POST", "/api/activity/track"): Operation("track_activity", {200: TRACKED, 201: TRACKED}),
    ("POST", "/api/activity/batch"): _one("track_batch", BATCH),
    ("GET", "/api/activity"): _one("list_activities", listed("ActivitiesAnswer", "activities", records.Activity)),
    ("POST", "/api/session/start"): Operation("start_session", {200: STARTED, 201: STARTED}),
    ("POST", "/api/session/end/{session_id}"): _one(
        "end_session", answer("SessionAnswer", session=W(records.Session))
    ),
    ("POST", "/api/session/heartbeat/{session_id}"): _one("keep_session_alive", SUCCESS),
    ("GET", "/api/sessions/user/{user_id}"): _one(
        "list_sessions", listed("SessionsAnswer", "sessions", records.Session)
    ),
    ("GET", "/api/analytics/user/{user_id}"): _one(
        "get_user_analytics", answer("UserAnalyticsAnswer", analytics=W(records.UserAnalytics))
    ),
    ("GET", "/api/analytics/overview"): _analytics("overview", analytics.Overview),
    ("GET", "/api/analytics/trend"): _analytics("trend", analytics.Trend),
    **{("GET", f"/api/analytics/{k}"): _top(k) for k in ("pages", "features", "referrers", "apps", "types")},
    ("GET", "/api/analytics/heatmap"): _analytics("heatmap", analytics.HeatMap),
    ("GET", "/api/analytics/retention"): _analytics("retention", analytics.Retention),
    ("GET", "/api/analytics/funnel"): _analytics("funnel", analytics.Funnel),
    ("GET", "/api/analytics/users"): _one(
        "list_users", listed("UsersAnswer", "users", analytics.UserRow, period=PERIOD, definition=str)
    ),
    ("GET", "/api/activity-types"): _one(
        "list_activity_types",
        answer("ActivityTypesAnswer", activity_types=list[W(analytics.ActivityType)]),  # type: ignore[misc]
    ),
    ("POST", "/api/activity-types"): _one(
        "mark_activity_type", answer("ActivityTypeAnswer", activity_type=W(analytics.ActivityType))
    ),
    ("POST", "/api/analytics/verify"): _one(
        "verify_analytics", answer("VerifyAnswer", differences=list[W(Difference)], rebuilt=bool)  # type: ignore[misc]
    ),
    ("POST", "/api/notifications/send"): Operation("send_notification", {200: REHEARSAL, 201: SEND}),
    ("GET", "/api/notifications/user/{user_id}"): _one(
        "list_notifications", listed("NotificationsAnswer", "notifications", records.Notification, unread_count=int)
    ),
    ("POST", "/api/notifications/read-all/{user_id}"): _one(
        "read_all_notifications", answer("ReadAllAnswer", updated=int)
    ),
    **{
        ("POST", f"/api/notifications/{verb}/{{notification_id}}"): _one(f"{name}_notification", MOVED)
        for verb, name in (
            ("read", "read"), ("unread", "unread"), ("archive", "archive"), ("unarchive", "unarchive"),
            ("cancel", "cancel"), ("reschedule", "reschedule"), ("retry", "retry"), ("snooze", "snooze"),
        )
    },
    ("POST", "/api/notifications/preferences"): _one(
        "set_preferences", answer("PreferencesAnswer", preferences=list[W(records.Preference)])  # type: ignore[misc]
    ),
    ("GET", "/api/notifications/preferences/{user_id}"): _one(
        "get_preferences",
        answer(
            "PreferenceMatrixAnswer", preferences=list[W(records.Preference)], quiet_hours=W(QuietSetting),  # type: ignore[misc]
            digest=dict[str, W(DigestChoice)], types=list[W(records.TypePreference)],  # type: ignore[misc]
        ),
    ),
    ("GET", "/api/notifications/{notification_id}"): _one(
        "get_notification", answer("NotificationDetailAnswer", notification=DETAIL)
    ),
    ("POST", "/api/devices/register"): Operation("register_device", {200: DEVICE_ID, 201: DEVICE_ID}),
    ("GET", "/api/devices/user/{user_id}"): _one("list_devices", listed("DevicesAnswer", "devices", records.Device)),
    ("DELETE", "/api/devices/{device_token_id}"): _one(
        "remove_device", answer("DeviceAnswer", device=W(records.Device))
    ),
    ("GET", "/api/templates"): _one("list_templates", listed("TemplatesAnswer", "templates", records.Template)),
    ("POST", "/api/templates"): _one("create_template", TEMPLATE, 201),
    ("POST", "/api/templates/{name}/preview"): _one(
        "preview_template", answer("PreviewAnswer", preview=W(records.Rendered))
    ),
    ("GET", "/api/templates/{name}"): _one("get_template", TEMPLATE),
    ("PUT", "/api/templates/{name}"): _one("change_template", TEMPLATE),
    ("DELETE", "/api/templates/{name}"): _one(
        "remove_template", answer("TemplatesRemovedAnswer", deleted=list[W(records.Template)])  # type: ignore[misc]
    ),
    ("GET", "/api/notification-types"): _one(
        "list_notification_types",
        listed("NotificationTypesAnswer", "notification_types", records.NotificationType),
    ),
    ("POST", "/api/notification-types"): Operation("declare_notification_type", {200: TYPE, 201: TYPE}),
    ("GET", "/api/schedules"): _one("list_schedules", listed("SchedulesAnswer", "schedules", Schedule)),
    ("POST", "/api/schedules"): _one("create_schedule", SCHEDULE, 201),
    ("POST", "/api/schedules/{schedule_id}/run"): _one(
        "run_schedule",
        answer("ScheduleRunAnswer", schedule=W(Schedule), notifications=list[SENT]),  # type: ignore[valid-type]
        201,
    ),
    ("GET", "/api/schedules/{schedule_id}"): _one("get_schedule", SCHEDULE),
    ("PUT", "/api/schedules/{schedule_id}"): _one("change_schedule", SCHEDULE),
    ("DELETE", "/api/schedules/{schedule_id}"): _one("remove_schedule", SCHEDULE),
    ("GET", "/api/rules"): _one("list_rules", listed("RulesAnswer", "rules", Rule)),
    ("POST", "/api/rules"): _one("create_rule", RULE, 201),
    ("POST", "/api/rules/dry-run"): _one("dry_run_rule_draft", DRY_RUN),
    ("GET", "/api/rules/{name}"): _one("get_rule", RULE),
    ("PUT", "/api/rules/{name}"): _one("change_rule", RULE),
    ("DELETE", "/api/rules/{name}"): _one("remove_rule", RULE),
    ("POST", "/api/rules/{name}/dismiss-error"): _one("dismiss_rule_error", RULE),
    ("POST", "/api/rules/{name}/dry-run"): _one("dry_run_rule", DRY_RUN),
    ("GET", "/api/channels"): _one(
        "list_channels", answer("ChannelsAnswer", channels=list[W(ChannelState)])  # type: ignore[misc]
    ),
    ("POST", "/api/channels/{name}/test"): _one(
        "test_channel", answer("ChannelTestAnswer", results=list[W(ChannelTest)])  # type: ignore[misc]
    ),
    ("GET", "/api/web-push-key"): _one("get_web_push_key", answer("WebPushKeyAnswer", public_key=str)),
    ("POST", "/api/notifications/digest/{user_id}/send-now"): _one(
        "send_digest_now", plus("DigestReleaseAnswer", DigestRelease)
    ),
    ("GET", "/api/users/{user_id}/contacts"): _one("get_contacts", CONTACTS),
    ("POST", "/api/users/{user_id}/contacts"): _one("set_contacts", CONTACTS),
    ("PUT", "/api/notifications/quiet-hours/{user_id}"): _one(
        "set_quiet_hours", answer("QuietHoursAnswer", quiet_hours=W(QuietSetting))
    ),
    ("POST", "/api/notifications/do-not-disturb/{user_id}"): _one(
        "set_do_not_disturb", answer("DoNotDisturbAnswer", do_not_disturb_until=Moment | None)
    ),
    ("PUT", "/api/notifications/digest/{user_id}"): _one(
        "set_digest", answer("DigestAnswer", digest=dict[str, W(DigestChoice)])  # type: ignore[misc]
    ),
    **{
        ("GET", f"/api/export/{what}"): Operation(
            f"export_{what}", PLAIN, tuple(kind.partition(";")[0] for kind in MEDIA_TYPES.values())
        )
        for what in ("activities", "sessions", "notifications")
    },
    **{
        ("POST", f"/api/import/{what}"): _one(f"import_{what}", BATCH)
        for what in ("activities", "sessions", "notifications")
    },
    ("GET", "/api/users/{user_id}/export"): _one(
        "export_user", part("UserExport", user_id=str, exported_at=Moment, consent=dict[str, Any],
                            figures=dict[str, Any], preferences=list[dict[str, Any]], contacts=dict[str, Any] | None,
                            quiet_hours=dict[str, Any], digests=dict[str, Any], devices=list[dict[str, Any]],
                            rules=list[dict[str, Any]], schedules=list[dict[str, Any]],
                            activities=list[dict[str, Any]], sessions=list[dict[str, Any]],
                            notifications=list[dict[str, Any]]),
    ),
    ("GET", "/api/users/{user_id}/consent"): _one("get_consent", CONSENT),
    ("POST", "/api/users/{user_id}/consent"): _one("set_consent", CONSENT),
    ("POST", "/api/users/{user_id}/readmit"): _one("readmit_user", answer("ReadmitAnswer", readmitted=bool)),
    ("POST", "/api/prune"): _one("prune", plus("PruneAnswer", PruneResult, dry_run=bool)),
    ("DELETE", "/api/users/{user_id}"): _one(
        "erase_user",
        answer("EraseAnswer", erased_at=Moment, removed=dict[str, int], backups_removed=int, swept=bool,
               remains=list[str]),
    ),
    ("GET", "/api/health"): _one(
        "get_health",
        answer(
            "HealthAnswer", status=Literal["ok", "degraded"], version=str, uptime_seconds=float, storage=str,
            damaged_rows=int, threads=str,
        ),
    ),
    ("POST", "/api/proof"): _one("prove_server", answer("ProofAnswer", proof=str)),
    ("GET", "/api/keys"): _one("list_keys", listed("KeysAnswer", "keys", records.ApiKey)),
    ("POST", "/api/keys"): _one(
        "create_key", answer("KeyCreatedAnswer", key=str, name=str, scopes=list[records.Scope]), 201
    ),
    ("DELETE", "/api/keys/{name}"): _one("revoke_key", answer("KeyAnswer", key=W(records.ApiKey))),
    ("POST", "/api/launch"): _one("create_launch_link", answer("LaunchAnswer", url=str), 201),
    ("GET", "/api/metrics"): Operation("get_metrics", PLAIN, ("text/plain",)),
    ("GET", "/api/stream"): Operation("stream_events", PLAIN, ("text/event-stream",)),
}  # fmt: skip
"""(method, path) → operation."""
