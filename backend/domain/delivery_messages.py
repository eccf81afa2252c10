"""What passes between the store and the channels: a notice to deliver, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

OutcomeName = Literal["delivered", "sent", "permanent", "transient", "throttled", "token_dead"]


class Link(msgspec.Struct, frozen=True):
    """A button of a notice; ``url`` is http or https."""

    label: str
    url: str


class DeliveryMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel is asked to deliver, to one target. Texts are plain and for people: each channel escapes them."""

    delivery_id: str
    notification_id: str
    user_id: str
    app: str
    title: str
    message: str
    priority: str
    target: str | None
    """The device's token or the address; None where the channel has none."""
    platform: str | None = None
    """The device's platform where ``target`` is one: ios, android, web or desktop."""
    registered_at: int | None = None
    """When the device's token was last registered, in milliseconds since 1970."""
    notification_type: str = "general"
    critical: bool = False
    """Whether the owner marked the type critical."""
    data: dict[str, Any] | None = None
    actions: tuple[Link, ...] = ()
    collapse_key: str | None = None
    count: int = 1
    """How often this notification was updated in place by its ``collapse_key``, the first time included."""
    created_at: int = 0
    """Milliseconds since 1970."""
    expires_at: int | None = None
    """Milliseconds since 1970; what cannot arrive before is not worth delivering."""
    patience_s: float | None = None
    """Seconds until whoever asked for this send stops waiting; None where it may take as long as it needs."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one try. ``code`` is stable and for programs, ``text`` is for people (the provider's words)."""

    outcome: OutcomeName
    code: str
    text: str
    retry_after_s: float | None = None
    alone: bool = False
    """Whether the wait that was asked for is this target's alone; else it is the whole provider's."""


class Retrial(msgspec.Struct, frozen=True, kw_only=True):
    """The next try of a delivery; times in milliseconds since 1970."""

    at: int
    until: int
    """When the retries end."""
    since: int
    """The first try, moved on by the time in which the delivery was due and not tried."""


class AttemptResult(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to record; times in milliseconds since 1970, ``retry`` None where there is no next one."""

    delivery_id: str
    started_at: int
    duration_ms: int
    outcome: Outcome
    retry: Retrial | None
    previous_code: str | None = None
    """The delivery's code before this try."""


class Claimed(Protocol):
    """A delivery to try; ``tries`` includes this one. Times in milliseconds since 1970: ``due_at`` is when it was to be
    tried, ``tried_since`` as in Retrial (None before the first recorded try), ``previous_code`` as in Tried."""

    @property
    def tries(self) -> int: ...
    @property
    def notice(self) -> DeliveryMessage: ...
    @property
    def due_at(self) -> int: ...
    @property
    def tried_since(self) -> int | None: ...
    @property
    def previous_code(self) -> str | None: ...


class NextStep(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker wants done in one transaction: its last try recorded, and the next delivery of ``route`` claimed
    (None: claim nothing)."""

    route: str | None
    lease_ms: int = 0
    tried: AttemptResult | None = None


def overall(statuses: Sequence[str]) -> str:
    """A notification's status from its deliveries': the best that happened, else what may still happen."""
    for found, status in (
        (("delivered",), "delivered"),
        (("sent",), "sent"),
        (("pending", "sending", "held"), "pending"),
        (("failed", "dead"), "failed"),
    ):
        if any(s in found for s in statuses):
            return status
    return "suppressed"
