"""Apple Push Notification service over HTTP/2 with token authentication.

Source: Apple, "Sending notification requests to APNs" and "Handling notification responses from APNs".
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from flashflow.backend.core.clock import Age, Clock, rfc3339
from flashflow.backend.delivery.net.http_client import Answer, HttpChannel, HttpClient, provider_message
from flashflow.backend.delivery.push.payload import Buttons, Fitted, apns_headers, aps, fitted, sendable
from flashflow.backend.domain.channel import ChannelError, Permanent, TargetThrottled, TokenDead, Transient, accepted
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome
from flashflow.backend.settings.model import ApnsSettings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

REUSE_S = 2400.0
"""Seconds that a provider token is used. APNs refuses tokens older than 60 minutes and more than one in 20 minutes."""
FORCED_S = 1200.0
MAX_KEY_FILE = 64 * 1024

_DEVICE = re.compile(r"(?:[0-9A-Fa-f]{2}){1,100}")
_REASON = re.compile(r"[A-Z][A-Za-z]{1,60}")
_LAST_MS = 253_402_300_799_999
"""End of the year 9999 in milliseconds."""


class ApnsChannel(HttpChannel):
    """Send each notification to the device token in ``target``. Thread-safe."""

    name = "apns"

    def __init__(self, settings: ApnsSettings, clock: Clock, *, client: HttpClient | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._client = client or HttpClient(http2=True, connections=settings.connections)
        self._tokens = ProviderTokens(settings, clock)

    def _probe(self) -> str:
        """Check that the key can be read, without a request to Apple."""
        self._tokens.key()
        host = urlsplit(self._settings.base_url).hostname
        return provider_message(f"{self._settings.topic} through {host}")

    def _send(self, notification: DeliveryMessage) -> Outcome:
        device = notification.target or ""
        if not _DEVICE.fullmatch(device):
            raise Permanent("bad_token", "The device's token is not one that APNs gives out.")
        url = f"{self._settings.base_url.rstrip('/')}/3/device/{device}"
        content, note = payload(notification)
        token = self._tokens.token()
        answer = self._post(url, token, notification, content)
        if answer.status == 403 and _reason(answer) == "ExpiredProviderToken":
            renewed = self._tokens.token(refused=token)
            if renewed != token:
                answer = self._post(url, renewed, notification, content)
        if answer.status != 200:
            raise self._refused(answer, notification)
        name = provider_message(answer.headers.get("apns-id")) or apns_id(notification.delivery_id)
        return accepted(provider_message(f"accepted as {name}{'; ' if note else ''}{note}"))

    def _post(self, url: str, token: str, notification: DeliveryMessage, content: bytes) -> Answer:
        headers = {
            "authorization": f"bearer {token}",
            "apns-topic": self._settings.topic,
            "apns-push-type": "alert",
            "apns-id": apns_id(notification.delivery_id),
            "content-type": "application/json",
            **apns_headers(notification),
        }
        return self._client.post(url, headers=headers, content=content)

    def _refused(self, answer: Answer, notification: DeliveryMessage) -> ChannelError:
        reason = _reason(answer)
        code = _snake(reason) or f"http_{answer.status}"
        text = f"APNs answered {answer.status}{': ' if reason else ''}{reason}."
        if answer.status == 410:
            return _gone(answer, notification, code, text)
        if answer.status == 403:
            return Permanent("unauthorized", text)
        if reason == "IdleTimeout":  # a 400 that concerns only the connection
            return Transient(code, text)
        if reason == "TooManyRequests":  # "made consecutively to the same device token"
            return TargetThrottled(code, text, answer.retry_after_s(self._clock))
        return answer.refusal(self._clock, code, text)


class ProviderTokens:
    """Signed provider token of the team, shared by all threads."""

    def __init__(self, settings: ApnsSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.RLock()
        self._key: EllipticCurvePrivateKey | None = None
        self._token: str | None = None
        self._age = Age(clock)
        self._forced_at: float | None = None

    def key(self) -> EllipticCurvePrivateKey:
        """Return the key. Raises Permanent ``bad_credentials``; its text contains nothing of the file."""
        with self._lock:
            if self._key is None:
                self._key = _key(self._settings.key_file)
            return self._key

    def token(self, refused: str | None = None) -> str:
        """Return the current token; sign a new one when it is old or was ``refused`` as expired.

        A refusal has this effect once in 20 minutes: if the clock is wrong, APNs would refuse new tokens, too. Raises
        as ``key`` does.
        """
        with self._lock:
            if refused is not None and refused == self._token and self._may_force():
                self._forced_at = self._clock.monotonic()
                self._token = None
            if self._token is None or not self._age.is_below(REUSE_S):
                self._token, self._age = self._sign(), Age(self._clock)
            return self._token

    def _sign(self) -> str:
        import jwt

        claims = {"iss": self._settings.team_id, "iat": self._clock.now_ms() // 1000}
        return jwt.encode(claims, self.key(), algorithm="ES256", headers={"kid": self._settings.key_id})

    def _may_force(self) -> bool:
        return self._forced_at is None or self._clock.monotonic() - self._forced_at >= FORCED_S


def payload(notification: DeliveryMessage) -> Fitted:
    """Return the payload, at most 4096 bytes. The caller's data is under ``data``, apart from Apple's keys."""

    def encode(title: str, text: str, kept: Mapping[str, Any], buttons: Buttons) -> bytes:
        shown = {"alert": {"title": title, "body": text}, **aps(notification, buttons)}
        content: dict[str, Any] = {"aps": shown, "notification_id": notification.notification_id}
        return msgspec.json.encode(
            content | ({"actions": buttons} if buttons else {}) | ({"data": kept} if kept else {})
        )

    data, left_out = sendable(notification.data)
    content, note = fitted(notification, data, encode)
    return Fitted(content, note or left_out)


def apns_id(delivery_id: str) -> str:
    """Return a UUID that is the same at each try of a delivery."""
    try:
        return str(uuid.UUID(delivery_id))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"flashflow:delivery:{delivery_id}"))


def _gone(answer: Answer, notification: DeliveryMessage, code: str, text: str) -> ChannelError:
    """Return the error for a 410, which carries the time since when the token is dead.

    If the device registered again after that time, the answer is outdated and the delivery is retried.
    """
    at = answer.json_object().get("timestamp")
    if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at <= _LAST_MS or notification.registered_at is None:
        return Permanent(code, f"{text} It is unknown whether that was before the device registered.")
    if at >= notification.registered_at:
        return TokenDead(code, text)
    again = f"The device was registered again at {rfc3339(notification.registered_at)}"
    return Transient(f"{code}_before", f"{text} That was at {rfc3339(at)}. {again}.")


def _reason(answer: Answer) -> str:
    reason = answer.json_object().get("reason")
    return reason if isinstance(reason, str) and _REASON.fullmatch(reason) else ""


def _snake(reason: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", reason).lower()


def _key(path: str) -> EllipticCurvePrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with Path(path).expanduser().open("rb") as file:
            key = load_pem_private_key(file.read(MAX_KEY_FILE), password=None)
    except OSError as error:
        raise _bad(f"its file cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, RuntimeError, UnsupportedAlgorithm):
        raise _bad("its file holds no private key without a password") from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise _bad("it is not a P-256 key")
    return key


def _bad(why: str) -> Permanent:
    return Permanent("bad_credentials", f"The APNs key cannot be used: {why}.")
