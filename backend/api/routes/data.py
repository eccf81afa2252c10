"""Export, import, erasure, pruning, and user consent."""

from __future__ import annotations

from typing import Literal

from flashflow.backend.activity.consent import Consent
from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.parameters import path_user, time_range
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.api.framework.serializers import to_json_types
from flashflow.backend.api.framework.streamed_response import streamed
from flashflow.backend.api.routes.activity import batched
from flashflow.backend.data.formats import MEDIA_TYPES, Format, What
from flashflow.backend.data.import_activities import ImportIn, import_activities_write
from flashflow.backend.data.import_notifications import ImportNotificationsIn, import_notifications_write
from flashflow.backend.data.import_sessions import ImportSessionsIn, import_sessions_write
from flashflow.backend.data.retention import Kind
from flashflow.backend.schemas.requests import AppName, Input, Moment, UserId
from flashflow.backend.schemas.values import timestamp_ms
from flashflow.backend.store.privacy.export import ExportFilter


class ExportQuery(Input, frozen=True, kw_only=True):
    """Rows to export and their format; ``since`` is included, ``until`` is not."""

    format: Format = "jsonl"
    user_id: UserId | None = None
    app: AppName | None = None
    since: Moment | None = None
    until: Moment | None = None


class ConsentIn(Input, frozen=True, kw_only=True):
    """Whether the user agrees to be tracked."""

    tracking: bool


class EraseQuery(Input, frozen=True, kw_only=True):
    """``even_if_unknown=true``: record the erasure even of a user without stored rows."""

    even_if_unknown: Literal["true", "false"] = "false"


class PruneIn(Input, frozen=True, kw_only=True):
    """Rows to delete: older than ``before``. ``dry_run``: only count them."""

    before: Moment
    what: Kind = "all"
    dry_run: bool = False


async def _export(call: ApiRequest, what: What) -> ApiResponse:
    query: ExportQuery = call.query or ExportQuery()
    app = call.app_filter(query.app)
    since, until = time_range(query.since, query.until)
    filters = ExportFilter(user_id=query.user_id, app=app, since=since, until=until)
    pieces = call.services.exports.rows(what, query.format, filters)
    return await streamed(call, pieces, MEDIA_TYPES[query.format], f"{what}.{query.format}")


async def export_activities(call: ApiRequest) -> ApiResponse:
    return await _export(call, "activities")


async def export_sessions(call: ApiRequest) -> ApiResponse:
    return await _export(call, "sessions")


async def export_notifications(call: ApiRequest) -> ApiResponse:
    return await _export(call, "notifications")


async def import_activities(call: ApiRequest) -> ApiResponse:
    body: ImportIn = call.body
    write = import_activities_write(call.services.activity, body.activities, call.caller.app)
    write.size = len(call.raw)
    return batched(await call.services.activity_writes.run(write))


async def import_sessions(call: ApiRequest) -> ApiResponse:
    body: ImportSessionsIn = call.body
    write = import_sessions_write(call.services.activity, body.sessions, call.caller.app)
    write.size = len(call.raw)
    return batched(await call.services.activity_writes.run(write))


async def import_notifications(call: ApiRequest) -> ApiResponse:
    body: ImportNotificationsIn = call.body
    services = call.services
    write = import_notifications_write(services.notifications.clock, body.notifications, call.caller.app)
    write.size = len(call.raw)
    return batched(await services.notification_writes.run(write))


async def export_user(call: ApiRequest) -> ApiResponse:
    pieces = call.services.exports.user(path_user(call))
    return await streamed(call, pieces, "application/json", "person.json")


async def erase(call: ApiRequest) -> ApiResponse:
    user_id = path_user(call)
    query: EraseQuery = call.query or EraseQuery()
    unknown = query.even_if_unknown == "true"
    erased = await call.wait(lambda: call.services.erasing.erase(user_id, even_if_unknown=unknown))
    return success(**to_json_types(erased))


async def readmit(call: ApiRequest) -> ApiResponse:
    user_id = path_user(call)
    return success(readmitted=await call.wait(lambda: call.services.erasing.readmit(user_id)))


