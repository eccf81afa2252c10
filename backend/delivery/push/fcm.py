"""Firebase Cloud Messaging (HTTP v1) for Android, and for iOS apps with a Firebase token.

Browsers use Web Push, never FCM.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from flashflow.backend.core.clock import Clock
from flashflow.backend.delivery.net.http_client import Answer, HttpChannel, HttpClient, provider_message
from flashflow.backend.delivery.push.google_token import AccessTokens, Credentials
from flashflow.backend.delivery.push.payload import Buttons, apns_headers, aps, fitted, sendable
from flashflow.backend.domain.channel import ChannelError, Permanent, Throttled, TokenDead, Transient, accepted
from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome
from flashflow.backend.settings.model import FcmSettings

DEADLINE_S = 9.0
"""Seconds per exchange. A send has at most four (token, message, both repeated after a 401), which together with the
dispatcher's standby is shorter than its lease."""
MAX_TTL_S = 2_419_200
"""Four weeks, the limit of FCM."""
QUOTA_WAIT_S = 60.0
"""Seconds that FCM's documentation asks to wait after a 429 without Retry-After."""

_TOKEN = re.compile(r"[\x21-\x7e]{1,2000}")
_CODE = re.compile(r"[A-Z][A-Z_]{1,40}")
_RESERVED = re.compile(r"from|message_type|collapse_key|notification_id|google.*|gcm.*", re.DOTALL)
_SHOWN_AS = {"low": "PRIORITY_LOW", "high": "PRIORITY_HIGH", "urgent": "PRIORITY_MAX"}
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


class FcmChannel(HttpChannel):
    """Send each notification to the registration token in ``target``. Thread-safe."""

    name = "fcm"

    def __init__(self, settings: FcmSettings, clock: Clock, *, client: HttpClient | None = None) -> None:
        self._clock = clock
        self._base_url = settings.base_url.rstrip("/")
        self._client = client or HttpClient(connections=settings.connections, deadline_s=DEADLINE_S)
        self._credentials = Credentials(settings.credentials)
        self._tokens = AccessTokens(self._credentials, clock, self._client)

    def _probe(self) -> str:
        """Check that the credentials can be read, without a request to Google."""
        return provider_message(f"Firebase project {self._credentials.account().project_id}")

    def _send(self, notification: DeliveryMessage) -> Outcome:
        if notification.platform not in (None, "android", "ios"):
            raise Permanent("unsupported_platform", "FCM is used for Android and iOS devices only.")
        if not _TOKEN.fullmatch(notification.target or ""):
            raise Permanent("bad_token", "The device's token is not one that FCM gives out.")
        url = f"{self._base_url}/v1/projects/{quote(self._credentials.account().project_id, safe='')}/messages:send"
        content, note = message(notification, self._clock.now_ms())
        token = self._tokens.token()
        answer = self._post(url, token, content)
        if answer.status == 401 and _error(answer)[0] != "THIRD_PARTY_AUTH_ERROR":
            token = self._tokens.token(refused=token)
            answer = self._post(url, token, content)
        if answer.status != 200:
            raise self._refused(answer, notification, token)
        return _accepted(answer, note)

    def _post(self, url: str, token: str, content: bytes) -> Answer:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json; charset=utf-8"}
        return self._client.post(url, headers=headers, content=content)

    def _refused(self, answer: Answer, notification: DeliveryMessage, token: str) -> ChannelError:
        name, words = _error(answer)
        code = name.lower() or f"http_{answer.status}"
        text = provider_message(words, token, notification.target) or f"FCM answered {answer.status}."
        if answer.status == 404 and name == "UNREGISTERED":
            return TokenDead("unregistered", text)
        if answer.status == 401 and name != "THIRD_PARTY_AUTH_ERROR":
            return Permanent("unauthorized", text)
        if answer.status == 429:
            wait_s = answer.retry_after_s(self._clock)
            return Throttled(code, text, QUOTA_WAIT_S if wait_s is None else wait_s)
        return answer.refusal(self._clock, code, text)


def message(notification: DeliveryMessage, now_ms: int) -> tuple[bytes, str]:
    """Return the body of ``messages:send``, its message at most 4096 bytes, and a note of the parts left out."""
    data, left_out = _strings(notification)
    fixed: dict[str, Any] = {"token": notification.target}
    if notification.platform != "ios":
        fixed["android"] = _android(notification, now_ms)

    def encode(title: str, text: str, kept: Mapping[str, str], buttons: Buttons) -> bytes:
        values = {**kept, "notification_id": notification.notification_id}
        if buttons:
            values["actions"] = msgspec.json.encode(buttons).decode()
        if notification.platform == "ios":
            fixed["apns"] = {"headers": apns_headers(notification), "payload": {"aps": aps(notification, buttons)}}
        return msgspec.json.encode({**fixed, "notification": {"title": title, "body": text}, "data": values})

    payload, note = fitted(notification, data, encode)
    return b'{"message":' + payload + b"}", "; ".join(filter(None, (note, left_out)))


def _android(notification: DeliveryMessage, now_ms: int) -> dict[str, Any]:
    """Return the ``android`` part of a message.

    ``tag`` makes the tray replace an updated notification. The collapse key makes FCM do so for an offline device, but
    FCM keeps only four keys per device, so it is set only for collapsed notifications.
    """
    shown = {
        "tag": notification.notification_id,
        "notification_priority": _SHOWN_AS.get(notification.priority, "PRIORITY_DEFAULT"),
    }
    android: dict[str, Any] = {
        "priority": "HIGH" if notification.priority in ("high", "urgent") else "NORMAL",
        "notification": shown,
    }
    if notification.collapse_key is not None:
        android["collapse_key"] = notification.notification_id
    if notification.expires_at is not None:
        left_s = (notification.expires_at - now_ms) // 1000
        android["ttl"] = f"{min(max(left_s, 0), MAX_TTL_S)}s"
    return android


def _strings(notification: DeliveryMessage) -> tuple[dict[str, str], str]:
    """Return the data as strings, other values as JSON, and a note of the keys left out because they are reserved."""
    data, note = sendable(notification.data)
    taken = {"actions"} if notification.actions else set()
    kept = {key: _string(value) for key, value in data.items() if not _RESERVED.fullmatch(key) and key not in taken}
    gone = [key for key in data if key not in kept]
    return kept, f"left out of the data, because the name is reserved: {', '.join(gone)}" if gone else note


def _string(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _accepted(answer: Answer, note: str) -> Outcome:
    name = provider_message(answer.json_object().get("name"))
    if not name:
        raise Transient("bad_answer", "FCM answered 200 without a message name.")
    return accepted(provider_message(f"accepted as {name}{'; ' if note else ''}{note}"))


def _error(answer: Answer) -> tuple[str, str]:
    """Return FCM's error code, or else Google's status, and the error text."""
    error = answer.json_object().get("error")
    if not isinstance(error, dict):
        return "", ""
    details = error.get("details")
    codes = [
        detail.get("errorCode")
        for detail in (details if isinstance(details, list) else [])
        if isinstance(detail, dict) and detail.get("@type") == _FCM_ERROR
    ]
    named = [code for code in (*codes, error.get("status")) if isinstance(code, str) and _CODE.fullmatch(code)]
    words = error.get("message")
    return named[0] if named else "", words if isinstance(words, str) else ""
