"""Web Push channel: encrypted notifications to browsers through their makers' push services (RFC 8030).

The body can be decrypted only by the browser (RFC 8291) and is padded to hide its length; the service sees time and
urgency only. The endpoint URL comes from a caller, so every connection passes the SSRF guard.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import msgspec

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.errors import ValidationError
from flashflow.backend.delivery.net.circuit_breaker import CircuitBreaker
from flashflow.backend.delivery.net.http_client import Answer, HttpChannel, HttpClient, provider_message
from flashflow.backend.delivery.net.ssrf_guard import SsrfGuard
from flashflow.backend.delivery.net.text import lines, one_line
from flashflow.backend.delivery.push.payload import longest, sendable
from flashflow.backend.delivery.push.vapid import VapidKeys
from flashflow.backend.domain.channel import Permanent, TargetThrottled, TokenDead, accepted
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome
from flashflow.backend.domain.device_address import origin_of, parse_url, to_base64url, web_push_address
from flashflow.backend.settings.model import WebPushSettings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

LONGEST_TTL_S = 28 * 24 * 3600
"""Longest TTL in seconds of the largest service, used for notifications without ``expires_at``."""
LARGEST_BODY = 4096
"""Body size in bytes that every push service accepts (RFC 8291, 4)."""
LARGEST_CONTENT = LARGEST_BODY - 86 - 16 - 1
"""Payload bytes (3,993) left after the header, the AEAD tag and the padding delimiter."""
PADDED_TO = 256
LEAST_MESSAGE = 500
"""Bytes of the message kept in preference to a second button or a link."""

_URGENCY = {"low": "low", "normal": "normal", "high": "high", "urgent": "high"}
_TAG = re.compile(r"<[^<>]*>")
_encode = msgspec.json.Encoder().encode


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A validated subscription; ``p256dh`` is the browser's public point (65 bytes), ``auth`` its secret (16 bytes)."""

    endpoint: str
    origin: str
    """Origin of the push service for VAPID (RFC 8292, 2): scheme, host and any non-default port."""
    p256dh: bytes
    auth: bytes

    def __repr__(self) -> str:
        return f"Subscription({self.origin})"  # the rest is secret

    def secrets(self) -> list[str]:
        """Return the strings to remove from messages, in every spelling that a service may use.

        The endpoint's path is a capability: it suffices to push to this browser.
        """
        path = self.endpoint[len(self.origin) :]
        parts = [part for part in re.split(r"[/?&=:;,]", path) if len(part) >= 8]
        keys = [to_base64url(key) for key in (self.p256dh, self.auth)]
        plain = [self.endpoint, *([path] if len(path) >= 8 else []), *parts, *keys]
        return [spelling for text in plain for spelling in (text, quote(text, safe=""), unquote(text))]


class WebPushChannel(HttpChannel):
    """Send to browsers. Thread-safe.

    ``key_path``: file of the VAPID key, created at first use. ``client``: must have ``ssrf_guard`` as its resolver; the
    channel closes it.
    """

    name = "webpush"

    def __init__(
        self,
        settings: WebPushSettings,
        clock: Clock,
        *,
        key_path: Path,
        ssrf_guard: SsrfGuard,
        client: HttpClient | None = None,
    ) -> None:
        self._subject = settings.subject
        self._clock = clock
        self._key_path = key_path
        self._ssrf_guard = ssrf_guard
        self._client = client or HttpClient(connections=settings.connections, resolver=ssrf_guard)
        self._circuit_breaker = CircuitBreaker()

    @property
    def public_key(self) -> str:
        """The ``applicationServerKey`` for browsers. Raises Transient or Permanent ``vapid_key``."""
        return self._keys.public_key

    def _probe(self) -> str:
        """Check that the key can be used, without a request to a push service."""
        _ = self.public_key
        return f"push services can reach the owner at {self._subject}"

    def _send(self, notification: DeliveryMessage) -> Outcome:
        subscription = read_subscription(notification.target, self._ssrf_guard)
        now_ms = self._clock.now_ms()
        authorization = self._keys.authorization(subscription.origin, self._subject, now_ms / 1000)
        headers = {
            "Authorization": authorization,
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(_ttl_s(notification, now_ms)),
            "Urgency": _URGENCY.get(notification.priority, "normal"),
        }
        if notification.collapse_key is not None:
            # Only then: a service keeps few topics for an offline browser and drops the messages of the others.
            headers["Topic"] = _topic(notification.notification_id)
        body = encrypt(payload(notification), subscription, salt=os.urandom(16), sender=_new_key())
        with self._circuit_breaker.exchange(subscription.origin):
            answer = self._client.post(subscription.endpoint, headers=headers, content=body)
        signed = authorization.removeprefix("vapid t=").partition(",")[0]
        return self._outcome(answer, [*subscription.secrets(), authorization, signed])

    @cached_property
    def _keys(self) -> VapidKeys:
        """The key pair, read at first use. Two threads may read it at once; they get the same pair."""
        return VapidKeys.load_or_create(self._key_path)

    def _outcome(self, answer: Answer, secrets: list[str]) -> Outcome:
        status = answer.status
        if status in (200, 201, 202, 204):
            return accepted("accepted by the push service for the browser")
        text = provider_message(_error_text(answer), *secrets) or f"The push service answered {status} without a text."
        if 300 <= status < 400:
            raise Permanent("redirected", f"The push service answered {status}, and a redirect is not followed.")
        if status in (404, 410):
            raise TokenDead("gone", text)
        if status in (406, 429):  # Microsoft's push service (Edge) uses 406 for "too many"
            # One of many services, chosen by callers: its wait must not pause the others.
            raise TargetThrottled(f"http_{status}", text, answer.retry_after_s(self._clock))
        error = answer.refusal(self._clock, f"http_{status}", text)
        error.alone = error.retry_after_s is not None
        raise error


