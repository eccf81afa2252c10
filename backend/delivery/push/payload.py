"""What FCM and APNs share: a notice cut to 4 KiB, and how an iPhone is told to show it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from flashflow.backend.delivery.net.text import ELLIPSIS, lines, one_line
from flashflow.backend.domain.channel import DeliveryMessage, Permanent

MAX_PAYLOAD = 4096
"""Bytes; the same for FCM ("total size of the payload data") and APNs ("maximum payload size")."""
SHOWN_MESSAGE = 200
"""Characters of the message that are worth more than the data: about what a phone shows before it is opened."""

_LEVELS = {"low": "passive", "urgent": "time-sensitive"}
_SAFE_ID = re.compile(r"[\x21-\x7e]{1,64}")

CATEGORY = "flashflow.actions"
"""The category under which an iPhone's app may declare buttons for a notification with actions."""

Buttons = Sequence[Mapping[str, str]]
"""``label`` and ``url`` of each action."""
Encode = Callable[[str, str, Mapping[str, Any], Buttons], bytes]
"""The payload for a title, a message, the data and the buttons (both may be empty)."""


class Fitted(NamedTuple):
    """A payload within the limit; ``note`` says what had to go, for people, "" if nothing."""

    payload: bytes
    note: str


def fitted(notice: DeliveryMessage, data: Mapping[str, Any], encode: Encode, limit: int = MAX_PAYLOAD) -> Fitted:
    """Encode the notice. Where that is too long the message is cut, then the data is left out, then the buttons, then
    the title is cut. Raises Permanent ``too_large`` if even that is too long."""
    title, message = one_line(notice.title), lines(notice.message).strip()
    buttons = [{"label": lines(link.label), "url": lines(link.url)} for link in notice.actions]

    def fits(kept: Mapping[str, Any], links: Buttons, text: str) -> bool:
        return len(encode(title, text, kept, links)) <= limit

    tries: list[tuple[Mapping[str, Any], Buttons, int]] = [(data, buttons, SHOWN_MESSAGE), ({}, [], 0)]
    if buttons:
        tries.insert(1, ({}, buttons, SHOWN_MESSAGE))
    for kept, links, least in tries:
        text = _longest(message, least, partial(fits, kept, links))
        if text is not None:
            cut = ["the message was cut"] if text != message else []
            gone = ["the data was left out"] if data and not kept else []
            gone += ["the actions were left out"] if buttons and not links else []
            return Fitted(encode(title, text, kept, links), " and ".join(cut + gone))
    short = _longest(title, 1, lambda text: len(encode(text, "", {}, [])) <= limit)
    if short is None:
        raise Permanent("too_large", f"The notice does not fit into {limit} bytes.")
    return Fitted(encode(short, "", {}, []), "only the title fitted")


def sendable(data: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], str]:
    """``data`` if JSON can carry it (half a surrogate pair it cannot), else nothing and a note that says so."""
    try:
        msgspec.json.encode(data)
    except (UnicodeError, TypeError, ValueError, RecursionError):
        return {}, "the data was left out, for JSON cannot carry it"
    return data or {}, ""


def aps(notice: DeliveryMessage, buttons: Buttons) -> dict[str, Any]:
    """How iOS shows it, beside its texts. Critical alerts need an entitlement from Apple and are not used.

    Buttons are the app's to show: by a category that it declared, or by its extension, which may change the content.
    """
    shown: dict[str, Any] = {
        "thread-id": notice.app,
        "interruption-level": _LEVELS.get(notice.priority, "active"),
        **({"category": CATEGORY, "mutable-content": 1} if buttons else {}),
    }
    return shown if notice.priority == "low" else {**shown, "sound": "default"}


def apns_headers(notice: DeliveryMessage) -> dict[str, str]:
    """How APNs carries it: at once unless the priority is low, no later than it expires, in place of the same
    notification's earlier state."""
    headers = {
        "apns-priority": "5" if notice.priority == "low" else "10",
        "apns-collapse-id": collapse_id(notice.notification_id),
    }
    if notice.expires_at is not None:
        headers["apns-expiration"] = str(max(1, notice.expires_at // 1000))  # 0 would mean: now or never
    return headers


def collapse_id(notification_id: str) -> str:
    """At most 64 bytes that a header can carry."""
    if _SAFE_ID.fullmatch(notification_id):
        return notification_id
    return hashlib.sha256(notification_id.encode("utf-8", "surrogatepass")).hexdigest()


def _longest(text: str, least: int, fits: Callable[[str], bool]) -> str | None:
    """The longest beginning of ``text`` that fits, its ellipsis included; None if ``least`` characters do not."""
    if fits(text):
        return text
    low, high = min(least, len(text) - 1), len(text) - 1
    if low < 0 or not fits(_beginning(text, low)):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if fits(_beginning(text, middle)):
            low = middle
        else:
            high = middle - 1
    return _beginning(text, low)


def _beginning(text: str, length: int) -> str:
    return text[:length].rstrip() + ELLIPSIS if length else ""
