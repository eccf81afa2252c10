"""Web Push: a notice to one browser, encrypted for it alone, through the push service its maker runs (RFC 8030).

The service sees how often and how urgently, never what: the body can be read only with the browser's own keys
(RFC 8291), and it is padded, so that its length tells little. Where the service is, the subscription says, and that
comes from a caller: every connection goes through the Reach.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import msgspec

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.delivery.net.circuit_breaker import CircuitBreaker
from flashflow.backend.delivery.net.http_client import Answer, HttpClient, provider_message, refusal, retry_after
from flashflow.backend.delivery.net.ssrf_guard import SsrfGuard
from flashflow.backend.delivery.net.text import ELLIPSIS, lines, one_line
from flashflow.backend.delivery.push.vapid import VapidKeys
from flashflow.backend.domain.channel import (
    BaseChannel,
    ChannelError,
    DeliveryMessage,
    Health,
    Outcome,
    Permanent,
    TargetThrottled,
    TokenDead,
)
from flashflow.backend.domain.device_address import origin_of, parse_url, to_base64url, web_push_address
from flashflow.backend.settings.model import WebPushSettings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

LONGEST_TTL_S = 28 * 24 * 3600
"""What the largest service keeps a notice at most, and how long one waits for its browser without ``expires_at``."""
LARGEST_BODY = 4096
"""Bytes that every push service takes (RFC 8291, 4)."""
LARGEST_CONTENT = LARGEST_BODY - 86 - 16 - 1
"""What is left of them for the payload: 3,993, after the header, the AEAD's tag and the padding's delimiter."""
PADDED_TO = 256
LEAST_MESSAGE = 500
"""Bytes of the message that matter more than a second button or a link."""

_URGENCY = {"low": "low", "normal": "normal", "high": "high", "urgent": "high"}
_TAG = re.compile(r"<[^<>]*>")
_encode = msgspec.json.Encoder().encode


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A browser's subscription, checked: ``p256dh`` is its public point (65 bytes), ``auth`` its secret (16)."""

    endpoint: str
    origin: str
    """The push service as VAPID names it (RFC 8292, 2): scheme and host, and the port if it is unusual."""
    p256dh: bytes
    auth: bytes

    def __repr__(self) -> str:
        return f"Subscription({self.origin})"  # the rest is secret

    def secrets(self) -> list[str]:
        """What must not be repeated, in every spelling a service might use: whoever has the endpoint's path can be
        this browser's push service."""
        path = self.endpoint[len(self.origin) :]
        parts = [part for part in re.split(r"[/?&=:;,]", path) if len(part) >= 8]
        keys = [to_base64url(key) for key in (self.p256dh, self.auth)]
        plain = [self.endpoint, *([path] if len(path) >= 8 else []), *parts, *keys]
        return [spelling for text in plain for spelling in (text, quote(text, safe=""), unquote(text))]