def read_subscription(target: str | None, ssrf_guard: SsrfGuard) -> Subscription:
    """Parse and check a target. Raises Permanent ``bad_subscription`` or ``private_address``."""
    try:
        given = web_push_address(target or "")
        parts = parse_url(given.endpoint)
    except (ValidationError, ValueError) as error:
        raise _bad(str(error)) from None
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme != "https" and not ssrf_guard.allows(host, port):
        raise _bad("the endpoint does not begin with https://")
    ssrf_guard.check_host(host, port)
    return Subscription(endpoint=given.endpoint, origin=origin_of(parts), p256dh=given.p256dh, auth=given.auth)


def payload(notification: DeliveryMessage) -> bytes:
    """Return the JSON for the page's service worker, at most 3,993 bytes.

    If it is too long, leave out ``data``, then the buttons, the end of the message, the link and the end of the title,
    and set ``truncated``. Raises Permanent ``too_large`` if ids, type and app alone do not fit.
    """
    title, message = one_line(notification.title) or lines(notification.app), lines(notification.message)
    core: dict[str, Any] = {
        "title": title,
        "message": message,
        "notification_id": lines(notification.notification_id),
        "type": lines(notification.notification_type),
        "app": lines(notification.app),
        "priority": notification.priority,
        "tag": lines(notification.collapse_key or notification.notification_id),
        "count": notification.count,
    }
    links = [{"label": lines(link.label), "url": lines(link.url)} for link in notification.actions]
    link = {"url": links[0]["url"]} if links else {}
    buttons = {**link, "actions": links} if links else {}
    data, left_out = sendable(notification.data)
    everything = _encode({**core, **buttons, **({} if notification.data is None else {"data": data})})
    if len(everything) <= LARGEST_CONTENT and not left_out:
        return everything
    core["truncated"] = True
    for rest in (buttons, link, {}):
        room = LARGEST_CONTENT - len(_encode({**core, "message": "", **rest}))
        if room >= min(_size(message), LEAST_MESSAGE):
            return _encode({**core, "message": _cut(message, room), **rest})
    core["message"] = _cut(message, LEAST_MESSAGE)
    room = LARGEST_CONTENT - len(_encode({**core, "title": ""}))
    if room < 0:
        raise Permanent("too_large", "The notification's type, app or key alone is larger than a push service accepts.")
    return _encode({**core, "title": _cut(title, room)})


def encrypt(content: bytes, browser: Subscription, *, salt: bytes, sender: EllipticCurvePrivateKey) -> bytes:
    """Return the body of a push: one padded ``aes128gcm`` record (RFC 8188) with keys by RFC 8291.

    ``content``: at most 3,993 bytes. ``salt`` (16 bytes) and ``sender`` must be new for every message.
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
    """Return the record's length: content plus delimiter, rounded up to ``PADDED_TO``."""
    return min(-(-(length + 1) // PADDED_TO) * PADDED_TO, LARGEST_CONTENT + 1)


def _ttl_s(notification: DeliveryMessage, now_ms: int) -> int:
    """Return the TTL in whole seconds. Raises Permanent ``expired``."""
    if notification.expires_at is None:
        return LONGEST_TTL_S
    if notification.expires_at <= now_ms:
        raise Permanent("expired", "The notification expired before it could be sent.")
    return min((notification.expires_at - now_ms) // 1000, LONGEST_TTL_S)


def _topic(notification_id: str) -> str:
    """Return a topic of 32 base64url characters (RFC 8030, 5.4), the same for every update of a notification.

    It is a hash, because the service can read it.
    """
    digest = hashlib.sha256(b"topic\0" + notification_id.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest[:24]).decode()


def _error_text(answer: Answer) -> str:
    """Return the error text of an answer: a field of its JSON, else its text without markup."""
    found = answer.json_object()
    if isinstance(found.get("error"), dict):
        found = found["error"]
    named = next((str(found[name]) for name in ("message", "reason", "error") if found.get(name)), "")
    return named or _TAG.sub(" ", answer.body.decode("utf-8", "replace"))


def _size(text: str) -> int:
    """Return the bytes that ``text`` takes in a JSON string."""
    return len(_encode(text)) - 2


def _cut(text: str, room: int) -> str:
    """Cut ``text`` to ``room`` bytes in JSON, with an ellipsis if something was removed."""
    return longest(text, 0, lambda cut: _size(cut) <= room) or ""


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _bad(why: str) -> Permanent:
    return Permanent("bad_subscription", f"This is not a valid push subscription: {why}.")
