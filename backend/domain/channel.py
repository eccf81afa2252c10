"""What every channel promises: ``send`` never raises and always says truthfully what happened.

A channel's own ``_send`` raises one of the errors below, or returns what the provider answered; the class of the error
decides what comes next: Permanent → failed, TokenDead → failed and the device is deactivated, Transient and
Throttled → another try later.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable

import msgspec

from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome, OutcomeName

__all__ = [
    "BaseChannel",
    "ChannelError",
    "DeliveryMessage",
    "Health",
    "Outcome",
    "OutcomeName",
    "Permanent",
    "TargetThrottled",
    "Throttled",
    "TokenDead",
    "Transient",
]

log = logging.getLogger(__name__)


class ChannelError(Exception):
    """A try that failed. ``code`` is stable; the message is for people."""

    outcome: OutcomeName = "transient"
    alone = False

    def __init__(self, code: str, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retry_after_s = retry_after_s


class Permanent(ChannelError):
    """Trying again cannot help."""

    outcome = "permanent"


class Transient(ChannelError):
    """It may work later."""

    outcome = "transient"


class Throttled(ChannelError):
    """The provider asked to wait."""

    outcome = "throttled"


class TargetThrottled(Throttled):
    """The provider asked to wait with this one target: the others need not."""

    alone = True


class TokenDead(ChannelError):
    """This device or address is gone for good."""

    outcome = "token_dead"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a channel can work here and now, and in words why not."""

    works: bool
    detail: str


LEASE_MS = 60_000


def _no_one() -> None:
    """Called where no lane listens."""


class BaseChannel(ABC):
    """One way to reach a person."""

    name: str = ""
    lease_ms: int = LEASE_MS
    """Longer than one send can take: after it a delivery that was not recorded is tried again."""
    on_aside: Callable[[], None] = staticmethod(_no_one)
    """Called when ``aside`` has grown; set by the lane."""

    @property
    def aside(self) -> int:
        """How many sends wait for a slow provider beside the others, whose places they do not take."""
        return 0

    def send(self, notice: DeliveryMessage) -> Outcome:
        """Try once. Never raises: an unforeseen fault is transient and logged."""
        try:
            return self._send(notice)
        except ChannelError as error:
            return Outcome(
                outcome=error.outcome,
                code=error.code,
                text=error.text,
                retry_after_s=error.retry_after_s,
                alone=error.alone,
            )
        except Exception as error:
            log.exception("channel %s failed unexpectedly", self.name)
            return Outcome(outcome="transient", code="internal_error", text=type(error).__name__)

    @abstractmethod
    def _send(self, notice: DeliveryMessage) -> Outcome:
        """Try once; raise a ChannelError for anything but success."""

    @abstractmethod
    def health(self) -> Health:
        """Probe, without showing anything to anyone."""

    def close(self) -> None:
        """Let go of connections; called once at the end."""
