"""The request as a handler gets it: caller, decoded input, reads in worker threads, idempotent writes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from starlette.types import Scope

from flashflow.backend.api.framework.context import Services
from flashflow.backend.api.framework.responses import ApiResponse
from flashflow.backend.api_keys import Caller
from flashflow.backend.core.errors import (
    FieldError,
    FlashFlowError,
    Forbidden,
    IdempotencyMismatch,
    NotFound,
    ValidationError,
)
from flashflow.backend.schemas.requests import UserPath, build
from flashflow.backend.store.engine.cancellable_read import Reading
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.idempotency import REMEMBER_MS, StoredResponse, find_response, store_response
from flashflow.backend.store.engine.writer import I, LoopWrites, R, Tx, Write

T = TypeVar("T")

ANSWER_S = 10.0
"""Deadline of a read; 504 afterwards."""
ANYONE = Caller("", frozenset())


def authorize(services: Services, headers: dict[bytes, bytes], scope: str | None) -> Caller:
    """Return the caller by its key. Raises Unauthorized without a valid key, Forbidden without ``scope``."""
    if scope is None:
        return ANYONE
    caller = services.keys.bearer(headers.get(b"authorization", b""))
    if not caller.may(scope):
        raise Forbidden(f"The key “{caller.app}” lacks the scope “{scope}”.")
    return caller


class ApiRequest:
    """One authorized request. ``body`` and ``query`` are None where the client sent none."""

    __slots__ = ("body", "caller", "headers", "ip_address", "method", "params", "path", "query", "raw", "services")

    def __init__(self, scope: Scope, services: Services, caller: Caller, headers: dict[bytes, bytes]) -> None:
        self.services = services
        self.caller = caller
        self.headers = headers
        self.params: dict[str, str] = scope.get("path_params") or {}
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.ip_address: str | None = scope["client"][0] if scope.get("client") else None
        self.raw = b""
        self.body: Any = None
        self.query: Any = None

    @property
    def user_agent(self) -> str | None:
        """The User-Agent header, at most 512 printable characters; None if absent."""
        raw = self.headers.get(b"user-agent")
        return _printable(raw) if raw else None

    @property
    def user_id(self) -> str:
        """The path's user id. Raises NotFound for an empty one, ValidationError for an invalid one."""
        if not self.params["user_id"]:
            raise NotFound("There is nothing at this address.")
        return _user_id(self.params["user_id"])

    def app_for(self, named: str | None) -> str:
        """Return the app to store a row under: the key's, or with admin the one named. Raises ValidationError."""
        if named is None or named == self.caller.app:
            return self.caller.app
        if self.caller.sees is not None:
            raise ValidationError.of("app", "may be given with an admin key only")
        return named

    def app_filter(self, named: str | None) -> str | None:
        """Return the app whose rows are visible (None: all). Raises Forbidden for another app without admin."""
        if self.caller.sees is None:
            return named
        if named is not None and named != self.caller.app:
            raise Forbidden("Another app's rows need the scope “admin”, which this key does not have.")
        return self.caller.app

    async def read(self, query: Callable[[], T], *, long: bool = False) -> T:
        """Run ``query`` in a reading thread. Raises TimeoutError after ANSWER_S seconds and interrupts the query.

        ``long`` queries share one thread, so that they delay only each other.
        """
        readers = self.services.readers
        reading = Reading()
        try:
            async with asyncio.timeout(ANSWER_S):
                return await asyncio.get_running_loop().run_in_executor(
                    readers.long if long else readers.short, reading.run, query
                )
        except BaseException:
            reading.cancel()  # deadline passed, or the client disconnected
            raise

    async def wait(self, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread of its own: it may take half a minute (a provider, a rebuild)."""
        return await asyncio.to_thread(work)

    async def create(self, writes: LoopWrites, write: Write[I, R], render: Callable[[R], ApiResponse]) -> ApiResponse:
        """Run ``write`` and render its result. With an Idempotency-Key it runs once in REMEMBER_MS."""
        write.size = len(self.raw)
        key = self.headers.get(b"idempotency-key")
        if key is None:
            return render(await writes.run(write))
        text = key.decode("latin-1")
        if not 1 <= len(text) <= 255 or not text.isprintable():
            raise ValidationError.of("Idempotency-Key", "must be 1 to 255 printable characters")
        fingerprint = hashlib.sha256(self.path.encode("utf-8", "surrogateescape") + b"\n" + self.raw).digest()
        services = self.services
        # A key in the other database belongs to another request: each database has routes of its own.
        other = services.notifications.store if writes is services.activity_writes else services.activity.store
        if await self.read(lambda: _is_used(other, self.caller.app, text)):
            raise _mismatch()
        return await writes.run(_idempotent(write, (self.caller.app, text, fingerprint), render))


def _is_used(store: Store, app: str, key: str) -> bool:
    since_ms = store.clock.now_ms() - REMEMBER_MS
    return store.read(lambda conn: find_response(conn, app, key, since_ms)) is not None


def _mismatch() -> IdempotencyMismatch:
    message = "was used before with another request"
    return IdempotencyMismatch(f"This Idempotency-Key {message}.", (FieldError("Idempotency-Key", message),))


def _idempotent(
    write: Write[I, R], key: tuple[str, str, bytes], render: Callable[[R], ApiResponse]
) -> Write[None, ApiResponse]:
    """Return ``write`` with its response stored in the same transaction. ``key``: app, key, request fingerprint."""

    def handle(tx: Tx, items: Sequence[None]) -> Sequence[ApiResponse | FlashFlowError]:
        app, name, fingerprint = key
        stored = find_response(tx.conn, app, name, tx.now_ms - REMEMBER_MS)
        if stored is not None:
            if stored.fingerprint != fingerprint:
                return [_mismatch()]
            return [ApiResponse(stored.status, stored.body, ((b"idempotency-replayed", b"true"),))]
        result = write.handler(tx, [write.item])[0]
        if isinstance(result, FlashFlowError):
            return [result]
        response = render(result)
        store_response(tx, app, name, StoredResponse(fingerprint, response.status, response.body))
        return [response]

    return Write(handle, None, write.weight, write.size)


@lru_cache(maxsize=1024)
def _user_id(text: str) -> str:
    return build(UserPath, user_id=text).user_id


@lru_cache(maxsize=256)
def _printable(raw: bytes) -> str | None:
    """Return a header as text, cached: an app sends the same value thousands of times."""
    return "".join(c for c in raw.decode("latin-1")[:512] if c.isprintable()).strip() or None
