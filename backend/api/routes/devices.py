"""Devices: the endpoints over push registrations."""

from __future__ import annotations

from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.pagination import Page, paged_rows
from flashflow.backend.api.framework.response_schemas import page_type, response_type
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.schemas.records import Device, DeviceRegistered
from flashflow.backend.schemas.requests import DeviceIn


async def register_device(call: ApiRequest) -> ApiResponse:
    def render(registered: DeviceRegistered) -> ApiResponse:
        return success(201 if registered.created else 200, device_token_id=registered.device.id)

    write = call.services.notifications.devices.register_write(call.body, call.caller.app)
    return await call.create(call.services.notification_writes, write, render)


async def list_devices(call: ApiRequest) -> ApiResponse:
    user_id, devices = call.user_id, call.services.notifications.devices
    return await call.read(
        lambda: success(
            **paged_rows(
                "devices", lambda before, limit: devices.newest(user_id, call.caller.sees, before, limit), call.query
            )
        )
    )


async def remove_device(call: ApiRequest) -> ApiResponse:
    write = call.services.notifications.devices.remove_write(call.params["device_token_id"], call.caller.sees)
    return success(device=await call.services.notification_writes.run(write))


REGISTERED = response_type("DeviceRegisteredAnswer", device_token_id=str)
ENDPOINTS = (
    Endpoint(
        method="POST", path="/api/devices/register", scope="manage", handler=register_device, body=DeviceIn,
        example={"user_id": "ada", "token": "fcm-token-1", "platform": "android"}, refusals=(410,),
        creates=True, summary="Register a device for push",
        answer="201 device_token_id; 200 and the same id for a known token",
        responses={200: REGISTERED, 201: REGISTERED},
    ),
    Endpoint(
        method="GET", path="/api/devices/user/{user_id:path}", scope="manage", handler=list_devices,
        query=Page, summary="A user's devices, newest first, tokens masked", answer="devices, next_cursor",
        responses={200: page_type("DevicesAnswer", "devices", Device)},
    ),
    Endpoint(
        method="DELETE", path="/api/devices/{device_token_id}", scope="manage", handler=remove_device,
        summary="Remove a device", answer="device", responses={200: response_type("DeviceAnswer", device=Device)},
    ),
)  # fmt: skip
