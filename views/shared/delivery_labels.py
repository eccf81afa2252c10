"""What becomes of a delivery, in words with an icon: the same in a notification's story and in Settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import flet as ft

from flashflow.views.controls.tokens import GOOD, HIGH, MUTED, URGENT
from flashflow.views.shared.formatting import mine, one_line

if TYPE_CHECKING:
    from flashflow.backend import Attempt, ChannelTest, Decided, Delivery

CHANNELS: Mapping[str, str] = {"in_app": "In app", "push": "Push", "email": "E-mail", "sms": "SMS"}
PLATFORMS: Mapping[str, str] = {
    "desktop": "This computer",
    "ios": "iPhone",
    "android": "Android phone",
    "web": "Browser",
}
DECIDED_HERE = frozenset({"no_device", "no_address", "not_configured", "do_not_disturb", "other_computer"})
"""Codes whose reasons are our own sentences, beside those of the choices (``…_on``, ``…_off``); the others carry a
provider's words, which stay as they are."""
TO_SET_UP = frozenset({"not_configured", "no_address", "no_device"})
"""What the person can mend in Settings."""

TO_THIS_COMPUTER = "On its way to this computer."
"""The resolver's words for a push to the computer that FlashFlow runs on."""


class State(NamedTuple):
    """A word, its icon and its colour."""

    word: str
    icon: ft.IconData
    color: ft.ColorValue


STATES: Mapping[str, State] = {
    "pending": State("Waiting to be sent", ft.Icons.SCHEDULE, MUTED),
    "sending": State("Being sent", ft.Icons.SCHEDULE_SEND, MUTED),
    "sent": State("Sent", ft.Icons.CHECK, GOOD),
    "delivered": State("Delivered", ft.Icons.CHECK_CIRCLE_OUTLINE, GOOD),
    "held": State("Held for later", ft.Icons.PAUSE_CIRCLE_OUTLINE, HIGH),
    "suppressed": State("Not sent", ft.Icons.BLOCK, MUTED),
    "failed": State("Failed", ft.Icons.ERROR_OUTLINE, URGENT),
    "dead": State("Given up", ft.Icons.ERROR_OUTLINE, URGENT),
}
TRYING_AGAIN = State("Did not work yet", ft.Icons.SYNC_PROBLEM, HIGH)

OUTCOMES: Mapping[str, State] = {
    "delivered": State("Delivered", ft.Icons.CHECK_CIRCLE_OUTLINE, GOOD),
    "sent": State("Accepted", ft.Icons.CHECK, GOOD),
    "permanent": State("Refused", ft.Icons.ERROR_OUTLINE, URGENT),
    "transient": State("Did not work this time", ft.Icons.SYNC_PROBLEM, HIGH),
    "throttled": State("Asked to wait", ft.Icons.HOURGLASS_EMPTY, HIGH),
    "token_dead": State("Device gone", ft.Icons.ERROR_OUTLINE, URGENT),
}

NOW: Mapping[str, State] = {
    "delivered": State("reaches you", ft.Icons.CHECK_CIRCLE_OUTLINE, GOOD),
    "pending": State("reaches you", ft.Icons.CHECK_CIRCLE_OUTLINE, GOOD),
    "held": State("waits", ft.Icons.PAUSE_CIRCLE_OUTLINE, HIGH),
    "suppressed": State("is not used", ft.Icons.BLOCK, MUTED),
    "failed": State("does not reach you", ft.Icons.REMOVE_CIRCLE_OUTLINE, MUTED),
}
UNKNOWN = ft.Icons.HELP_OUTLINE


def channel_name(channel: str) -> str:
    """A channel as people call it; one that the owner named goes by that name."""
    return CHANNELS.get(channel, one_line(channel, 40))


def state_of(delivery: Delivery) -> State:
    """Where a delivery stands."""
    if delivery.status == "pending" and delivery.attempts:
        return TRYING_AGAIN
    return STATES.get(delivery.status) or State(delivery.status.capitalize(), UNKNOWN, MUTED)


def outcome_of(attempt: Attempt | ChannelTest) -> State:
    """What came of one try."""
    return OUTCOMES.get(attempt.outcome) or State(attempt.outcome.capitalize(), UNKNOWN, MUTED)


def reason_of(code: str | None, reason: str | None) -> str:
    """Why, to the reader: our own sentences speak to them, a provider's words stay as they are."""
    if reason is None:
        return ""
    ours = code is not None and (code in DECIDED_HERE or code.endswith(("_on", "_off")))
    return one_line(mine(reason) if ours else reason)


def provider_text(code: str, text: str) -> str:
    """What a provider answered: its code and its own words, "smtp_550 · 5.1.1 No such user"."""
    return " · ".join(filter(None, (one_line(code, 60), one_line(text))))


def would(decided: Decided, broken: Mapping[str, str] = {}) -> tuple[State, str]:
    """What would become of a notice by one channel now, and why where that is not plain.

    ``broken``: routes that are set up and cannot work, with the reason. The decision knows nothing of that.
    """
    route = "desktop" if decided.channel == "push" and decided.reason == TO_THIS_COMPUTER else decided.channel
    if decided.status == "pending" and route in broken:
        return NOW["failed"], broken[route]
    state = NOW.get(decided.status) or State(decided.status, UNKNOWN, MUTED)
    plain = decided.status in {"delivered", "pending"}
    return state, "" if plain else reason_of(decided.code, decided.reason)


def can_be_retried(delivery: Delivery) -> bool:
    """Whether “Retry now” has something to do: it failed, was given up, or waits for its next try."""
    if delivery.channel == "in_app":
        return False
    return delivery.status in {"failed", "dead"} or (delivery.status == "pending" and bool(delivery.attempts))
