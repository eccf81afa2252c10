"""Recurring notifications: the endpoints over Schedules."""

from __future__ import annotations

from typing import Any

from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.pagination import Page
from flashflow.backend.api.framework.response_schemas import SENT, page_type, response_type
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.api.framework.serializers import complete, to_json_types
from flashflow.backend.core.error_collector import ErrorCollector, within
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.notifications.schedules import ScheduleIn, ScheduleRun, Schedules
from flashflow.backend.store.notifications.schedules import Schedule


def schedule_json(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as JSON. ``rule`` and ``notification`` are complete, so that a client can PUT them back."""
    return to_json_types(schedule) | {"rule": complete(schedule.rule)}


def _schedules(call: ApiRequest) -> Schedules:
    return call.services.notifications.schedules


def _app(call: ApiRequest, body: ScheduleIn) -> str:
    """Return the schedule's app: the key's, or with admin the one named. Raises ValidationError."""
    try:
        return call.app_for(body.notification.app)
    except ValidationError as refusal:
        raise within("notification", refusal) from None


def _one(schedule: Schedule) -> ApiResponse:
    return success(schedule=schedule_json(schedule))


def _check(call: ApiRequest) -> None:
    faults = ErrorCollector()
    with faults:
        _app(call, call.body)
    with faults:
        _schedules(call).check(call.body, call.caller.app, call.caller.sees)
    faults.done()


async def list_schedules(call: ApiRequest) -> ApiResponse:
    query = call.query or Page()
    page = await call.read(lambda: _schedules(call).page(call.caller.sees, query.limit, query.cursor))
    return success(schedules=[schedule_json(schedule) for schedule in page.schedules], next_cursor=page.next_cursor)


async def create_schedule(call: ApiRequest) -> ApiResponse:
    write = _schedules(call).create_write(call.body, _app(call, call.body), call.caller.sees)
    return await call.create(
        call.services.notification_writes, write, lambda schedule: success(201, schedule=schedule_json(schedule))
    )


async def get_schedule(call: ApiRequest) -> ApiResponse:
    return _one(await call.read(lambda: _schedules(call).get(call.params["schedule_id"], call.caller.sees)))


async def change_schedule(call: ApiRequest) -> ApiResponse:
    write = _schedules(call).change_write(call.params["schedule_id"], call.body, call.caller.sees)
    return _one(await call.services.notification_writes.run(write))


async def remove_schedule(call: ApiRequest) -> ApiResponse:
    write = _schedules(call).remove_write(call.params["schedule_id"], call.caller.sees)
    return _one(await call.services.notification_writes.run(write))


async def run_schedule(call: ApiRequest) -> ApiResponse:
    schedule = await call.read(lambda: _schedules(call).get(call.params["schedule_id"], call.caller.sees))
    write = _schedules(call).run_write(schedule, call.caller.sees)

    def render(ran: ScheduleRun) -> ApiResponse:
        return success(201, schedule=schedule_json(ran.schedule), notifications=ran.sent)

    return await call.create(call.services.notification_writes, write, render)


_STAND_UP = {
    "name": "stand-up", "rule": {"at": "09:00", "days": ["mon", "tue"], "timezone": "Europe/Berlin"},
    "notification": {"user_id": "ada", "title": "Stand-up", "message": "In five minutes."},
}  # fmt: skip
SCHEDULE = response_type("ScheduleAnswer", schedule=Schedule)
ENDPOINTS = (
    Endpoint(
        method="GET", path="/api/schedules", scope="send", handler=list_schedules, query=Page,
        summary="List this app's schedules, newest first", answer="schedules, next_cursor",
        responses={200: page_type("SchedulesAnswer", "schedules", Schedule)},
    ),
    Endpoint(
        method="POST", path="/api/schedules", scope="send", handler=create_schedule, body=ScheduleIn, creates=True,
        example=_STAND_UP, refusals=(409, 410),
        check=_check,
        summary="Create a recurring notification", answer="201 schedule; 409 if this app has one of that name",
        responses={201: SCHEDULE},
    ),
    Endpoint(
        method="POST", path="/api/schedules/{schedule_id}/run", scope="send", handler=run_schedule, creates=True,
        refusals=(410,),
        summary="Send it once now; its next time stays", answer="201 schedule; notifications, one per user",
        responses={201: response_type("ScheduleRunAnswer", schedule=Schedule, notifications=list[SENT])},
    ),
    Endpoint(
        method="GET", path="/api/schedules/{schedule_id}", scope="send", handler=get_schedule,
        summary="One schedule; last_error says why its last run was refused", answer="schedule",
        responses={200: SCHEDULE},
    ),
    Endpoint(
        method="PUT", path="/api/schedules/{schedule_id}", scope="send", handler=change_schedule, body=ScheduleIn,
        example=_STAND_UP, refusals=(409, 410),
        check=_check,
        summary="Replace a schedule; with the same rule its next time stays", answer="schedule",
        responses={200: SCHEDULE},
    ),
    Endpoint(
        method="DELETE", path="/api/schedules/{schedule_id}", scope="send", handler=remove_schedule,
        summary="Delete a schedule; sent notifications stay", answer="the deleted schedule",
        responses={200: SCHEDULE},
    ),
)  # fmt: skip
