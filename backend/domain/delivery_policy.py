"""Who gets what: one pure function from the facts to a decision for every channel, each with its reason.

In this order, the first that applies: the user's "off" (for the channel, the type, its category, everything), expiry,
whether the channel can reach the user at all, then what only the owner's critical types pass: throttle, digest, do not
disturb and quiet hours; at last the place in a fail-over chain. A reader's "off" is obeyed even by what is critical.

A chain waits for the user to read the notice elsewhere. Where nothing else can tell them of it (the inbox alone does
not count, once something more was asked for that cannot go out), its next stage begins at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from flashflow.backend.domain.preferences import Choices, may_use
from flashflow.backend.domain.quiet_hours import Digest, QuietHours

SYSTEMS = {"android": "fcm", "ios": "apns", "web": "webpush", "desktop": "desktop"}
"""The route to a device of each platform."""


class Target(msgspec.Struct, frozen=True):
    """A device that push can be asked to reach."""

    seq: int
    platform: str
    is_this_computer: bool


class PolicyInputs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a decision rests on; times in milliseconds since 1970."""

    notification_type: str
    channels: Sequence[str]
    choices: Choices
    devices: Sequence[Target]
    category: str | None = None
    critical: bool = False
    """The owner put this type on the critical list."""
    now_ms: int = 0
    expires_at: int | None = None
    routes: frozenset[str] = frozenset({"desktop"})
    """What is configured: fcm, apns, webpush, desktop, email, sms and the channels the owner named."""
    unread: bool = False
    """The owner's settings could not be read yet: ``routes`` are all that there may be."""
    addresses: frozenset[str] = frozenset()
    """Of ``email`` and ``sms``, those the user has an address for."""
    throttled: Mapping[str, str] = {}
    """Channel → the rule in words, for those that have had their share in this window."""
    digest: Digest | None = None
    quiet: QuietHours | None = None
    dnd_until: int | None = None
    failover: Mapping[str, int] = {}
    """Channel → minutes to wait for the user to read it elsewhere first; 0 and what is not named go at once."""


class Decision(NamedTuple):
    """What becomes of one delivery: in the inbox, in the outbox, held until ``due``, suppressed or failed."""

    channel: str
    device_seq: int | None
    status: str
    code: str | None
    reason: str | None
    route: str = ""
    due: int | None = None


def decide(facts: PolicyInputs) -> tuple[Decision, ...]:
    """A decision for every channel asked for, and for push one for every device."""
    decisions: list[Decision] = []
    for channel in dict.fromkeys(facts.channels):
        allowed, code, why = may_use(facts.choices, facts.notification_type, channel, facts.category)
        if not allowed:
            decisions.append(Decision(channel, None, "suppressed", code, why))
        elif facts.expires_at is not None and facts.expires_at <= facts.now_ms:
            decisions.append(Decision(channel, None, "suppressed", "expired", "It expired first."))
        elif channel == "in_app":
            decisions.append(Decision(channel, None, "delivered", None, None))
        else:
            decisions.extend(_timed(facts, way) for way in _ways(facts, channel))
    return tuple(_begun(facts, decisions))


def _ways(facts: PolicyInputs, channel: str) -> list[Decision]:
    """The ways to the user by ``channel``: each ``pending``, or ``failed`` with what is missing."""
    if channel == "push":
        if not facts.devices:
            return [_failed("push", None, "no_device", "The user has no registered device.")]
        return [_to_device(facts, device) for device in facts.devices]
    if channel not in facts.routes:
        name = {"email": "E-mail", "sms": "SMS"}.get(channel, f"“{channel}”")
        return [_failed(channel, None, "not_configured", f"{name} is not configured.")]
    if channel in {"email", "sms"} and channel not in facts.addresses:
        what = "e-mail address" if channel == "email" else "phone number"
        return [_failed(channel, None, "no_address", f"The user has no {what}.")]
    return [Decision(channel, None, "pending", "queued", _on_its_way(facts, channel), channel)]


def _to_device(facts: PolicyInputs, device: Target) -> Decision:
    route = SYSTEMS.get(device.platform, device.platform)
    if route == "desktop" and not device.is_this_computer:
        return _failed("push", device.seq, "other_computer", "Another computer cannot be reached from here.")
    if route == "apns" and route not in facts.routes and "fcm" in facts.routes:
        route = "fcm"  # Firebase reaches Apple's devices too
    if route not in facts.routes:
        return _failed(
            "push", device.seq, "not_configured", f"Push to {device.platform} devices is not configured."
        )  # fmt: skip
    return Decision("push", device.seq, "pending", "queued", _on_its_way(facts, route), route)


def _on_its_way(facts: PolicyInputs, route: str) -> str:
    if route == "desktop":
        return "On its way to this computer."
    return "Waits until flashflow.toml can be read." if facts.unread else "On its way."


def _failed(channel: str, device_seq: int | None, code: str, reason: str) -> Decision:
    return Decision(channel, device_seq, "failed", code, reason)


def _begun(facts: PolicyInputs, decisions: list[Decision]) -> list[Decision]:
    """A chain whose first channels cannot be used begins with the next one, at once."""
    waiting = [d for d in decisions if d.code == "failover" and d.due is not None]
    before = [d for d in decisions if d.code != "failover"]
    elsewhere = [d for d in before if d.channel != "in_app"] or before
    if not waiting or any(d.status in {"pending", "delivered", "held"} for d in elsewhere):
        return decisions
    first = min(d.due for d in waiting if d.due is not None)
    return [
        d._replace(status="pending", code="queued", reason="On its way.", due=facts.now_ms)
        if d.code == "failover" and d.due == first
        else d
        for d in decisions
    ]


def _timed(facts: PolicyInputs, way: Decision) -> Decision:
    """``way`` now, later or not at all."""
    if way.status != "pending":
        return way
    if not facts.critical:
        if rule := facts.throttled.get(way.channel):
            return way._replace(status="suppressed", code="throttled", reason=rule)
        if (hold := _hold(facts)) is not None:
            code, words, due = hold
            return way._replace(status="held", code=code, reason=words, due=due)
    if minutes := facts.failover.get(way.channel, 0):
        words = f"Goes out if it is still unread after {minutes} minute{'' if minutes == 1 else 's'}."
        return way._replace(status="held", code="failover", reason=words, due=facts.now_ms + minutes * 60_000)
    return way._replace(due=facts.now_ms)


def _hold(facts: PolicyInputs) -> tuple[str, str, int] | None:
    """Code, words and end of what makes it wait; None when nothing does."""
    if facts.digest is not None:
        return "digest", f"Waits for the {facts.digest.frequency} digest.", facts.digest.next(facts.now_ms)
    if facts.dnd_until is not None and facts.dnd_until > facts.now_ms:
        return "do_not_disturb", "The user does not want to be disturbed now.", facts.dnd_until
    ends = None if facts.quiet is None else facts.quiet.until(facts.now_ms)
    if facts.quiet is None or ends is None:
        return None
    return "quiet_hours", f"Quiet hours until {facts.quiet.end} ({facts.quiet.zone}).", ends
