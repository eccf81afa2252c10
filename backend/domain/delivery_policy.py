"""Delivery policy: a pure function from policy inputs to one decision, with its reason, per channel and device.

The first rule that applies decides, in this order: the user's "off" (for the channel, the type, its category or
everything; critical types obey it too), expiry, whether the channel can reach the user, then the rules that critical
types skip (throttle, digest, do not disturb, quiet hours), then the place in a fail-over chain.

A fail-over stage waits for the user to read the notification by another channel. Where no other channel can deliver,
the next stage starts at once; the inbox does not count as one where another channel was requested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from flashflow.backend.core.clock import MINUTE_MS
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.domain.preferences import Choices, may_use
from flashflow.backend.domain.quiet_hours import Digest, QuietHours

SYSTEMS = {"android": "fcm", "ios": "apns", "web": "webpush", "desktop": "desktop"}
"""The route to a device of each platform."""


class Target(msgspec.Struct, frozen=True):
    """Registered device of the user."""

    seq: int
    platform: str
    is_this_computer: bool


class PolicyInputs(msgspec.Struct, frozen=True, kw_only=True):
    """All inputs of a decision; times in milliseconds since 1970."""

    notification_type: str
    channels: Sequence[str]
    choices: Choices
    devices: Sequence[Target]
    category: str | None = None
    critical: bool = False
    """Whether the owner marked the type as critical."""
    now_ms: int = 0
    expires_at: int | None = None
    routes: frozenset[str] = frozenset({"desktop"})
    """Configured routes: fcm, apns, webpush, desktop, email, sms and the owner's own channels."""
    unread: bool = False
    """Whether the settings could not be read yet; ``routes`` then holds every possible route."""
    addresses: frozenset[str] = frozenset()
    """Channels among ``email`` and ``sms`` for which the user has an address."""
    throttled: Mapping[str, str] = {}
    """Channel → text of the throttle rule, for channels that reached their limit."""
    digest: Digest | None = None
    quiet: QuietHours | None = None
    dnd_until: int | None = None
    failover: Mapping[str, int] = {}
    """Channel → minutes to wait for the user to read it elsewhere first; 0 or no entry: no wait."""


class Decision(NamedTuple):
    """Decision for one delivery: delivered (inbox), pending (outbox), held until ``due``, suppressed or failed."""

    channel: str
    device_seq: int | None
    status: str
    code: str | None
    reason: str | None
    route: str = ""
    due: int | None = None


def decide(inputs: PolicyInputs) -> tuple[Decision, ...]:
    """Decide for every requested channel; for push, for every device."""
    decisions: list[Decision] = []
    for channel in dict.fromkeys(inputs.channels):
        allowed, code, why = may_use(inputs.choices, inputs.notification_type, channel, inputs.category)
        if not allowed:
            decisions.append(Decision(channel, None, "suppressed", code, why))
        elif inputs.expires_at is not None and inputs.expires_at <= inputs.now_ms:
            decisions.append(Decision(channel, None, "suppressed", "expired", "It expired first."))
        elif channel == "in_app":
            decisions.append(Decision(channel, None, "delivered", None, None))
        else:
            decisions.extend(_timed(inputs, delivery) for delivery in _routed(inputs, channel))
    return tuple(_start_failover(inputs, decisions))


def _routed(inputs: PolicyInputs, channel: str) -> list[Decision]:
    """List the deliveries by ``channel``: each ``pending``, or ``failed`` with the reason."""
    if channel == "push":
        if not inputs.devices:
            return [_failed("push", None, "no_device", "The user has no registered device.")]
        return [_to_device(inputs, device) for device in inputs.devices]
    if channel not in inputs.routes:
        name = {"email": "E-mail", "sms": "SMS"}.get(channel, f"“{channel}”")
        return [_failed(channel, None, "not_configured", f"{name} is not configured.")]
    if channel in {"email", "sms"} and channel not in inputs.addresses:
        what = "e-mail address" if channel == "email" else "phone number"
        return [_failed(channel, None, "no_address", f"The user has no {what}.")]
    return [Decision(channel, None, "pending", "queued", _on_its_way(inputs, channel), channel)]


def _to_device(inputs: PolicyInputs, device: Target) -> Decision:
    route = SYSTEMS.get(device.platform, device.platform)
    if route == "desktop" and not device.is_this_computer:
        return _failed("push", device.seq, "other_computer", "Another computer cannot be reached from here.")
    if route == "apns" and route not in inputs.routes and "fcm" in inputs.routes:
        route = "fcm"  # Firebase delivers to Apple devices too
    if route not in inputs.routes:
        return _failed(
            "push", device.seq, "not_configured", f"Push to {device.platform} devices is not configured."
        )  # fmt: skip
    return Decision("push", device.seq, "pending", "queued", _on_its_way(inputs, route), route)


def _on_its_way(inputs: PolicyInputs, route: str) -> str:
    if route == "desktop":
        return "On its way to this computer."
    return "Waits until flashflow.toml can be read." if inputs.unread else "On its way."


def _failed(channel: str, device_seq: int | None, code: str, reason: str) -> Decision:
    return Decision(channel, device_seq, "failed", code, reason)


def _start_failover(inputs: PolicyInputs, decisions: list[Decision]) -> list[Decision]:
    """Start the first fail-over stage at once where no earlier channel can deliver."""
    waiting = [d for d in decisions if d.code == "failover" and d.due is not None]
    before = [d for d in decisions if d.code != "failover"]
    elsewhere = [d for d in before if d.channel != "in_app"] or before
    if not waiting or any(d.status in {"pending", "delivered", "held"} for d in elsewhere):
        return decisions
    first = min(d.due for d in waiting if d.due is not None)
    return [
        d._replace(status="pending", code="queued", reason="On its way.", due=inputs.now_ms)
        if d.code == "failover" and d.due == first
        else d
        for d in decisions
    ]


def _timed(inputs: PolicyInputs, delivery: Decision) -> Decision:
    """Apply throttle, digest, do not disturb, quiet hours and fail-over to a pending ``delivery``."""
    if delivery.status != "pending":
        return delivery
    if not inputs.critical:
        if rule := inputs.throttled.get(delivery.channel):
            return delivery._replace(status="suppressed", code="throttled", reason=rule)
        if (hold := _hold(inputs)) is not None:
            code, words, due = hold
            return delivery._replace(status="held", code=code, reason=words, due=due)
    if minutes := inputs.failover.get(delivery.channel, 0):
        words = f"Goes out if it is still unread after {minutes} minute{'' if minutes == 1 else 's'}."
        return delivery._replace(status="held", code="failover", reason=words, due=inputs.now_ms + minutes * MINUTE_MS)
    return delivery._replace(due=inputs.now_ms)


def _hold(inputs: PolicyInputs) -> tuple[str, str, int] | None:
    """Return code, reason and end (milliseconds since 1970) of a hold; None without one."""
    if inputs.digest is not None:
        return "digest", f"Waits for the {inputs.digest.frequency} digest.", inputs.digest.next(inputs.now_ms)
    if inputs.dnd_until is not None and inputs.dnd_until > inputs.now_ms:
        return "do_not_disturb", "The user does not want to be disturbed now.", inputs.dnd_until
    ends = None if inputs.quiet is None else inputs.quiet.until(inputs.now_ms)
    if inputs.quiet is None or ends is None:
        return None
    return "quiet_hours", f"Quiet hours until {inputs.quiet.end} ({inputs.quiet.zone}).", ends