class WebPushChannel(BaseChannel):
    """Sends to browsers. Thread-safe.

    ``key_path``: the file with our VAPID key, made at first use. ``client``, where one is given, was made with
    ``reach`` as its resolver; the channel closes it.
    """

    name = "webpush"

    def __init__(
        self,
        settings: WebPushSettings,
        clock: Clock,
        *,
        key_path: Path,
        reach: SsrfGuard,
        client: HttpClient | None = None,
    ) -> None:
        self._subject = settings.subject
        self._clock = clock
        self._key_path = key_path
        self._reach = reach
        self._client = client or HttpClient(connections=settings.connections, resolver=reach)
        self._patience = CircuitBreaker()
        self._lock = threading.Lock()
        self._loaded: VapidKeys | None = None

    @property
    def public_key(self) -> str:
        """What a page hands its browser as ``applicationServerKey``. Raises Transient or Permanent ``vapid_key``."""
        return self._keys().public_key

    def health(self) -> Health:
        """Whether the key can be used; no push service is asked."""
        try:
            self._keys()
        except ChannelError as error:
            return Health(works=False, detail=error.text)
        return Health(works=True, detail=f"push services can reach the owner at {self._subject}")

    def close(self) -> None:
        """End what is under way; what is sent later is answered ``stopping``."""
        self._client.close()

    def _send(self, notice: DeliveryMessage) -> Outcome:
        subscription = read_subscription(notice.target, self._reach)
        now_ms = self._clock.now_ms()
        authorization = self._keys().authorization(subscription.origin, self._subject, now_ms / 1000)
        headers = {
            "Authorization": authorization,
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(_ttl_s(notice, now_ms)),
            "Urgency": _URGENCY.get(notice.priority, "normal"),
        }
        if notice.collapse_key is not None:
            # Only then: a service keeps few topics for a browser that is away, and drops what is under the others.
            headers["Topic"] = _topic(notice.notification_id)
        body = encrypt(payload(notice), subscription, salt=os.urandom(16), sender=_new_key())
        with self._patience.asking(subscription.origin):
            answer = self._client.post(subscription.endpoint, headers=headers, content=body)
        signed = authorization.removeprefix("vapid t=").partition(",")[0]
        return self._outcome(answer, [*subscription.secrets(), authorization, signed])

    def _keys(self) -> VapidKeys:
        with self._lock:
            if self._loaded is None:
                self._loaded = VapidKeys.load_or_create(self._key_path)
            return self._loaded

    def _outcome(self, answer: Answer, secrets: list[str]) -> Outcome:
        status = answer.status
        if status in (200, 201, 202, 204):
            return Outcome(outcome="sent", code="accepted", text="taken by the push service, which passes it on")
        text = provider_message(_words(answer.body), *secrets) or f"The push service answered {status} without a word."
        if 300 <= status < 400:
            raise Permanent("redirected", f"The push service answered {status}, and a redirect is not followed.")
        if status in (404, 410):
            raise TokenDead("gone", text)
        if status in (406, 429):  # 406 is how Windows' push service, which Edge uses, says "too many"
            # One of many services, and callers name them: it has no say in when the others are asked.
            raise TargetThrottled(f"http_{status}", text, retry_after(answer, self._clock))
        error = refusal(answer, self._clock, f"http_{status}", text)
        error.alone = error.retry_after_s is not None
        raise error


def read_subscription(target: str | None, reach: SsrfGuard) -> Subscription:
    """Raises Permanent ``bad_subscription``, or ``private_address`` where the endpoint's host gives itself away."""
    try:
        given = web_push_address(target or "")
        parts = parse_url(given.endpoint)
    except (ValidationError, ValueError) as error:
        raise _bad(str(error)) from None
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme != "https" and not reach.allows(host, port):
        raise _bad("the endpoint does not begin with https://")
    reach.check_host(host, port)
    return Subscription(endpoint=given.endpoint, origin=origin_of(parts), p256dh=given.p256dh, auth=given.auth)


def payload(notice: DeliveryMessage) -> bytes:
    """The JSON that the page's service worker gets, at most 3,993 bytes.

    If it is too much, ``data`` goes first, then the buttons, then the end of the message, the link and the end of the
    title, and ``truncated`` says so. Raises Permanent ``too_large`` if the names alone do not fit.
    """
    title, message = one_line(notice.title) or lines(notice.app), lines(notice.message)
    core: dict[str, Any] = {
        "title": title,
        "message": message,
        "notification_id": lines(notice.notification_id),
        "type": lines(notice.notification_type),
        "app": lines(notice.app),
        "priority": notice.priority,
        "tag": lines(notice.collapse_key or notice.notification_id),
        "count": notice.count,
    }
    links = [{"label": lines(link.label), "url": lines(link.url)} for link in notice.actions]
    link = {"url": links[0]["url"]} if links else {}
    buttons = {**link, "actions": links} if links else {}
    data = _plain(notice.data)
    whole = _encode({**core, **buttons, **({} if data is None else {"data": data})})
    if len(whole) <= LARGEST_CONTENT and (data is not None or notice.data is None):
        return whole
    core["truncated"] = True
    for rest in (buttons, link, {}):
        room = LARGEST_CONTENT - len(_encode({**core, "message": "", **rest}))
        if room >= min(_size(message), LEAST_MESSAGE):
            return _encode({**core, "message": _fitted(message, room), **rest})
    core["message"] = _fitted(message, LEAST_MESSAGE)
    room = LARGEST_CONTENT - len(_encode({**core, "title": ""}))
    if room < 0:
        raise Permanent("too_large", "The notice's type, app or key alone is more than a push service takes.")
    return _encode({**core, "title": _fitted(title, room)})


