"""Notifications, preferences, devices, templates, types: the endpoints over NotificationService."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from flashflow.backend.api.framework.endpoint import Answer, ApiRequest, Endpoint, success
from flashflow.backend.api.framework.pagination import Page, paged, paged_rows
from flashflow.backend.api.framework.serializers import delivery_json, sent_json, to_json_types
from flashflow.backend.api.routes.activity import checked_range, path_user
from flashflow.backend.core.clock import to_ms
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import Erased, ValidationError
from flashflow.backend.schemas.records import (
    DeviceRegistered,
    ListStatus,
    NotificationType,
    Preference,
    PreferenceMatrix,
    Priority,
    Sent,
    Template,
)
from flashflow.backend.schemas.requests import (
    Channel,
    DeviceIn,
    Input,
    Moment,
    PreferenceIn,
    PreferencesIn,
    PreviewIn,
    RescheduleIn,
    SendIn,
    SendQuery,
    SnoozeIn,
    TemplateChangeIn,
    TemplateIn,
    TypeIn,
    TypeName,
    build,
)
from flashflow.backend.store.engine.sql import PAGE_BYTES
from flashflow.backend.store.notifications.notifications import ListFilter


class NotificationQuery(Page, frozen=True, kw_only=True):
    """The filters of a user's notifications; without ``status`` the inbox: unread and read."""

    status: ListStatus | None = None
    notification_type: TypeName | None = None
    channel: Channel | None = None
    priority: Priority | None = None
    q: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    since: Moment | None = None
    until: Moment | None = None


async def send(call: ApiRequest) -> Answer:
    body: SendIn = call.body
    service = call.services.notifications
    many = body.user_ids is not None
    if call.query is not None and call.query.dry_run == "true":
        return await _rehearse(call, body, many)
    write = service.sending(body, call.app_for(body.app), call.caller.sees)

    def render(sent: tuple[Sent, ...]) -> Answer:
        if many:
            told = [sent_json(one) | {"user_id": one.user_id} for one in sent]
            return success(201, notifications=told, **_left_out(body, sent))
        return success(201, **sent_json(sent[0]))

    return await call.create(service.store, call.services.notification_writes, write, render)


def _check_send(call: ApiRequest) -> None:
    faults = ErrorCollector()
    with faults:
        call.app_for(call.body.app)
    with faults:
        call.services.notifications.sending(call.body, call.caller.app, call.caller.sees)
    faults.done()


def _left_out(body: SendIn, sent: tuple[Sent, ...]) -> dict[str, Any]:
    """Users who were asked for and erased, where there are any."""
    told = {one.user_id for one in sent}
    refused = [user for user in dict.fromkeys(body.user_ids or ()) if user not in told]
    return {"refused": [{"user_id": user, "code": Erased.code} for user in refused]} if refused else {}


async def _rehearse(call: ApiRequest, body: SendIn, many: bool) -> Answer:
    app, owner = call.app_for(body.app), call.caller.sees
    rehearsed = await call.read(lambda: call.services.notifications.rehearse(body, app, owner))
    if many:
        return success(dry_run=True, notifications=[to_json_types(one) for one in rehearsed])
    return success(dry_run=True, **to_json_types(rehearsed[0]))


async def snooze(call: ApiRequest) -> Answer:
    wanted = (call.params["notification_id"], call.caller.sees)
    moved = await call.services.notification_writes.run(
        call.services.notifications.snoozing(wanted, call.body.until)
    )  # fmt: skip
    return success(notification=to_json_types(moved))


async def reschedule(call: ApiRequest) -> Answer:
    wanted = (call.params["notification_id"], call.caller.sees)
    write = call.services.notifications.rescheduling(wanted, call.body.scheduled_at)
    moved = await call.services.notification_writes.run(write)
    return success(notification=to_json_types(moved))


def _check_list(call: ApiRequest) -> None:
    faults = ErrorCollector()
    with faults:
        checked_range(call.query.since, call.query.until)
    with faults:
        call.services.notifications.channels.check("channel", [call.query.channel] if call.query.channel else [])
    faults.done()


