"""Labels and icons for deliveries, attempts and channels; used by the delivery timeline and by Settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import flet as ft

from flashflow.backend import Attempt, ChannelTest, Decided, Delivery
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.notification_settings import CHANNEL_LABELS
from flashflow.views.controls.tokens import GOOD, HIGH, MUTED, URGENT

PLATFORMS: Mapping[str, str] = {
    "desktop": "This computer",
    "ios": "iPhone",
    "android": "Android phone",
    "web": "Browser",
}
OWN_REASONS = frozenset({"no_device", "no_address", "not_configured", "do_not_disturb", "other_computer"})
"""Codes (besides ``…_on`` and ``…_off``) whose reason FlashFlow wrote; other reasons quote a provider unchanged."""
FIXABLE_IN_SETTINGS = frozenset({"not_configured", "no_address", "no_device"})
"""Codes that the user can fix in Settings."""

SENT_TO_THIS_COMPUTER = "On its way to this computer."
"""Reason that the delivery policy gives for a push to the computer that FlashFlow runs on."""

_SECOND_PERSON = (
    ("The user has ", "You have "),
    ("The user turned ", "You turned "),
    ("The user does not ", "You do not "),
)


class State(NamedTuple):
    """A label with its icon and colour."""

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
    "dead": State("Failed for good", ft.Icons.ERROR_OUTLINE, URGENT),
}
RETRYING = State("Retrying", ft.Icons.SYNC_PROBLEM, HIGH)

OUTCOMES: Mapping[str, State] = {
    "delivered": State("Delivered", ft.Icons.CHECK_CIRCLE_OUTLINE, GOOD),
    "sent": State("Accepted", ft.Icons.CHECK, GOOD),
    "permanent": State("Refused", ft.Icons.ERROR_OUTLINE, URGENT),
    "transient": State("Temporary failure", ft.Icons.SYNC_PROBLEM, HIGH),
    "throttled": State("Rate limited", ft.Icons.HOURGLASS_EMPTY, HIGH),
    "token_dead": State("Device unregistered", ft.Icons.ERROR_OUTLINE, URGENT),
}

CURRENT_OUTCOMES: Mapping[str, State] = {
    "delivered": State("reaches you", ft.Icons.CHECK_CIRCLE_OUTLINE, GOOD),
    "pending": State("reaches you", ft.Icons.CHECK_CIRCLE_OUTLINE, GOOD),
    "held": State("waits", ft.Icons.PAUSE_CIRCLE_OUTLINE, HIGH),
    "suppressed": State("is not used", ft.Icons.BLOCK, MUTED),
    "failed": State("does not reach you", ft.Icons.REMOVE_CIRCLE_OUTLINE, MUTED),
}
UNKNOWN = ft.Icons.HELP_OUTLINE


def channel_name(channel: str) -> str:
    """Return the channel's label; a custom channel is shown by its name."""
    return CHANNEL_LABELS.get(channel, one_line(channel, 40))


def state_of(delivery: Delivery) -> State:
    """Return the label of a delivery's status."""
    if delivery.status == "pending" and delivery.attempts:
        return RETRYING
    return STATES.get(delivery.status) or State(delivery.status.capitalize(), UNKNOWN, MUTED)


def outcome_of(attempt: Attempt | ChannelTest) -> State:
    """Return the label of an attempt's outcome."""
    return OUTCOMES.get(attempt.outcome) or State(attempt.outcome.capitalize(), UNKNOWN, MUTED)


def second_person(reason: str) -> str:
    """Put a reason into the second person: "The user has no phone number." → "You have no phone number."."""
    for theirs, ours in _SECOND_PERSON:
        reason = reason.replace(theirs, ours)
    return reason


def reason_of(code: str | None, reason: str | None) -> str:
    """Return a delivery's reason for display: FlashFlow's own in the second person, a provider's unchanged."""
    if reason is None:
        return ""
    ours = code is not None and (code in OWN_REASONS or code.endswith(("_on", "_off")))
    return one_line(second_person(reason) if ours else reason)


def provider_text(code: str, text: str) -> str:
    """Return a provider's code and text: "smtp_550 · 5.1.1 No such user"."""
    return " · ".join(filter(None, (one_line(code, 60), one_line(text))))


def current_outcome(decided: Decided, broken: Mapping[str, str] = {}) -> tuple[State, str]:
    """Return how a channel would treat a notification sent now, and the reason unless it would be delivered.

    ``broken``: reason by route, for routes that are configured but do not work; ``decided`` does not include these.
    """
    route = "desktop" if decided.channel == "push" and decided.reason == SENT_TO_THIS_COMPUTER else decided.channel
    if decided.status == "pending" and route in broken:
        return CURRENT_OUTCOMES["failed"], broken[route]
    state = CURRENT_OUTCOMES.get(decided.status) or State(decided.status, UNKNOWN, MUTED)
    plain = decided.status in {"delivered", "pending"}
    return state, "" if plain else reason_of(decided.code, decided.reason)


def can_be_retried(delivery: Delivery) -> bool:
    """Whether "Retry now" applies: the delivery failed, is dead, or waits for its next attempt."""
    if delivery.channel == "in_app":
        return False
    return delivery.status in {"failed", "dead"} or (delivery.status == "pending" and bool(delivery.attempts))