def encrypt(content: bytes, browser: Subscription, *, salt: bytes, sender: EllipticCurvePrivateKey) -> bytes:
    """The whole body of a push: one padded record in ``aes128gcm`` (RFC 8188), with keys by RFC 8291.

    ``content`` has at most 3,993 bytes; ``salt`` (16 bytes) and ``sender`` are new for every message.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    def derived(secret: bytes, with_salt: bytes, info: bytes, length: int) -> bytes:
        return HKDF(SHA256(), length, with_salt, info).derive(secret)

    receiver = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), browser.p256dh)
    ours = sender.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    info = b"WebPush: info\0" + browser.p256dh + ours
    secret = derived(sender.exchange(ec.ECDH(), receiver), browser.auth, info, 32)
    key = derived(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
    nonce = derived(secret, salt, b"Content-Encoding: nonce\0", 12)
    record = (content + b"\x02").ljust(_padded(len(content)), b"\0")
    header = salt + LARGEST_BODY.to_bytes(4, "big") + len(ours).to_bytes(1, "big") + ours
    return header + AESGCM(key).encrypt(nonce, record, None)


def _padded(length: int) -> int:
    """The record's length: the content's and its delimiter's, rounded up."""
    return min(-(-(length + 1) // PADDED_TO) * PADDED_TO, LARGEST_CONTENT + 1)


def _ttl_s(notice: DeliveryMessage, now_ms: int) -> int:
    """How long the service keeps the notice for a browser that is away, in whole seconds."""
    if notice.expires_at is None:
        return LONGEST_TTL_S
    if notice.expires_at <= now_ms:
        raise Permanent("expired", "The notice expired before it could be sent.")
    return min((notice.expires_at - now_ms) // 1000, LONGEST_TTL_S)


def _topic(notification_id: str) -> str:
    """32 base64url characters (RFC 8030, 5.4), the same for each update of one notification. Hashed: the service reads
    it."""
    digest = hashlib.sha256(b"topic\0" + notification_id.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest[:24]).decode()


def _words(body: bytes) -> str:
    """What a service says is wrong: a field of its JSON, or else its text without markup."""
    text = body.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return _TAG.sub(" ", text)
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        found = found["error"]
    if isinstance(found, dict):
        return next((str(found[name]) for name in ("message", "reason", "error") if found.get(name)), text)
    return text


def _plain(data: dict[str, Any] | None) -> msgspec.Raw | None:
    """``data`` as JSON; None where it is not JSON at heart."""
    if data is None:
        return None
    try:
        return msgspec.Raw(_encode(data))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def _size(text: str) -> int:
    """Bytes of ``text`` inside a JSON string."""
    return len(_encode(text)) - 2


def _fitted(text: str, room: int) -> str:
    """As much of ``text`` as takes ``room`` bytes in JSON, with an ellipsis where something was left out."""
    if _size(text) <= room:
        return text
    low, high = 0, min(len(text), room)
    while low < high:
        middle = (low + high + 1) // 2
        if _size(text[:middle].rstrip() + ELLIPSIS) <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + ELLIPSIS if low else ""


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _bad(why: str) -> Permanent:
    return Permanent("bad_subscription", f"This is not a browser's push subscription: {why}.")