async def list_notifications(call: ApiRequest) -> Answer:
    user_id, query = path_user(call), call.query or NotificationQuery()
    if call.query is not None:
        _check_list(call)
    asked = ListFilter(
        user_id=user_id,
        app=call.caller.sees,
        status=query.status,
        notification_type=query.notification_type,
        channel=query.channel,
        priority=query.priority,
        q=query.q,
        since=None if query.since is None else to_ms(query.since),
        until=None if query.until is None else to_ms(query.until),
        limit=query.limit,
        cursor=query.cursor,
    )

    def page(most_bytes: int) -> tuple[bytes, bool]:
        services = call.services
        return services.notifications.store.read(lambda conn: services.pages.page(conn, asked, most_bytes))

    if asked.is_bounded:  # read sooner than another thread could be woken, unless its rows are large
        body, cut = page(LOOP_BYTES)
        if not cut:
            return Answer(200, body)
    body, _ = await call.read(lambda: page(PAGE_BYTES))
    return Answer(200, body)


LOOP_BYTES = 128 * 1024
"""Read on the loop at most; a larger page is read again in a thread."""


async def get_notification(call: ApiRequest) -> Answer:
    service = call.services.notifications
    detail = await call.read(lambda: service.get_notification(call.params["notification_id"], call.caller.sees))
    deliveries = [delivery_json(d) for d in detail.deliveries]
    return success(notification=to_json_types(detail.notification) | {"deliveries": deliveries})


def mover(verb: str) -> Callable[[ApiRequest], Awaitable[Answer]]:
    """The handler that moves one notification through its reader's hands."""

    async def move(call: ApiRequest) -> Answer:
        write = call.services.notifications.moving(verb, (call.params["notification_id"], call.caller.sees))
        moved = await call.services.notification_writes.run(write)
        return success(notification=to_json_types(moved))

    return move


async def read_all(call: ApiRequest) -> Answer:
    write = call.services.notifications.reading_all(path_user(call), call.caller.sees)
    updated = await call.services.notification_writes.run(write)
    return success(updated=len(updated))


async def set_preferences(call: ApiRequest) -> Answer:
    body: PreferencesIn = call.body
    write = call.services.notifications.preferences.choosing(_choices(body))

    def render(saved: tuple[Preference, ...]) -> Answer:
        return success(preferences=[to_json_types(choice) for choice in saved])

    return render(await call.services.notification_writes.run(write))


def _choices(body: PreferencesIn) -> list[PreferenceIn]:
    one = {field: getattr(body, field) for field in _CHOICE if getattr(body, field) is not None}
    if body.preferences is None:
        faults = ErrorCollector()
        for field in _CHOICE:
            if field not in one:
                faults.add(field, "is required", "preferences")
        faults.done()
        return [build(PreferenceIn, **one)]
    if one:
        raise ValidationError.of("preferences", "give either one choice or a list of them")
    return body.preferences


_CHOICE = ("user_id", "notification_type", "channel", "enabled")


def _check_preferences(call: ApiRequest) -> None:
    call.services.notifications.preferences.choosing(_choices(call.body))


async def get_preferences(call: ApiRequest) -> Answer:
    user_id, service = path_user(call), call.services.notifications

    def answer() -> Answer:
        matrix: PreferenceMatrix = service.get_preferences(user_id)
        return success(
            preferences=[to_json_types(choice) for choice in matrix.preferences],
            quiet_hours=to_json_types(service.circumstances.quiet_hours(user_id)),
            digest=service.circumstances.digests(user_id),
            types=[to_json_types(kind) for kind in matrix.types],
        )

    return await call.read(answer)


async def list_types(call: ApiRequest) -> Answer:
    types = await call.read(call.services.notifications.preferences.numbered_types)
    return success(**paged("notification_types", types, call.query or Page()))


async def declare_type(call: ApiRequest) -> Answer:
    service = call.services.notifications

    def render(declared: tuple[NotificationType, bool]) -> Answer:
        return success(201 if declared[1] else 200, notification_type=to_json_types(declared[0]))

    write = service.preferences.declaring(call.body, call.caller.app, call.caller.sees)
    return await call.create(service.store, call.services.notification_writes, write, render)


