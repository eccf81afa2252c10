"""One request of the API: its key, its checked input, and the answer that goes out."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from flashflow.backend.api.framework.body_decoder import BodyDecoder, decode_query
from flashflow.backend.api.framework.context import Services
from flashflow.backend.api.http.connection_places import recognise
from flashflow.backend.api.http.problem_json import MEDIA_TYPE, WHOLE, problem_bytes, problem_of
from flashflow.backend.api.http.request_metrics import RequestMetrics
from flashflow.backend.api_keys import Caller
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import (
    FieldError,
    FlashFlowError,
    Forbidden,
    IdempotencyMismatch,
    PayloadTooLarge,
    RateLimited,
    UnsupportedMediaType,
    ValidationError,
)
from flashflow.backend.schemas.requests import Input
from flashflow.backend.schemas.validation import Malformed, decode
from flashflow.backend.store.engine.cancellable_read import Reading
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import I, LoopWrites, R, Tx, Write

log = logging.getLogger(__name__)
T = TypeVar("T")

BODY_BYTES = 1024 * 1024
ANSWER_S = 10.0
REMEMBER_MS = 24 * 60 * 60 * 1000
"""How long an Idempotency-Key is honoured."""

JSON = b"application/json"
Headers = list[tuple[bytes, bytes]]
encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True):
    """What goes back: a status, the body's bytes, and headers beside the usual."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Streamed(Answer, frozen=True, kw_only=True):
    """An answer that is made while it goes out: ``go`` sends all of it, its head included."""

    go: Callable[[Scope, Receive, Send], Awaitable[None]]


def success(status: int = 200, /, **payload: Any) -> Answer:
    """``{"success": true, …}``."""
    return Answer(status, encode({"success": True, **payload}))


class ApiRequest:
    """What a handler sees of its request."""

    __slots__ = ("body", "caller", "headers", "ip_address", "params", "path", "query", "raw", "services")

    def __init__(self, scope: Scope, services: Services, caller: Caller, headers: dict[bytes, bytes]) -> None:
        self.services = services
        self.caller = caller
        self.headers = headers
        self.params: dict[str, str] = scope.get("path_params") or {}
        self.path: str = scope["path"]
        self.ip_address: str | None = scope["client"][0] if scope.get("client") else None
        self.raw = b""
        self.body: Any = None
        self.query: Any = None

    @property
    def user_agent(self) -> str | None:
        """The header, at most 512 characters and without control characters; None where there is none."""
        raw = self.headers.get(b"user-agent")
        return _printable(raw) if raw else None

    def app_for(self, named: str | None) -> str:
        """The app whose name a row gets: the key's, or with admin the one that was named."""
        if named is None or named == self.caller.app:
            return self.caller.app
        if self.caller.sees is not None:
            raise ValidationError.of("app", "may be given with an admin key only")
        return named

    def app_filter(self, named: str | None) -> str | None:
        """The app whose rows may be seen: all with admin (or the one named), else the key's own."""
        if self.caller.sees is None:
            return named
        if named is not None and named != self.caller.app:
            raise Forbidden("Another app's rows need the scope “admin”, which this key does not have.")
        return self.caller.app

    async def read(self, question: Callable[[], T], *, long: bool = False) -> T:
        """Answer ``question`` in a reading thread; a ``long`` one waits for others that are, and keeps nobody else
        waiting. Raises TimeoutError after ANSWER_S seconds, and ends what is read then."""
        readers = self.services.readers
        threads = readers.in_turn if long else readers.soon
        reading = Reading()
        try:
            async with asyncio.timeout(ANSWER_S):
                return await asyncio.get_running_loop().run_in_executor(threads, reading.run, question)
        except BaseException:
            reading.cancel()  # its time is over, or its client went away
            raise

    async def wait(self, work: Callable[[], T]) -> T:
        """Do ``work``, which asks a provider and may take half a minute, in a thread of its own."""
        return await asyncio.to_thread(work)

    async def create(
        self, store: Store, writes: LoopWrites, write: Write[I, R], render: Callable[[R], Answer]
    ) -> Answer:
        """Do ``write`` and answer with ``render`` of it; under an Idempotency-Key once in 24 hours."""
        write.size = len(self.raw)
        key = self.headers.get(b"idempotency-key")
        if key is None:
            return render(await writes.run(write))
        text = key.decode("latin-1")
        if not 1 <= len(text) <= 255 or not text.isprintable():
            raise ValidationError.of("Idempotency-Key", "must be 1 to 255 printable characters")
        fingerprint = hashlib.sha256(self.path.encode("utf-8", "surrogateescape") + b"\n" + self.raw).digest()
        for other in (self.services.activity.store, self.services.notifications.store):
            if other is not store and await self.read(lambda at=other: _stands(at, self.caller.app, text)):  # type: ignore[misc]
                raise _mismatch()
        return await writes.run(idempotent(write, (self.caller.app, text, fingerprint), render))


