"""Channels: states, test sends, the Web Push key, and digests sent now."""

from __future__ import annotations

import msgspec

from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.response_schemas import response_type
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.core.errors import NotFound
from flashflow.backend.delivery.channel_registry import ChannelState
from flashflow.backend.notifications.channel_test import ChannelTest
from flashflow.backend.notifications.release_due import DigestRelease
from flashflow.backend.schemas.requests import Input, TypeName, UserId


class ChannelTestIn(Input, frozen=True, kw_only=True):
    """``user_id``: the recipient; by default this machine's user."""

    user_id: UserId | None = None


class DigestNowIn(Input, frozen=True, kw_only=True):
    """``notification_type``: the digest to send; by default all."""

    notification_type: TypeName | None = None


async def list_channels(call: ApiRequest) -> ApiResponse:
    return success(channels=await call.read(call.services.backend.channel_states))


async def test_channel(call: ApiRequest) -> ApiResponse:
    body: ChannelTestIn = call.body or ChannelTestIn()
    return success(results=await call.wait(lambda: call.services.backend.send_test(call.params["name"], body.user_id)))


async def get_web_push_key(call: ApiRequest) -> ApiResponse:
    key = await call.read(call.services.backend.web_push_key)
    if key is None:
        raise NotFound("Web Push is not configured ([channels.push.webpush] in flashflow.toml).")
    return success(public_key=key)


async def send_digest_now(call: ApiRequest) -> ApiResponse:
    body: DigestNowIn = call.body or DigestNowIn()
    write = call.services.notifications.send_digest_write(call.user_id, body.notification_type)
    released = await call.services.notification_writes.run(write)
    return success(**msgspec.structs.asdict(released))


ENDPOINTS = (
    Endpoint(
        method="GET", path="/api/channels", scope="manage", handler=list_channels,
        summary="List the channels and whether each works on this machine",
        answer="channels: name, label, works, detail",
        responses={200: response_type("ChannelsAnswer", channels=list[ChannelState])},
    ),
    Endpoint(
        method="POST", path="/api/channels/{name}/test", scope="admin", handler=test_channel, body=ChannelTestIn,
        example={"user_id": "ada"}, refusals=(409,),
        body_optional=True,
        summary="Send a test now, through a channel or one push route (desktop, fcm, apns, webpush)",
        answer="results: channel, target, outcome, code, text; 404 "
        "if it is not configured, 409 if the user has no address for it",
        responses={200: response_type("ChannelTestAnswer", results=list[ChannelTest])},
    ),
    Endpoint(
        method="GET", path="/api/web-push-key", scope="manage", handler=get_web_push_key,
        refusals=(404,),
        summary="The applicationServerKey for browsers' push subscriptions", answer="public_key; 404 if not configured",
        responses={200: response_type("WebPushKeyAnswer", public_key=str)},
    ),
    Endpoint(
        method="POST", path="/api/notifications/digest/{user_id:path}/send-now", scope="manage",
        handler=send_digest_now, body=DigestNowIn, body_optional=True, summary="Send a user's digests now",
        example={"notification_type": "builds"},
        answer="released: the number of deliveries sent; held_count and held: deliveries still held, and why; "
        "stopped: deliveries suppressed or failed",
        responses={200: response_type("DigestReleaseAnswer", DigestRelease)},
    ),
)  # fmt: skip
