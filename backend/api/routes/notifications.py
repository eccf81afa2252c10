"""Notifications: send, list, inbox moves, reschedule, snooze."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, UnsetType

from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.pagination import Page
from flashflow.backend.api.framework.response_schemas import DECIDED, DETAIL, SENT, page_type, part, response_type
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.api.framework.serializers import to_json_types, with_times_as_text
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import Erased
from flashflow.backend.schemas.records import (
    DryRunResult,
    ListStatus,
    Notification,
    NotificationStatus,
    Priority,
    Sent,
)
from flashflow.backend.schemas.requests import Channel, RescheduleIn, SendIn, SendQuery, SnoozeIn, Timestamp, TypeName
from flashflow.backend.schemas.values import time_range
from flashflow.backend.store.engine.sql import PAGE_BYTES
from flashflow.backend.store.engine.writer import Write
from flashflow.backend.store.notifications.notifications import ListFilter


class NotificationQuery(Page, frozen=True, kw_only=True):
    """The filters of a user's notifications; without ``status``: the inbox (unread and read)."""

    status: ListStatus | None = None
    notification_type: TypeName | None = None
    channel: Channel | None = None
    priority: Priority | None = None
    q: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    since: Timestamp | None = None
    until: Timestamp | None = None


async def send_notification(call: ApiRequest) -> ApiResponse:
    body: SendIn = call.body
    service = call.services.notifications
    many = body.user_ids is not None
    if call.query is not None and call.query.dry_run == "true":
        return await _dry_run(call, body, many)
    write = service.send_write(body, call.app_for(body.app), call.caller.sees)

    def render(sent: tuple[Sent, ...]) -> ApiResponse:
        if many:
            return success(201, notifications=sent, **_refused_users(body, sent))
        (one,) = sent
        return success(201, notification_id=one.notification_id, status=one.status, deliveries=one.deliveries)

    return await call.create(call.services.notification_writes, write, render)


def _check_send(call: ApiRequest) -> None:
    faults = ErrorCollector()
    with faults:
        call.app_for(call.body.app)
    with faults:
        call.services.notifications.send_write(call.body, call.caller.app, call.caller.sees)
    faults.done()


def _refused_users(body: SendIn, sent: tuple[Sent, ...]) -> dict[str, Any]:
    """Return the requested users that are erased, as ``refused``; nothing if there are none."""
    sent_to = {one.user_id for one in sent}
    refused = [user for user in dict.fromkeys(body.user_ids or ()) if user not in sent_to]
    return {"refused": [{"user_id": user, "code": Erased.code} for user in refused]} if refused else {}


async def _dry_run(call: ApiRequest, body: SendIn, many: bool) -> ApiResponse:
    app, owner = call.app_for(body.app), call.caller.sees
    results = await call.read(lambda: call.services.notifications.dry_run(body, app, owner))
    if many:
        return success(dry_run=True, notifications=results)
    return success(dry_run=True, **msgspec.structs.asdict(results[0]))


async def snooze_notification(call: ApiRequest) -> ApiResponse:
    write = call.services.notifications.snooze_write(_target(call), call.body.until)
    return await _moved(call, write)


async def reschedule_notification(call: ApiRequest) -> ApiResponse:
    write = call.services.notifications.reschedule_write(_target(call), call.body.scheduled_at)
    return await _moved(call, write)


def _target(call: ApiRequest) -> tuple[str, str | None]:
    """The notification's id, and the only app that may own it (None: any)."""
    return call.params["notification_id"], call.caller.sees


async def _moved(call: ApiRequest, write: Write[Any, Notification]) -> ApiResponse:
    return success(notification=await call.services.notification_writes.run(write))


def _check_list(call: ApiRequest) -> tuple[int | None, int | None]:
    """Return the time range. Raises ValidationError for it and for an unknown channel."""
    query: NotificationQuery = call.query
    if query.since is None and query.until is None and query.channel is None:
        return None, None
    since, until = None, None
    faults = ErrorCollector()
    with faults:
        since, until = time_range(query.since, query.until)
    with faults:
        call.services.notifications.channels.check("channel", [query.channel] if query.channel else [])
    faults.done()
    return since, until


async def list_notifications(call: ApiRequest) -> ApiResponse:
    user_id, query = call.user_id, call.query or NotificationQuery()
    since, until = (None, None) if call.query is None else _check_list(call)
    filters = ListFilter(  # field by field: asdict takes ten times as long, a microsecond of this busiest read
        user_id=user_id,
        app=call.caller.sees,
        status=query.status,
        notification_type=query.notification_type,
        channel=query.channel,
        priority=query.priority,
        q=query.q,
        since=since,
        until=until,
        limit=query.limit,
        cursor=query.cursor,
    )

    def page(most_bytes: int) -> tuple[bytes, bool]:
        services = call.services
        return services.notifications.store.read(lambda conn: services.pages.page(conn, filters, most_bytes))

    if filters.is_bounded:  # faster on the loop than a thread switch, unless the rows are large
        body, cut = page(LOOP_BYTES)
        if not cut:
            return ApiResponse(200, body)
    body, _ = await call.read(lambda: page(PAGE_BYTES))
    return ApiResponse(200, body)