def _stands(store: Store, app: str, key: str) -> bool:
    """Whether ``key`` was used here in its 24 hours: for another request, since each file has routes of its own."""
    since = store.clock.now_ms() - REMEMBER_MS
    return store.read(
        lambda conn: (
            conn.execute(
                "SELECT 1 FROM idempotency_keys WHERE app = ? AND key = ? AND created_at > ?", (app, key, since)
            ).fetchone()
            is not None
        )
    )


def _mismatch() -> IdempotencyMismatch:
    return IdempotencyMismatch("This Idempotency-Key was used before with another request.", _ELSE)


_ELSE = (FieldError("Idempotency-Key", "was used before with another request"),)


def idempotent(write: Write[I, R], key: tuple[str, str, bytes], render: Callable[[R], Answer]) -> Write[None, Answer]:
    """``write`` with its answer kept in the same transaction: (app, key, fingerprint) again gives the first answer."""

    def handle(tx: Tx, items: Sequence[None]) -> Sequence[Answer | FlashFlowError]:
        app, name, fingerprint = key
        row = tx.conn.execute(
            "SELECT fingerprint, status, body FROM idempotency_keys WHERE app = ? AND key = ? AND created_at > ?",
            (app, name, tx.now_ms - REMEMBER_MS),
        ).fetchone()
        if row is not None:
            if bytes(row[0]) != fingerprint:
                return [_mismatch()]
            return [Answer(row[1], bytes(row[2]), ((b"idempotency-replayed", b"true"),))]
        result = write.handler(tx, [write.item])[0]
        if isinstance(result, FlashFlowError):
            return [result]
        answer = render(result)
        tx.conn.execute(
            "INSERT OR REPLACE INTO idempotency_keys (app, key, fingerprint, status, body, created_at) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (app, name, fingerprint, answer.status, answer.body, tx.now_ms),
        )
        return [answer]

    return Write(handle, None, write.weight, write.size)


@lru_cache(maxsize=256)
def _printable(raw: bytes) -> str | None:
    """A header as text: an app says the same thousands of times."""
    return "".join(c for c in raw.decode("latin-1")[:512] if c.isprintable()).strip() or None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the API: the same row routes the request and documents it."""

    method: str
    path: str
    scope: str | None
    handler: Callable[[ApiRequest], Awaitable[Answer]]
    summary: str
    answer: str
    body: type[Input] | None = None
    body_optional: bool = False
    query: type[Input] | None = None
    creates: bool = False
    check: Callable[[ApiRequest], object] | None = None
    """What the fields' types cannot say, asked of the fields that are right where others are not: raises
    ValidationError for each field that its handler would refuse."""
    media_type: str = "application/json"
    tag: str = ""


class AsgiEndpoint:
    """An Endpoint as an ASGI app: reads, checks, calls the handler, answers; never raises. Its answers are counted in
    ``requests``, unless whoever calls it counts them."""

    def __init__(self, endpoint: Endpoint, services: Services, requests: RequestMetrics | None = None) -> None:
        self._endpoint = endpoint
        self._services = services
        self._requests = requests
        self._decoder = None if endpoint.body is None else BodyDecoder(endpoint.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        close = False
        started = time.perf_counter()
        try:
            answer = await self._answer(scope, receive)
        except PayloadTooLarge as error:
            # What is left of the body is not read, so nothing after it on this connection can be a request.
            answer, close = refusal(error), True
        except Disconnected:
            return
        except Exception as error:  # noqa: BLE001 answer_to logs it
            answer = answer_to(error, self._endpoint.method, self._endpoint.path)
        if self._requests is not None:
            self._requests.add(self._endpoint.method, answer.status, time.perf_counter() - started)
        if isinstance(answer, Streamed):
            await answer.go(scope, receive, send)
            return
        usual = answer.status < 300 and not answer.headers and not close and scope["method"] != "HEAD"
        if usual and WHOLE in scope.get("extensions", ()):
            await send({"type": WHOLE, "status": answer.status, "head": _USUAL, "body": answer.body})
            return
        await respond(send, answer, close=close)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        headers = headers_of(scope)
        body = await read_body(receive, headers)
        endpoint = self._endpoint
        caller = authorize(self._services, headers, endpoint.scope)
        if endpoint.scope is not None:
            recognise(scope, caller.app)
        call = ApiRequest(scope, self._services, caller, headers)
        call.raw = body
        has_body = bool(body) or not (self._decoder is None or endpoint.body_optional)
        if has_body:
            require_json(headers)
        try:
            if has_body:
                call.body = decode(_NOTHING, body) if self._decoder is None else self._decoder.decode(body)
            if endpoint.query is not None or scope["query_string"]:
                call.query = decode_query(scope["query_string"], endpoint.query or _Nothing)
        except Malformed as error:
            raise self._every_fault(call, scope["query_string"], error) from None
        answer = await endpoint.handler(call)
        if endpoint.method == "GET" and not self._services.outgoing.has_room(caller.app, len(answer.body)):
            raise RateLimited("This key has asked for more than it has read. Read those answers first.")
        return answer

    def _every_fault(self, call: ApiRequest, query: bytes, first: Malformed) -> ValidationError:
        """Join ``first`` with what is wrong in the query and between the fields."""
        faults = ErrorCollector()
        with faults:
            raise first
        first.__traceback__ = None  # it leads to this very frame: the request would wait for the garbage collector
        if call.body is None and call.raw:
            call.body = first.part
        try:
            call.query = decode_query(query, self._endpoint.query or _Nothing)
        except Malformed as error:
            call.query = error.part
            with faults:
                raise
        if self._endpoint.check is not None and (call.body if self._endpoint.body else call.query) is not None:
            with faults:
                self._endpoint.check(call)
        return faults.error()


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The headers by name, as the guard left them: the last of several wins."""
    headers: dict[bytes, bytes] | None = scope.get("flashflow.headers")
    return dict(scope["headers"]) if headers is None else headers


