"""Preferences: the endpoints over a user's choices of types and channels."""

from __future__ import annotations

from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.response_schemas import response_type
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.schemas.records import Preference, TypePreference
from flashflow.backend.schemas.requests import PreferenceIn, PreferencesIn, build
from flashflow.backend.store.notifications.delivery_settings import DigestChoice, QuietSetting


async def set_preferences(call: ApiRequest) -> ApiResponse:
    body: PreferencesIn = call.body
    write = call.services.notifications.preferences.choose_write(_choices(body))
    return success(preferences=await call.services.notification_writes.run(write))


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
    call.services.notifications.preferences.choose_write(_choices(call.body))


async def get_preferences(call: ApiRequest) -> ApiResponse:
    user_id, service = call.user_id, call.services.notifications

    def read() -> ApiResponse:
        matrix = service.get_preferences(user_id)
        return success(
            preferences=matrix.preferences,
            quiet_hours=service.delivery_settings.quiet_hours(user_id),
            digest=service.delivery_settings.digests(user_id),
            types=matrix.types,
        )

    return await call.read(read)


ENDPOINTS = (
    Endpoint(
        method="POST", path="/api/notifications/preferences", scope="manage", handler=set_preferences,
        example={"user_id": "ada", "notification_type": "builds", "channel": "email", "enabled": False},
        refusals=(410,),
        body=PreferencesIn, check=_check_preferences,
        summary="Set which types may use which channels", answer="preferences",
        responses={200: response_type("PreferencesAnswer", preferences=list[Preference])},
    ),
    Endpoint(
        method="GET", path="/api/notifications/preferences/{user_id:path}", scope="manage", handler=get_preferences,
        summary="A user's choices and the resulting matrix", answer="preferences, quiet_hours, digest, types",
        responses={200: response_type(
            "PreferenceMatrixAnswer", preferences=list[Preference], quiet_hours=QuietSetting,
            digest=dict[str, DigestChoice], types=list[TypePreference],
        )},
    ),
)  # fmt: skip
