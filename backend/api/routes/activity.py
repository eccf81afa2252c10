"""Activities, sessions and user analytics: the endpoints over UserActivityService."""

from __future__ import annotations

import msgspec
from msgspec import UnsetType

from flashflow.backend.activity.consent import NO_CONSENT
from flashflow.backend.activity.ingest import Origin
from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.pagination import Page
from flashflow.backend.api.framework.response_schemas import BATCH, SUCCESS, page_type, response_type
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.api.framework.serializers import activity_row_json, session_row_json
from flashflow.backend.api.http.problem_json import FieldProblem
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.schemas.records import Activity, BatchResult, Session, SessionStarted, Tracked, UserAnalytics
from flashflow.backend.schemas.requests import (
    ActivityIn,
    AppName,
    BatchIn,
    Id,
    SessionIn,
    Timestamp,
    TypeName,
    UserId,
)
from flashflow.backend.schemas.values import time_range
from flashflow.backend.store.activity.activities import activity_rows, session_rows
from flashflow.backend.store.engine.sql import PAGE_BYTES


class ActivityQuery(Page, frozen=True, kw_only=True):
    """The filters of GET /api/activity; ``since`` is included, ``until`` is not."""

    user_id: UserId | None = None
    activity_type: TypeName | None = None
    session_id: Id | None = None
    app: AppName | None = None
    since: Timestamp | None = None
    until: Timestamp | None = None


def origin(call: ApiRequest, app: str | None) -> Origin:
    """Return the row's origin: app, IP address and user agent."""
    return Origin(call.app_for(app), call.ip_address, call.user_agent)


async def track_activity(call: ApiRequest) -> ApiResponse:
    body: ActivityIn = call.body
    write = call.services.activity.track_write(body, origin(call, body.app))
    return await call.create(call.services.activity_writes, write, _tracked)


def _check_track(call: ApiRequest) -> None:
    faults = ErrorCollector()
    with faults:
        call.app_for(call.body.app)
    with faults:
        call.services.activity.check(call.body)
    faults.done()


def _check_app(call: ApiRequest) -> None:
    call.app_for(call.body.app)


def _check_range(call: ApiRequest) -> None:
    time_range(call.query.since, call.query.until)


def _tracked(tracked: Tracked) -> ApiResponse:
    if not tracked.stored:
        return success(200, activity_id=None, stored=False, reason=tracked.reason)
    if tracked.duplicate:
        return success(200, activity_id=tracked.activity_id, duplicate=True)
    return success(201, activity_id=tracked.activity_id)


async def track_batch(call: ApiRequest) -> ApiResponse:
    body: BatchIn = call.body
    may_name_app = call.caller.sees is None
    key = call.headers.get(b"idempotency-key")
    write = call.services.activity.batch_write(
        body.activities,
        body.sent_at,
        origin(call, None),
        may_name_app=may_name_app,
        key=None if key is None else key.decode("latin-1"),
    )
    return await call.create(call.services.activity_writes, write, batched)


def batched(result: BatchResult) -> ApiResponse:
    """Return the response to a batch: counts, and each rejected row with its errors."""
    rejected = [
        {"index": row.index, "errors": [FieldProblem(field, message) for field, message in row.errors]}
        for row in result.rejected
    ]
    return success(200, accepted=result.accepted, duplicates=result.duplicates, rejected=rejected)


async def list_activities(call: ApiRequest) -> ApiResponse:
    query: ActivityQuery = call.query or ActivityQuery()
    since, until = time_range(query.since, query.until)
    filters = msgspec.structs.asdict(query) | {"app": call.app_filter(query.app), "since": since, "until": until}

    def read() -> ApiResponse:
        store = call.services.activity.store
        rows, following = store.read(lambda conn: activity_rows(conn, **filters, most_bytes=PAGE_BYTES))
        return success(activities=[activity_row_json(row) for row in rows], next_cursor=following)

    return await call.read(read)


async def start_session(call: ApiRequest) -> ApiResponse:
    body: SessionIn = call.body
    write = call.services.activity.start_session_write(body, origin(call, body.app))
    return await call.create(call.services.activity_writes, write, _started)


def _started(started: SessionStarted) -> ApiResponse:
    if started.session is None:
        return success(200, session_id=None, stored=False, reason=NO_CONSENT)
    return success(201 if started.created else 200, session_id=started.session.id)