class _Nothing(Input, frozen=True, kw_only=True):
    """No fields at all."""


_NOTHING = msgspec.json.Decoder(_Nothing)


class Disconnected(Exception):
    """The client went away before its request was read."""


async def read_body(receive: Receive, headers: dict[bytes, bytes]) -> bytes:
    """The whole body. Raises PayloadTooLarge beyond 1 MiB and Disconnected."""
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > BODY_BYTES:
        raise PayloadTooLarge("A body may have 1 MiB (1,048,576 bytes) at most.")
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > BODY_BYTES:
            raise PayloadTooLarge("A body may have 1 MiB (1,048,576 bytes) at most.")
        return body
    parts = [body]
    size = len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_BYTES:
            raise PayloadTooLarge("A body may have 1 MiB (1,048,576 bytes) at most.")
    return b"".join(parts)


async def drain(receive: Receive, headers: Headers) -> bool:
    """Read a refused request's body to its end, so that nothing left of it can be taken for the next request. False
    where there is no end to wait for: the connection ends with the answer."""
    try:
        await read_body(receive, dict(headers))
    except (PayloadTooLarge, Disconnected):
        return False
    return True


def authorize(services: Services, headers: dict[bytes, bytes], scope: str | None) -> Caller:
    """Who calls. Raises Unauthorized without a good key and Forbidden without ``scope``."""
    if scope is None:
        return ANYONE
    caller = services.keys.bearer(headers.get(b"authorization", b""))
    if not caller.may(scope):
        raise Forbidden(f"The key “{caller.app}” lacks the scope “{scope}”.")
    return caller


ANYONE = Caller("", frozenset())


def require_json(headers: dict[bytes, bytes]) -> None:
    """Raises UnsupportedMediaType unless the body is declared as (UTF-8) JSON."""
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("Send the body as it is, without a Content-Encoding.")
    declared = headers.get(b"content-type", b"")
    if declared == JSON:
        return
    kind, _, parameters = declared.lower().partition(b";")
    charset = parameters.strip().removeprefix(b"charset=").strip(b'"')
    if kind.strip() != JSON or charset not in {b"", b"utf-8"}:
        raise UnsupportedMediaType("Send `Content-Type: application/json`, in UTF-8.")


def refusal(error: FlashFlowError) -> Answer:
    """The problem+json that answers ``error``."""
    status, body = problem_of(error)
    headers: list[tuple[bytes, bytes]] = [(b"content-type", MEDIA_TYPE.encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="FlashFlow"'))
    elif status == 429:
        headers.append((b"retry-after", b"1"))
    return Answer(status, body, tuple(headers))


def answer_to(error: Exception, method: str, path: str) -> Answer:
    """The problem+json for whatever kept a request from being answered; a fault of ours is logged as well."""
    if isinstance(error, FlashFlowError):
        return refusal(error)
    if isinstance(error, TimeoutError):
        changed = "Nothing was changed." if method in {"GET", "HEAD"} else "It may or may not have been written."
        return Answer(504, problem_bytes(504, "timeout", "No answer in time", changed))
    log.error("%s %s failed", method, path, exc_info=error)
    return Answer(500, problem_bytes(500, "internal_error", "Something went wrong", "See FlashFlow's log."))


_USUAL = b"content-type: application/json\r\ncache-control: no-store\r\n"
_NO_STORE = (b"cache-control", b"no-store")
_AS_JSON = (b"content-type", JSON)
_AS_PROBLEM = (b"content-type", MEDIA_TYPE.encode())


async def respond(send: Send, answer: Answer, *, close: bool = False) -> None:
    """Send ``answer``; ``close`` ends the connection after it."""
    headers: Headers = [(b"content-length", b"%d" % len(answer.body)), _NO_STORE]
    if not any(name == b"content-type" for name, _ in answer.headers):
        headers.append(_AS_JSON if answer.status < 400 else _AS_PROBLEM)
    headers.extend(answer.headers)
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
