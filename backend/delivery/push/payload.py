"""Parts common to FCM and APNs: fitting a notification into 4 KiB, and the APNs headers and ``aps`` dictionary."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.delivery.net.text import ELLIPSIS, lines, one_line
from flashflow.backend.domain.channel import Permanent
from flashflow.backend.domain.delivery_messages import DeliveryMessage

MAX_PAYLOAD = 4096
"""Bytes; the limit of FCM ("total size of the payload data") and APNs ("maximum payload size")."""
SHOWN_MESSAGE = 200
"""Characters of the message kept in preference to the data: about as many as a phone shows unopened."""

_LEVELS = {"low": "passive", "urgent": "time-sensitive"}
_SAFE_ID = re.compile(r"[\x21-\x7e]{1,64}")

CATEGORY = "flashflow.actions"
"""Category under which an iOS app can declare buttons for notifications with actions."""

Buttons = Sequence[Mapping[str, str]]
"""``label`` and ``url`` of each action."""
Encode = Callable[[str, str, Mapping[str, Any], Buttons], bytes]
"""Encode the payload of a title, a message, the data and the buttons (both may be empty)."""


class Fitted(NamedTuple):
    """A payload within the limit; ``note`` names the parts left out, "" if none."""

    payload: bytes
    note: str


def fitted(notification: DeliveryMessage, data: Mapping[str, Any], encode: Encode, limit: int = MAX_PAYLOAD) -> Fitted:
    """Encode a notification in at most ``limit`` bytes.

    As needed, cut the message, leave out the data, leave out the buttons, cut the title. Raises Permanent ``too_large``
    if that is not enough.
    """
    title, message = one_line(notification.title), lines(notification.message).strip()
    buttons = [{"label": lines(link.label), "url": lines(link.url)} for link in notification.actions]

    def fits(kept: Mapping[str, Any], links: Buttons, text: str) -> bool:
        return len(encode(title, text, kept, links)) <= limit

    tries: list[tuple[Mapping[str, Any], Buttons, int]] = [(data, buttons, SHOWN_MESSAGE), ({}, [], 0)]
    if buttons:
        tries.insert(1, ({}, buttons, SHOWN_MESSAGE))
    for kept, links, least in tries:
        text = longest(message, least, partial(fits, kept, links))
        if text is not None:
            cut = ["the message was cut"] if text != message else []
            gone = ["the data was left out"] if data and not kept else []
            gone += ["the actions were left out"] if buttons and not links else []
            return Fitted(encode(title, text, kept, links), " and ".join(cut + gone))
    short = longest(title, 1, lambda text: len(encode(text, "", {}, [])) <= limit)
    if short is None:
        raise Permanent("too_large", f"The notification does not fit into {limit} bytes.")
    return Fitted(encode(short, "", {}, []), "only the title fitted")


def sendable(data: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], str]:
    """Return ``data`` if it can be encoded as JSON (lone surrogates cannot), else an empty mapping and a note."""
    try:
        msgspec.json.encode(data)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return {}, "the data was left out, because it cannot be encoded as JSON"
    return data or {}, ""


def aps(notification: DeliveryMessage, buttons: Buttons) -> dict[str, Any]:
    """Return the ``aps`` dictionary without its texts. Critical alerts need an entitlement from Apple and are not used.

    The app shows the buttons, by its declared category or by an extension that changes the content.
    """
    shown: dict[str, Any] = {
        "thread-id": notification.app,
        "interruption-level": _LEVELS.get(notification.priority, "active"),
        **({"category": CATEGORY, "mutable-content": 1} if buttons else {}),
    }
    return shown if notification.priority == "low" else {**shown, "sound": "default"}


def apns_headers(notification: DeliveryMessage) -> dict[str, str]:
    """Return the APNs headers: immediate unless the priority is low, expiry, and replacement of the earlier state."""
    headers = {
        "apns-priority": "5" if notification.priority == "low" else "10",
        "apns-collapse-id": collapse_id(notification.notification_id),
    }
    if notification.expires_at is not None:
        headers["apns-expiration"] = str(max(1, notification.expires_at // 1000))  # 0 would mean: now or never
    return headers


def collapse_id(notification_id: str) -> str:
    """Return an id of at most 64 bytes that is valid in a header."""
    if _SAFE_ID.fullmatch(notification_id):
        return notification_id
    return hashlib.sha256(notification_id.encode("utf-8", "surrogatepass")).hexdigest()


def longest(text: str, least: int, fits: Callable[[str], bool]) -> str | None:
    """Return the longest prefix of ``text`` that fits with an ellipsis; None if ``least`` characters do not."""
    if fits(text):
        return text
    lengths = range(min(least, len(text) - 1), len(text))
    fitting = bisect_left(lengths, True, key=lambda length: not fits(_beginning(text, length)))
    return _beginning(text, lengths[fitting - 1]) if text and fitting else None


def _beginning(text: str, length: int) -> str:
    return text[:length].rstrip() + ELLIPSIS if length else ""
