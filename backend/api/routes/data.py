"""Export, import, erasure, pruning, and user consent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from flashflow.backend.activity.consent import Consent
from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.response_schemas import BATCH, DETAIL, part, response_type
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.api.framework.streamed_response import streamed
from flashflow.backend.api.routes.activity import batched
from flashflow.backend.data.formats import MEDIA_TYPES, Format, What
from flashflow.backend.data.import_activities import ImportIn, import_activities_write
from flashflow.backend.data.import_notifications import ImportNotificationsIn, import_notifications_write
from flashflow.backend.data.import_sessions import ImportSessionsIn, import_sessions_write
from flashflow.backend.data.retention import Kind, PruneResult
from flashflow.backend.schemas.records import Activity, BatchResult, Device, Preference, Session, UserAnalytics
from flashflow.backend.schemas.requests import AppName, Input, Timestamp, UserId
from flashflow.backend.schemas.values import time_range, timestamp_ms
from flashflow.backend.store.engine.writer import Write
from flashflow.backend.store.notifications.delivery_settings import Contact, DigestChoice, QuietSetting
from flashflow.backend.store.notifications.schedules import Schedule
from flashflow.backend.store.privacy.export import ExportFilter


class ExportQuery(Input, frozen=True, kw_only=True):
    """Rows to export and their format; ``since`` is included, ``until`` is not."""

    format: Format = "jsonl"
    user_id: UserId | None = None
    app: AppName | None = None
    since: Timestamp | None = None
    until: Timestamp | None = None


class ConsentIn(Input, frozen=True, kw_only=True):
    """Whether the user agrees to be tracked."""

    tracking: bool


class EraseQuery(Input, frozen=True, kw_only=True):
    """``even_if_unknown=true``: record the erasure even of a user without stored rows."""

    even_if_unknown: Literal["true", "false"] = "false"


class PruneIn(Input, frozen=True, kw_only=True):
    """Rows to delete: older than ``before``. ``dry_run``: only count them."""

    before: Timestamp
    what: Kind = "all"
    dry_run: bool = False


def _export(what: What) -> Endpoint:
    """Return the endpoint that streams the rows of one kind."""

    async def export(call: ApiRequest) -> ApiResponse:
        query: ExportQuery = call.query or ExportQuery()
        app = call.app_filter(query.app)
        since, until = time_range(query.since, query.until)
        filters = ExportFilter(user_id=query.user_id, app=app, since=since, until=until)
        pieces = call.services.exports.rows(what, query.format, filters)
        return await streamed(call, pieces, MEDIA_TYPES[query.format], f"{what}.{query.format}")

    return Endpoint(
        method="GET", path=f"/api/export/{what}", scope="read", handler=export, query=ExportQuery,
        operation=f"export_{what}", summary=f"Export {what}",
        answer="the rows as a streamed file: JSON Lines, CSV or Parquet",
        media_types=tuple(kind.partition(";")[0] for kind in MEDIA_TYPES.values()),
    )  # fmt: skip


def _import(
    what: What,
    body: type[Input],
    example: Mapping[str, str | int],
    write_for: Callable[[ApiRequest], Write[Any, BatchResult]],
    summary: str,
) -> Endpoint:
    """Return the endpoint that imports exported rows of one kind."""

    async def import_rows(call: ApiRequest) -> ApiResponse:
        services = call.services
        writes = services.notification_writes if what == "notifications" else services.activity_writes
        write = write_for(call)
        write.size = len(call.raw)
        return batched(await writes.run(write))

    return Endpoint(
        method="POST", path=f"/api/import/{what}", scope="admin", handler=import_rows, body=body,
        operation=f"import_{what}", example={what: [example]}, summary=summary,
        answer="accepted, duplicates, and each rejected row with its errors", responses={200: BATCH},
    )  # fmt: skip


def _activities_write(call: ApiRequest) -> Write[Any, BatchResult]:
    return import_activities_write(call.services.activity, call.body.activities, call.caller.app)


def _sessions_write(call: ApiRequest) -> Write[Any, BatchResult]:
    return import_sessions_write(call.services.activity, call.body.sessions, call.caller.app)


def _notifications_write(call: ApiRequest) -> Write[Any, BatchResult]:
    return import_notifications_write(call.services.notifications.clock, call.body.notifications, call.caller.app)


async def export_user(call: ApiRequest) -> ApiResponse:
    pieces = call.services.exports.user(call.user_id)
    return await streamed(call, pieces, "application/json", "person.json")


async def erase_user(call: ApiRequest) -> ApiResponse:
    user_id = call.user_id
    query: EraseQuery = call.query or EraseQuery()
    unknown = query.even_if_unknown == "true"
    erased = await call.wait(lambda: call.services.erasing.erase(user_id, even_if_unknown=unknown))
    return success(**msgspec.structs.asdict(erased))


async def readmit_user(call: ApiRequest) -> ApiResponse:
    user_id = call.user_id
    return success(readmitted=await call.wait(lambda: call.services.erasing.readmit(user_id)))


async def get_consent(call: ApiRequest) -> ApiResponse:
    user_id = call.user_id
    return success(consent=await call.read(lambda: call.services.activity.admission.consent(user_id)))


async def set_consent(call: ApiRequest) -> ApiResponse:
    body: ConsentIn = call.body
    write = call.services.activity.admission.consent_write(call.user_id, body.tracking)
    return success(consent=await call.services.activity_writes.run(write))


async def prune(call: ApiRequest) -> ApiResponse:
    body: PruneIn = call.body
    before_ms = timestamp_ms("before", body.before)
    if body.dry_run:
        result = await call.wait(lambda: call.services.retention.would_prune(before_ms, body.what))
    else:
        result = await call.wait(lambda: call.services.retention.prune(before_ms, body.what, seconds=PRUNE_S))
    return success(dry_run=body.dry_run, **msgspec.structs.asdict(result))


PRUNE_S = 4.0
"""Seconds until the response reports that more rows are left."""

RULE_STATE: Any = part("UserRuleState", rule=str, app=str, times=list[Timestamp], last_fired_at=Timestamp | None)
MODEL_ROW: Any = part("UserModelRow", model=str, fields=dict[str, Any], created_at=Timestamp)
CONSENT = response_type("ConsentAnswer", consent=Consent)
ENDPOINTS = (
    _export("activities"),
    _export("sessions"),
    _export("notifications"),
    _import(
        "activities", ImportIn, {"user_id": "ada", "activity_type": "export", "timestamp": "2026-01-02T08:00:00Z"},
        _activities_write,
        "Import up to 1,000 exported activities with their ids, apps, times and IP addresses",
    ),
    _import(
        "sessions", ImportSessionsIn, {"id": "visit-0", "user_id": "ada", "start_time": "2026-01-02T08:00:00Z"},
        _sessions_write,
        "Import up to 1,000 exported sessions; activities and pages are imported as activities",
    ),
    _import(
        "notifications", ImportNotificationsIn,
        {"id": "old-1", "user_id": "ada", "title": "Build finished", "message": "All tests passed.", "status": "read",
         "created_at": "2026-01-02T08:00:00Z", "inbox": "read", "read_at": "2026-01-02T09:00:00Z"},
        _notifications_write,
        "Import up to 1,000 exported notifications; none is sent",
    ),
    Endpoint(
        method="GET", path="/api/users/{user_id:path}/export", scope="admin", handler=export_user,
        summary="Export everything stored about a user", answer="one JSON document, streamed",
        responses={200: part(
            "UserExport", user_id=str, exported_at=Timestamp, consent=Consent, figures=UserAnalytics,
            preferences=list[Preference], contacts=Contact | None, quiet_hours=QuietSetting,
            digests=dict[str, DigestChoice], devices=list[Device],
            rules=list[RULE_STATE],
            schedules=list[Schedule], activities=list[Activity], sessions=list[Session], notifications=list[DETAIL],
            rows=list[MODEL_ROW],
        )},
    ),
    Endpoint(
        method="GET", path="/api/users/{user_id:path}/consent", scope="manage", handler=get_consent,
        summary="Whether a user is tracked", answer="consent: tracking, updated_at, setting, tracked",
        responses={200: CONSENT},
    ),
    Endpoint(
        method="POST", path="/api/users/{user_id:path}/consent", scope="manage", handler=set_consent, body=ConsentIn,
        example={"tracking": True}, refusals=(410,),
        summary="Set whether a user agrees to be tracked", answer="consent: tracking, updated_at, setting, tracked",
        responses={200: CONSENT},
    ),
    Endpoint(
        method="POST", path="/api/users/{user_id:path}/readmit", scope="admin", handler=readmit_user,
        summary="Allow an erased user to be stored again", answer="readmitted: whether the user had been erased",
        responses={200: response_type("ReadmitAnswer", readmitted=bool)},
    ),
    Endpoint(
        method="POST", path="/api/prune", scope="admin", handler=prune, body=PruneIn,
        example={"before": "2020-01-01T00:00:00Z", "dry_run": True},
        summary="Delete rows older than a time; analytics stay",
        answer="activities, sessions, notifications: numbers of rows; more: repeat the request",
        responses={200: response_type("PruneAnswer", PruneResult, dry_run=bool)},
    ),
    Endpoint(
        method="DELETE", path="/api/users/{user_id:path}", scope="admin", handler=erase_user,
        query=EraseQuery, summary="Erase a user from both databases, their free pages and the backups",
        answer="erased_at, removed: rows of each kind, backups_removed, remains; repeated: zeros; 404 if "
        "nothing is stored about the user, unless even_if_unknown=true",
        responses={200: response_type(
            "EraseAnswer", erased_at=Timestamp, removed=dict[str, int], backups_removed=int, swept=bool,
            remains=list[str],
        )},
    ),
)  # fmt: skip
