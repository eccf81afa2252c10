"""Notification types: the endpoints that list and declare them."""

from __future__ import annotations

from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.pagination import Page, paged
from flashflow.backend.api.framework.response_schemas import page_type, response_type
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.schemas.records import NotificationType
from flashflow.backend.schemas.requests import TypeIn


async def list_notification_types(call: ApiRequest) -> ApiResponse:
    types = await call.read(call.services.notifications.preferences.numbered_types)
    return success(**paged("notification_types", types, call.query))


async def declare_notification_type(call: ApiRequest) -> ApiResponse:
    def render(declared: tuple[NotificationType, bool]) -> ApiResponse:
        return success(201 if declared[1] else 200, notification_type=declared[0])

    preferences = call.services.notifications.preferences
    write = preferences.declare_write(call.body, call.caller.app, call.caller.sees)
    return await call.create(call.services.notification_writes, write, render)


def _check_type(call: ApiRequest) -> None:
    call.services.notifications.preferences.check_type(call.body)


DECLARED = response_type("NotificationTypeAnswer", notification_type=NotificationType)
ENDPOINTS = (
    Endpoint(
        method="GET", path="/api/notification-types", scope="manage", handler=list_notification_types,
        query=Page, summary="List notification types, declared or used, newest first",
        answer="notification_types, next_cursor",
        responses={200: page_type("NotificationTypesAnswer", "notification_types", NotificationType)},
    ),
    Endpoint(
        method="POST", path="/api/notification-types", scope="manage", handler=declare_notification_type, body=TypeIn,
        example={"name": "builds", "label": "Builds", "channels": ["in_app"], "digest": "daily", "digest_at": "08:00"},
        refusals=(409,),
        creates=True, check=_check_type,
        summary="Declare a notification type", answer="201 notification_type; repeated: 200",
        responses={200: DECLARED, 201: DECLARED},
    ),
)  # fmt: skip
