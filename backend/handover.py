"""What passes between the store and the channels: a notice to deliver, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

OutcomeName = Literal["delivered", "sent", "permanent", "transient", "throttled", "token_dead"]


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel is asked to deliver, to one target."""

    delivery_id: str
    notification_id: str
    user_id: str
    app: str
    title: str
    message: str
    priority: str
    target: str | None
    """The device's token or the address; None where the channel has none."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one try. ``code`` is stable and for programs, ``text`` is for people (the provider's words)."""

    outcome: OutcomeName
    code: str
    text: str
    retry_after_s: float | None = None


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