async def get_consent(call: ApiRequest) -> ApiResponse:
    user_id = path_user(call)
    return success(consent=to_json_types(await call.read(lambda: call.services.activity.admission.consent(user_id))))


async def set_consent(call: ApiRequest) -> ApiResponse:
    body: ConsentIn = call.body
    write = call.services.activity.admission.consent_write(path_user(call), body.tracking)
    consent: Consent = await call.services.activity_writes.run(write)
    return success(consent=to_json_types(consent))


async def prune(call: ApiRequest) -> ApiResponse:
    body: PruneIn = call.body
    before_ms = timestamp_ms("before", body.before)
    if body.dry_run:
        result = await call.wait(lambda: call.services.retention.would_prune(before_ms, body.what))
    else:
        result = await call.wait(lambda: call.services.retention.prune(before_ms, body.what, seconds=PRUNE_S))
    return success(dry_run=body.dry_run, **to_json_types(result))


PRUNE_S = 4.0
"""Seconds until the response reports that more rows are left."""

_ROWS = "the rows as a streamed file: JSON Lines, CSV or Parquet"
ENDPOINTS = (
    Endpoint(
        method="GET", path="/api/export/activities", scope="read", handler=export_activities, query=ExportQuery,
        summary="Export activities", answer=_ROWS,
    ),
    Endpoint(
        method="GET", path="/api/export/sessions", scope="read", handler=export_sessions, query=ExportQuery,
        summary="Export sessions", answer=_ROWS,
    ),
    Endpoint(
        method="GET", path="/api/export/notifications", scope="read", handler=export_notifications, query=ExportQuery,
        summary="Export notifications", answer=_ROWS,
    ),
    Endpoint(
        method="POST", path="/api/import/activities", scope="admin", handler=import_activities, body=ImportIn,
        summary="Import up to 1,000 exported activities with their ids, apps, times and IP addresses",
        answer="accepted, duplicates, and each rejected row with its errors",
    ),
    Endpoint(
        method="POST", path="/api/import/sessions", scope="admin", handler=import_sessions, body=ImportSessionsIn,
        summary="Import up to 1,000 exported sessions; activities and pages are imported as activities",
        answer="accepted, duplicates, and each rejected row with its errors",
    ),
    Endpoint(
        method="POST", path="/api/import/notifications", scope="admin", handler=import_notifications,
        body=ImportNotificationsIn, summary="Import up to 1,000 exported notifications; none is sent",
        answer="accepted, duplicates, and each rejected row with its errors",
    ),
    Endpoint(
        method="GET", path="/api/users/{user_id:path}/export", scope="admin", handler=export_user,
        summary="Export everything stored about a user", answer="one JSON document, streamed",
    ),
    Endpoint(
        method="GET", path="/api/users/{user_id:path}/consent", scope="manage", handler=get_consent,
        summary="Whether a user is tracked", answer="consent: tracking, updated_at, setting, tracked",
    ),
    Endpoint(
        method="POST", path="/api/users/{user_id:path}/consent", scope="manage", handler=set_consent, body=ConsentIn,
        summary="Set whether a user agrees to be tracked", answer="consent: tracking, updated_at, setting, tracked",
    ),
    Endpoint(
        method="POST", path="/api/users/{user_id:path}/readmit", scope="admin", handler=readmit,
        summary="Allow an erased user to be stored again", answer="readmitted: whether the user had been erased",
    ),
    Endpoint(
        method="POST", path="/api/prune", scope="admin", handler=prune, body=PruneIn,
        summary="Delete rows older than a time; analytics stay",
        answer="activities, sessions, notifications: numbers of rows; more: repeat the request",
    ),
    Endpoint(
        method="DELETE", path="/api/users/{user_id:path}", scope="admin", handler=erase,
        query=EraseQuery, summary="Erase a user from both databases, their free pages and the backups",
        answer="erased_at, removed: rows of each kind, backups_removed, remains; repeated: zeros; 404 if "
        "nothing is stored about the user, unless even_if_unknown=true",
    ),
)  # fmt: skip