async def end_session(call: ApiRequest) -> ApiResponse:
    write = call.services.activity.end_session_write(call.params["session_id"], call.caller.sees)
    session = await call.services.activity_writes.run(write)
    return success(session=session)


async def keep_session_alive(call: ApiRequest) -> ApiResponse:
    await call.services.activity_writes.run(
        call.services.activity.heartbeat_write(call.params["session_id"], call.caller.sees)
    )
    return success()


async def list_sessions(call: ApiRequest) -> ApiResponse:
    user_id, query = call.user_id, call.query or Page()
    page = (user_id, call.caller.sees, query.limit, query.cursor)

    def read() -> ApiResponse:
        rows, following = call.services.activity.store.read(lambda conn: session_rows(conn, *page, PAGE_BYTES))
        return success(sessions=[session_row_json(row) for row in rows], next_cursor=following)

    return await call.read(read)


async def get_user_analytics(call: ApiRequest) -> ApiResponse:
    user_id = call.user_id
    analytics = await call.read(lambda: call.services.activity.get_user_analytics(user_id, app=call.caller.sees))
    return success(analytics=analytics)


_UNSTORED = {"stored": bool | UnsetType, "reason": str | UnsetType}
TRACKED = response_type("TrackAnswer", activity_id=str | None, duplicate=bool | UnsetType, **_UNSTORED)
STARTED = response_type("SessionStartAnswer", session_id=str | None, **_UNSTORED)
ENDPOINTS = (
    Endpoint(
        method="POST", path="/api/activity/track", scope="track", handler=track_activity, body=ActivityIn, creates=True,
        example={"user_id": "ada", "activity_type": "page_view", "page_url": "/pricing", "metadata": {"plan": "pro"}},
        refusals=(409, 410),
        check=_check_track,
        summary="Store one activity",
        answer="201 activity_id; 200 and duplicate for a known activity_id; 200 and stored false without consent",
        responses={200: TRACKED, 201: TRACKED},
    ),
    Endpoint(
        method="POST", path="/api/activity/batch", scope="track", handler=track_batch, body=BatchIn, creates=True,
        example={"activities": [{"user_id": "ada", "activity_type": "export", "activity_id": "export-1"}]},
        summary="Store up to 1,000 activities", answer="accepted, duplicates, and each rejected row with its errors",
        responses={200: BATCH},
    ),
    Endpoint(
        method="GET", path="/api/activity", scope="read", handler=list_activities, query=ActivityQuery,
        check=_check_range,
        summary="List activities, newest first", answer="activities, next_cursor",
        responses={200: page_type("ActivitiesAnswer", "activities", Activity)},
    ),
    Endpoint(
        method="POST", path="/api/session/start", scope="track", handler=start_session, body=SessionIn, creates=True,
        example={"user_id": "ada", "session_id": "visit-1", "device_info": {"os": "Debian"}}, refusals=(409, 410),
        check=_check_app,
        summary="Open a session", answer="201 session_id; 200 for an existing session",
        responses={200: STARTED, 201: STARTED},
    ),
    Endpoint(
        method="POST", path="/api/session/end/{session_id:path}", scope="track", handler=end_session,
        summary="End a session", answer="session; repeated: the same response",
        responses={200: response_type("SessionAnswer", session=Session)},
    ),
    Endpoint(
        method="POST", path="/api/session/heartbeat/{session_id:path}", scope="track", handler=keep_session_alive,
        refusals=(409,),
        summary="Keep a session alive", answer="success; 409 if it has ended", responses={200: SUCCESS},
    ),
    Endpoint(
        method="GET", path="/api/sessions/user/{user_id:path}", scope="read", handler=list_sessions, query=Page,
        summary="List a user's sessions, newest first", answer="sessions, next_cursor",
        responses={200: page_type("SessionsAnswer", "sessions", Session)},
    ),
    Endpoint(
        method="GET", path="/api/analytics/user/{user_id:path}", scope="read", handler=get_user_analytics,
        summary="A user's analytics", answer="analytics; a user never seen: zeros and nulls",
        responses={200: response_type("UserAnalyticsAnswer", analytics=UserAnalytics)},
    ),
)  # fmt: skip