def _check_type(call: ApiRequest) -> None:
    call.services.notifications.preferences.check_type(call.body)


async def register_device(call: ApiRequest) -> Answer:
    service = call.services.notifications

    def render(registered: DeviceRegistered) -> Answer:
        return success(201 if registered.created else 200, device_token_id=registered.device.id)

    write = service.devices.registering(call.body, call.caller.app)
    return await call.create(service.store, call.services.notification_writes, write, render)


async def list_devices(call: ApiRequest) -> Answer:
    user_id, devices = path_user(call), call.services.notifications.devices
    return await call.read(lambda: success(**paged_rows("devices", _below(call, devices.newest, user_id), _page(call))))


def _below(call: ApiRequest, newest: Callable[..., Any], *whose: str) -> Callable[[int, int], Any]:
    return lambda before, limit: newest(*whose, call.caller.sees, before, limit)


def _page(call: ApiRequest) -> Page:
    return call.query or Page()


async def remove_device(call: ApiRequest) -> Answer:
    write = call.services.notifications.devices.removing(call.params["device_token_id"], call.caller.sees)
    device = await call.services.notification_writes.run(write)
    return success(device=to_json_types(device))


class LocaleQuery(Input, frozen=True, kw_only=True):
    """Which of a template's texts."""

    locale: Annotated[str, Meta(max_length=35)] = ""


def _template(template: Template) -> Answer:
    return success(template=to_json_types(template))


async def list_templates(call: ApiRequest) -> Answer:
    templates = call.services.notifications.templates
    return await call.read(lambda: success(**paged_rows("templates", _below(call, templates.newest), _page(call))))


async def create_template(call: ApiRequest) -> Answer:
    service = call.services.notifications

    def render(template: Template) -> Answer:
        return success(201, template=to_json_types(template))

    write = service.templates.creating(call.body, call.caller.app)
    return await call.create(service.store, call.services.notification_writes, write, render)


def _check_template(call: ApiRequest) -> None:
    call.services.notifications.templates.check(call.body)


async def get_template(call: ApiRequest) -> Answer:
    locale = (call.query or LocaleQuery()).locale
    templates = call.services.notifications.templates
    return _template(await call.read(lambda: templates.get(call.params["name"], locale, call.caller.sees)))


async def change_template(call: ApiRequest) -> Answer:
    body: TemplateChangeIn = call.body
    text = build(TemplateIn, name=call.params["name"], **msgspec.structs.asdict(body))
    write = call.services.notifications.templates.changing(text, call.caller.app, call.caller.sees)
    return _template(await call.services.notification_writes.run(write))


async def remove_template(call: ApiRequest) -> Answer:
    write = call.services.notifications.templates.removing(call.params["name"], call.caller.sees)
    gone = await call.services.notification_writes.run(write)
    return success(deleted=[to_json_types(template) for template in gone])


async def preview_template(call: ApiRequest) -> Answer:
    body, templates = call.body, call.services.notifications.templates
    rendered: Any = await call.read(
        lambda: templates.preview(call.params["name"], body.data, body.locale, call.caller.sees)
    )
    return success(preview=to_json_types(rendered))


def _moving(verb: str, scope: str, summary: str) -> Endpoint:
    return Endpoint(
        method="POST", path=f"/api/notifications/{verb}/{{notification_id}}", scope=scope, handler=mover(verb),
        summary=summary, answer="notification; 409 where its state does not allow it",
    )  # fmt: skip