LOOP_BYTES = 128 * 1024
"""Largest page read on the event loop; a larger one is read again in a thread."""


async def get_notification(call: ApiRequest) -> ApiResponse:
    service = call.services.notifications
    detail = await call.read(lambda: service.get_notification(*_target(call)))
    deliveries = with_times_as_text(detail.deliveries)
    return success(notification=to_json_types(detail.notification) | {"deliveries": deliveries})


async def read_all_notifications(call: ApiRequest) -> ApiResponse:
    write = call.services.notifications.read_all_write(call.user_id, call.caller.sees)
    updated = await call.services.notification_writes.run(write)
    return success(updated=len(updated))


def _moving(verb: str, scope: str, summary: str) -> Endpoint:
    """Return the endpoint that moves one notification to another inbox or delivery state."""

    async def move(call: ApiRequest) -> ApiResponse:
        return await _moved(call, call.services.notifications.inbox_write(verb, _target(call)))

    return Endpoint(
        method="POST", path=f"/api/notifications/{verb}/{{notification_id}}", scope=scope, handler=move,
        operation=f"{verb}_notification", refusals=(409,), summary=summary,
        answer="notification; 409 if its state does not allow it", responses={200: MOVED},
    )  # fmt: skip


REFUSED: Any = part("RefusedUser", user_id=str, code=str)
_OPTIONAL_DECIDED = DECIDED | UnsetType
MOVED = response_type("NotificationAnswer", notification=Notification)


ENDPOINTS = (
    Endpoint(
        method="POST", path="/api/notifications/send", scope="send", handler=send_notification, body=SendIn,
        example={"user_id": "ada", "title": "Build finished", "message": "All tests passed.", "channels": ["in_app"]},
        refusals=(410,),
        query=SendQuery, creates=True, check=_check_send,
        summary="Send a notification to one user or up to 1,000; dry_run=true only shows the result",
        answer="201 notification_id, status, deliveries; for user_ids: notifications, one per user",
        responses={
            200: response_type(
                "SendDryRunAnswer", dry_run=Literal[True], user_id=str | UnsetType, title=str | UnsetType,
                message=str | UnsetType, status=str | UnsetType, deliveries=_OPTIONAL_DECIDED,
                notifications=list[DryRunResult] | UnsetType,
            ),
            201: response_type(
                "SendAnswer", notification_id=str | UnsetType, status=NotificationStatus | UnsetType,
                deliveries=_OPTIONAL_DECIDED, notifications=list[SENT] | UnsetType,
                refused=list[REFUSED] | UnsetType,
            ),
        },
    ),
    Endpoint(
        method="GET", path="/api/notifications/user/{user_id:path}", scope="read", handler=list_notifications,
        query=NotificationQuery, check=_check_list,
        summary="List a user's inbox, newest first by listed_at, or notifications of another status",
        answer="notifications, unread_count, next_cursor",
        responses={200: page_type("NotificationsAnswer", "notifications", Notification, unread_count=int)},
    ),
    _moving("read", "read", "Mark a notification as read; the first read_at stays"),
    Endpoint(
        method="POST", path="/api/notifications/read-all/{user_id:path}", scope="read", handler=read_all_notifications,
        summary="Mark a user's whole inbox as read", answer="updated: the number that were unread",
        responses={200: response_type("ReadAllAnswer", updated=int)},
    ),
    _moving("unread", "read", "Mark a notification as unread"),
    _moving("archive", "read", "Move a notification from the inbox to the archive"),
    _moving("unarchive", "read", "Move a notification back to the inbox"),
    _moving("cancel", "send", "Cancel a scheduled or pending notification"),
    Endpoint(
        method="POST", path="/api/notifications/reschedule/{notification_id}", scope="send",
        handler=reschedule_notification, body=RescheduleIn, summary="Change the time of a scheduled notification",
        example={"scheduled_at": "2199-01-02T08:00:00Z"}, refusals=(409,),
        answer="notification; 409 if it has been sent", responses={200: MOVED},
    ),
    _moving("retry", "send", "Retry failed deliveries now"),
    Endpoint(
        method="POST", path="/api/notifications/snooze/{notification_id}", scope="read", handler=snooze_notification,
        example={"until": "2199-01-01T08:00:00Z"}, refusals=(409,),
        body=SnoozeIn, summary="Snooze a notification until a time",
        answer="notification; 409 if it is not in the inbox", responses={200: MOVED},
    ),
    Endpoint(
        method="GET", path="/api/notifications/{notification_id}", scope="read", handler=get_notification,
        summary="One notification with its deliveries and attempts", answer="notification",
        responses={200: response_type("NotificationDetailAnswer", notification=DETAIL)},
    ),
)  # fmt: skip
