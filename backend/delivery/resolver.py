"""Who gets what: one pure function from the facts to a decision for every channel, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

Choices = Mapping[tuple[str, str], bool]
"""A user's choices: (notification type, channel) → may it be used; ``*`` is every type or channel."""

WORDS = {"in_app": "the app", "push": "push", "email": "e-mail", "sms": "SMS"}
ALL = "*"


class Target(msgspec.Struct, frozen=True):
    """A device that push can be asked to reach."""

    seq: int
    platform: str
    is_this_computer: bool


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a decision rests on."""

    notification_type: str
    channels: Sequence[str]
    choices: Choices
    devices: Sequence[Target]


class Decision(msgspec.Struct, frozen=True):
    """What becomes of one delivery: in the inbox, in the outbox, suppressed or failed."""

    channel: str
    device_seq: int | None
    status: str
    code: str | None
    reason: str | None


def may_use(choices: Choices, notification_type: str, channel: str) -> tuple[bool, str, str]:
    """Whether the user lets this type use this channel; with the rule's code and its words.

    An explicit "off" for a whole channel is always obeyed; after it the most specific choice wins.
    """
    word = WORDS.get(channel, channel)
    if choices.get((ALL, channel)) is False:
        return False, "channel_off", f"The user turned {word} off."
    for place, code, what in (
        ((notification_type, channel), "type_channel", f"“{notification_type}” by {word}"),
        ((notification_type, ALL), "type", f"“{notification_type}”"),
        ((ALL, channel), "channel", word),
        ((ALL, ALL), "everything", "all notifications"),
    ):
        choice = choices.get(place)
        if choice is not None:
            return choice, f"{code}_{'on' if choice else 'off'}", f"The user turned {what} {'on' if choice else 'off'}."
    return True, "default_on", "On by default."


def decide(facts: Facts) -> tuple[Decision, ...]:
    """A decision for every channel asked for, and for push one for every device."""
    decisions: list[Decision] = []
    for channel in dict.fromkeys(facts.channels):
        allowed, code, why = may_use(facts.choices, facts.notification_type, channel)
        if not allowed:
            decisions.append(Decision(channel, None, "suppressed", code, why))
        elif channel == "in_app":
            decisions.append(Decision(channel, None, "delivered", None, None))
        elif channel == "push":
            decisions.extend(_push(facts.devices))
        else:
            word = {"email": "E-mail", "sms": "SMS"}[channel]
            decisions.append(Decision(channel, None, "failed", "not_configured", f"{word} is not configured."))
    return tuple(decisions)


def _push(devices: Sequence[Target]) -> list[Decision]:
    if not devices:
        return [Decision("push", None, "failed", "no_device", "The user has no registered device.")]
    return [_push_to(device) for device in devices]


def _push_to(device: Target) -> Decision:
    if device.is_this_computer:
        return Decision("push", device.seq, "pending", "queued", "On its way to this computer.")
    if device.platform == "desktop":
        return Decision("push", device.seq, "failed", "other_computer", "Another computer cannot be reached from here.")
    return Decision(
        "push", device.seq, "failed", "not_configured", f"Push to {device.platform} devices is not configured."
    )
