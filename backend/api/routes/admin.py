"""Health, server proof, API keys and launch links."""

from __future__ import annotations

import time
from typing import Literal

from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.api.framework.context import BackendParts, FlowState
from flashflow.backend.api.framework.endpoint import Endpoint
from flashflow.backend.api.framework.pagination import Page, paged
from flashflow.backend.api.framework.response_schemas import page_type, response_type
from flashflow.backend.api.framework.responses import ApiResponse, success
from flashflow.backend.core.config import VERSION
from flashflow.backend.core.errors import StorageError
from flashflow.backend.schemas.records import ApiKey, Scope
from flashflow.backend.schemas.requests import KeyIn, ProofIn


def _damaged(backend: BackendParts) -> int | None:
    try:
        return backend.damaged_rows()
    except StorageError:  # None: unknown; the storage fault has the reason
        return None


async def get_health(call: ApiRequest) -> ApiResponse:
    backend = call.services.backend
    fault, damaged = await call.read(lambda: (backend.storage_fault(), _damaged(backend)))
    failing = backend.failing_threads()
    return success(
        status="ok" if fault is None and not failing else "degraded",
        version=VERSION,
        uptime_seconds=round(time.monotonic() - call.services.started_at, 3),
        storage="ok" if fault is None else fault,
        damaged_rows=damaged,
        threads="ok" if not failing else ", ".join(failing),
        flow=backend.flow_state(),
    )


async def prove_server(call: ApiRequest) -> ApiResponse:
    body: ProofIn = call.body
    # The guard has checked this Host. Without a port it means port 80.
    address = call.headers[b"host"].decode("utf-8", "replace").lower()
    if not address.rpartition("]")[2].partition(":")[2]:
        address += ":80"
    return success(proof=call.services.keys.prove(body.key_id.lower(), bytes.fromhex(body.nonce), address))


async def list_keys(call: ApiRequest) -> ApiResponse:
    keys = await call.read(call.services.keys.numbered)
    return success(**paged("keys", keys, call.query))


async def create_key(call: ApiRequest) -> ApiResponse:
    body: KeyIn = call.body
    secret, made = await call.read(lambda: call.services.keys.add(body.name, body.scopes))
    return success(201, key=secret, name=made.name, scopes=made.scopes)


async def revoke_key(call: ApiRequest) -> ApiResponse:
    return success(key=await call.read(lambda: call.services.keys.revoke(call.params["name"])))


async def create_launch_link(call: ApiRequest) -> ApiResponse:
    return success(201, url=call.services.new_launch_link())


ENDPOINTS = (
    Endpoint(
        method="GET", path="/api/health", scope=None, handler=get_health, summary="Report whether FlashFlow works",
        answer="status, version, uptime_seconds, storage, damaged_rows, threads, flow; no key needed",
        responses={200: response_type(
            "HealthAnswer", status=Literal["ok", "degraded"], version=str, uptime_seconds=float, storage=str,
            damaged_rows=int | None, threads=str, flow=FlowState,
        )},
    ),
    Endpoint(
        method="POST", path="/api/proof", scope=None, handler=prove_server, body=ProofIn,
        example={"key_id": "0123456789abcdef", "nonce": "00" * 32}, refusals=(404,),
        summary="Prove to a client, before it sends its key, that this server knows that key",
        answer="proof: the HMAC-SHA256 in hexadecimal, under SHA-256(key), of “flashflow-proof-1”, the nonce's bytes "
        "and the Host with its port; no key needed; 404 for a key that is not in use",
        responses={200: response_type("ProofAnswer", proof=str)},
    ),
    Endpoint(
        method="GET", path="/api/keys", scope="admin", handler=list_keys, query=Page,
        summary="List the keys' names and scopes, newest first", answer="keys, next_cursor",
        responses={200: page_type("KeysAnswer", "keys", ApiKey)},
    ),
    Endpoint(
        method="POST", path="/api/keys", scope="admin", handler=create_key, body=KeyIn,
        example={"name": "shop", "scopes": ["track", "send"]}, refusals=(409,),
        summary="Create a key for an app",
        answer="201 key (shown once), name, scopes; Idempotency-Key is ignored: a key is never stored",
        responses={201: response_type("KeyCreatedAnswer", key=str, name=str, scopes=list[Scope])},
    ),
    Endpoint(
        method="DELETE", path="/api/keys/{name}", scope="admin", handler=revoke_key, summary="Revoke a key",
        answer="key", responses={200: response_type("KeyAnswer", key=ApiKey)},
    ),
    Endpoint(
        method="POST", path="/api/launch", scope="admin", handler=create_launch_link,
        refusals=(404,),
        summary="Create a one-time link that opens the screens in a browser", answer="201 url",
        responses={201: response_type("LaunchAnswer", url=str)},
    ),
)  # fmt: skip
