"""A user's delivery settings: contacts, quiet hours, do not disturb, digests."""

from __future__ import annotations

from msgspec import UNSET

from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.response_schemas import response_type
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.notifications.delivery_settings import UserDeliverySettings
from flashflow.backend.schemas.delivery_settings import ContactsIn, DigestIn, DoNotDisturbIn, QuietHoursIn
from flashflow.backend.schemas.requests import Timestamp
from flashflow.backend.schemas.values import timestamp_ms
from flashflow.backend.store.notifications.delivery_settings import Contact, DigestChoice, QuietSetting


def _settings(call: ApiRequest) -> UserDeliverySettings:
    return call.services.notifications.delivery_settings


async def get_contacts(call: ApiRequest) -> ApiResponse:
    user_id = call.user_id
    return success(contacts=await call.read(lambda: _settings(call).contact(user_id)))


def _check_contacts(call: ApiRequest) -> None:
    _settings(call).contact_write("", call.body)


def _check_quiet_hours(call: ApiRequest) -> None:
    _settings(call).quiet_hours_write("", call.body)


async def set_contacts(call: ApiRequest) -> ApiResponse:
    write = _settings(call).contact_write(call.user_id, call.body)
    return success(contacts=await call.services.notification_writes.run(write))


async def set_quiet_hours(call: ApiRequest) -> ApiResponse:
    write = _settings(call).quiet_hours_write(call.user_id, call.body)
    return success(quiet_hours=await call.services.notification_writes.run(write))


async def set_do_not_disturb(call: ApiRequest) -> ApiResponse:
    user_id, until_ms = call.user_id, _until(call)
    write = _settings(call).do_not_disturb_write(user_id, until_ms)
    return success(do_not_disturb_until=await call.services.notification_writes.run(write))


def _until(call: ApiRequest) -> int | None:
    body: DoNotDisturbIn = call.body
    if (body.minutes is UNSET) == (body.until is UNSET):
        raise ValidationError.of("until", "give either minutes or until")
    if body.minutes is not UNSET:
        return call.services.notifications.store.clock.now_ms() + body.minutes * 60_000
    return None if body.until is None or body.until is UNSET else timestamp_ms("until", body.until)


async def set_digest(call: ApiRequest) -> ApiResponse:
    write = _settings(call).digest_write(call.user_id, call.body)
    return success(digest=await call.services.notification_writes.run(write))


CONTACTS = response_type("ContactsAnswer", contacts=Contact)
ENDPOINTS = (
    Endpoint(
        method="GET", path="/api/users/{user_id:path}/contacts", scope="manage", handler=get_contacts,
        summary="A user's e-mail address, phone number and language",
        answer="contacts: email, phone, locale, updated_at", responses={200: CONTACTS},
    ),
    Endpoint(
        method="POST", path="/api/users/{user_id:path}/contacts", scope="manage", handler=set_contacts,
        example={"email": "ada@example.org", "phone": "+15550101"}, refusals=(410,),
        body=ContactsIn, check=_check_contacts,
        summary="Set a user's e-mail address, phone number and language; null removes one",
        answer="contacts: email, phone, locale, updated_at", responses={200: CONTACTS},
    ),
    Endpoint(
        method="PUT", path="/api/notifications/quiet-hours/{user_id:path}", scope="manage", handler=set_quiet_hours,
        example={"enabled": True, "start": "22:00", "end": "07:00", "timezone": "Europe/Berlin"}, refusals=(410,),
        body=QuietHoursIn, check=_check_quiet_hours,
        summary="Hold non-critical notifications during these hours; omitted fields stay",
        answer="quiet_hours", responses={200: response_type("QuietHoursAnswer", quiet_hours=QuietSetting)},
    ),
    Endpoint(
        method="POST", path="/api/notifications/do-not-disturb/{user_id:path}", scope="manage",
        handler=set_do_not_disturb, body=DoNotDisturbIn,
        example={"minutes": 60}, refusals=(410,),
        summary="Hold non-critical notifications for some minutes or until a time; until null ends it",
        answer="do_not_disturb_until",
        responses={200: response_type("DoNotDisturbAnswer", do_not_disturb_until=Timestamp | None)},
    ),
    Endpoint(
        method="PUT", path="/api/notifications/digest/{user_id:path}", scope="manage", handler=set_digest,
        example={"notification_type": "builds", "frequency": "daily", "at": "08:00"}, refusals=(410,),
        body=DigestIn, summary="Collect notifications of a type (* for all) into a digest; null: as declared",
        answer="digest: the user's choices by type, each with frequency and at",
        responses={200: response_type("DigestAnswer", digest=dict[str, DigestChoice])},
    ),
)  # fmt: skip
