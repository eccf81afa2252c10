"""Messages between the store and the channels: a delivery, its outcome and its next attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

OutcomeName = Literal["delivered", "sent", "permanent", "transient", "throttled", "token_dead"]


class Link(msgspec.Struct, frozen=True):
    """Button of a notification; ``url`` is http or https."""

    label: str
    url: str


class DeliveryMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A notification for one target of a channel. Texts are plain text; each channel escapes them."""

    delivery_id: str
    notification_id: str
    user_id: str
    app: str
    title: str
    message: str
    priority: str
    target: str | None
    """Device token or address; None where the channel has no targets."""
    platform: str | None = None
    """Platform of a device target: ios, android, web or desktop."""
    registered_at: int | None = None
    """Time of the token's last registration, in milliseconds since 1970."""
    notification_type: str = "general"
    critical: bool = False
    """Whether the owner marked the notification type as critical."""
    data: dict[str, Any] | None = None
    actions: tuple[Link, ...] = ()
    collapse_key: str | None = None
    count: int = 1
    """Number of sends collapsed into this notification by its ``collapse_key``, the first included."""
    created_at: int = 0
    """Milliseconds since 1970."""
    expires_at: int | None = None
    """Milliseconds since 1970; afterwards the notification must not be delivered."""
    time_limit_s: float | None = None
    """Seconds until the caller of this send stops waiting; None without such a limit."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one attempt. ``code`` is stable and for programs; ``text`` is the provider's message."""

    outcome: OutcomeName
    code: str
    text: str
    retry_after_s: float | None = None
    alone: bool = False
    """Whether ``retry_after_s`` applies to this target only; else to the whole provider."""


class Retrial(msgspec.Struct, frozen=True, kw_only=True):
    """Next attempt of a delivery; times in milliseconds since 1970."""

    at: int
    until: int
    """End of the retries."""
    since: int
    """Time of the first attempt, moved by the time during which the delivery was due but not attempted."""


class AttemptResult(msgspec.Struct, frozen=True, kw_only=True):
    """Attempt to record; times in milliseconds since 1970, ``retry`` None where no further attempt follows."""

    delivery_id: str
    started_at: int
    duration_ms: int
    outcome: Outcome
    retry: Retrial | None
    previous_code: str | None = None
    """The delivery's code before this attempt."""


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """Claimed delivery; ``tries`` includes the attempt at hand. Times are milliseconds since 1970."""

    tries: int
    message: DeliveryMessage
    due_at: int
    """Planned time of the attempt."""
    tried_since: int | None
    """As ``Retrial.since``; None before the first recorded attempt."""
    previous_code: str | None
    """As in AttemptResult."""


class NextStep(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's next transaction: record the attempt ``tried``, then claim a delivery of ``route`` (None: claim
    nothing)."""

    route: str | None
    lease_ms: int = 0
    tried: AttemptResult | None = None


def overall(statuses: Sequence[str]) -> str:
    """Derive a notification's status from those of its deliveries: the best reached, else the best still possible."""
    for found, status in (
        (("delivered",), "delivered"),
        (("sent",), "sent"),
        (("pending", "sending", "held"), "pending"),
        (("failed", "dead"), "failed"),
    ):
        if any(s in found for s in statuses):
            return status
    return "suppressed"