ENDPOINTS = (
    Endpoint(
        method="POST", path="/api/notifications/send", scope="send", handler=send, body=SendIn, creates=True,
        query=SendQuery, check=_check_send,
        summary="Tell a user, or up to 1,000; with dry_run=true say what would happen",
        answer="201 notification_id, status, deliveries; for user_ids: notifications, one each",
    ),
    Endpoint(
        method="GET", path="/api/notifications/user/{user_id:path}", scope="read", handler=list_notifications,
        query=NotificationQuery, check=_check_list,
        summary="A user's inbox, newest first by listed_at; other statuses by name",
        answer="notifications, unread_count, next_cursor",
    ),
    _moving("read", "read", "Mark a notification as read; the first read_at stays"),
    Endpoint(
        method="POST", path="/api/notifications/read-all/{user_id:path}", scope="read", handler=read_all,
        summary="Read a user's whole inbox", answer="updated: how many were unread",
    ),
    _moving("unread", "read", "Mark a notification as unread"),
    _moving("archive", "read", "Take a notification out of the inbox"),
    _moving("unarchive", "read", "Put a notification back into the inbox"),
    _moving("cancel", "send", "Stop what is scheduled or pending"),
    Endpoint(
        method="POST", path="/api/notifications/reschedule/{notification_id}", scope="send", handler=reschedule,
        body=RescheduleIn, summary="Give what is scheduled another time",
        answer="notification; 409 where it has gone out already",
    ),
    _moving("retry", "send", "Try again now what failed or was given up"),
    Endpoint(
        method="POST", path="/api/notifications/snooze/{notification_id}", scope="read", handler=snooze,
        body=SnoozeIn, summary="Take a notification out of the unread until a time",
        answer="notification; 409 where it is not in the inbox",
    ),
    Endpoint(
        method="POST", path="/api/notifications/preferences", scope="manage", handler=set_preferences,
        body=PreferencesIn, check=_check_preferences,
        summary="Choose which types may use which channels", answer="preferences",
    ),
    Endpoint(
        method="GET", path="/api/notifications/preferences/{user_id:path}", scope="manage", handler=get_preferences,
        summary="A user's choices and the matrix they lead to", answer="preferences, quiet_hours, digest, types",
    ),
    Endpoint(
        method="GET", path="/api/notifications/{notification_id}", scope="read", handler=get_notification,
        summary="One notification with its deliveries and every attempt", answer="notification",
    ),
    Endpoint(
        method="POST", path="/api/devices/register", scope="manage", handler=register_device, body=DeviceIn,
        creates=True, summary="Register a device for push",
        answer="201 device_token_id; the same token again: 200 and the same id",
    ),
    Endpoint(
        method="GET", path="/api/devices/user/{user_id:path}", scope="manage", handler=list_devices,
        query=Page, summary="A user's devices, newest first, tokens masked", answer="devices, next_cursor",
    ),
    Endpoint(
        method="DELETE", path="/api/devices/{device_token_id}", scope="manage", handler=remove_device,
        summary="Forget a device", answer="device",
    ),
    Endpoint(
        method="GET", path="/api/templates", scope="manage", handler=list_templates, query=Page,
        summary="Every template, newest first", answer="templates, next_cursor",
    ),
    Endpoint(
        method="POST", path="/api/templates", scope="manage", handler=create_template, body=TemplateIn, creates=True,
        check=_check_template,
        summary="Keep a text with variables", answer="201 template; 409 when the name is taken",
    ),
    Endpoint(
        method="POST", path="/api/templates/{name}/preview", scope="manage", handler=preview_template, body=PreviewIn,
        summary="Fill a template in without sending", answer="preview; 400 names each variable that is missing",
    ),
    Endpoint(
        method="GET", path="/api/templates/{name}", scope="manage", handler=get_template, query=LocaleQuery,
        summary="One template", answer="template",
    ),
    Endpoint(
        method="PUT", path="/api/templates/{name}", scope="manage", handler=change_template, body=TemplateChangeIn,
        check=_check_template,
        summary="Replace a template's text", answer="template",
    ),
    Endpoint(
        method="DELETE", path="/api/templates/{name}", scope="manage", handler=remove_template,
        summary="Delete a template in every locale", answer="deleted",
    ),
    Endpoint(
        method="GET", path="/api/notification-types", scope="manage", handler=list_types,
        query=Page, summary="Every type of notice that was declared or used, newest first",
        answer="notification_types, next_cursor",
    ),
    Endpoint(
        method="POST", path="/api/notification-types", scope="manage", handler=declare_type, body=TypeIn,
        creates=True, check=_check_type, summary="Declare a type of notice", answer="201 notification_type; again: 200",
    ),
)  # fmt: skip
