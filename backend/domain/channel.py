"""Base class and errors of delivery channels.

A channel's ``_send`` returns the provider's outcome or raises a ChannelError, whose class decides the next step:
Permanent → failed, TokenDead → failed and the device deactivated, Transient and Throttled → retried later.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable

import msgspec

from flashflow.backend.domain.delivery_messages import DeliveryMessage, Outcome, OutcomeName

log = logging.getLogger(__name__)


class ChannelError(Exception):
    """Failed delivery attempt. ``code`` is stable; ``text`` is for users."""

    outcome: OutcomeName = "transient"
    alone = False

    def __init__(self, code: str, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retry_after_s = retry_after_s


class Permanent(ChannelError):
    """A retry cannot succeed."""

    outcome = "permanent"


class Transient(ChannelError):
    """A retry may succeed."""

    outcome = "transient"


class Throttled(ChannelError):
    """The provider asked for a delay."""

    outcome = "throttled"


class TargetThrottled(Throttled):
    """The provider asked for a delay for this target only."""

    alone = True


class TokenDead(ChannelError):
    """The device or address no longer exists."""

    outcome = "token_dead"


def accepted(text: str) -> Outcome:
    """Return the outcome of a delivery that the provider took over."""
    return Outcome(outcome="sent", code="accepted", text=text)


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a channel works at present, with the reason if not."""

    works: bool
    detail: str


LEASE_MS = 60_000


def _ignore() -> None:
    """Default of ``on_aside``."""


class BaseChannel(ABC):
    """A way to deliver notifications to a user."""

    name: str = ""
    lease_ms: int = LEASE_MS
    """Milliseconds, longer than one send takes; afterwards a claimed delivery without a result is tried again."""
    on_aside: Callable[[], None] = staticmethod(_ignore)
    """Callback for when ``aside`` has grown; set by the route queue."""

    @property
    def aside(self) -> int:
        """Number of sends that wait for a slow provider without occupying a worker of the route queue."""
        return 0

    def send(self, message: DeliveryMessage) -> Outcome:
        """Send once. Never raises: an unexpected exception is logged and reported as transient."""
        try:
            return self._send(message)
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
    def _send(self, message: DeliveryMessage) -> Outcome:
        """Send once. Raises ChannelError on failure."""

    def health(self) -> Health:
        """Check whether the channel works, without sending a notification. Never raises."""
        try:
            return Health(works=True, detail=self._probe())
        except ChannelError as error:
            return Health(works=False, detail=error.text)
        except Exception as error:
            log.exception("the channel %s could not be probed", self.name)
            return Health(works=False, detail=type(error).__name__)

    @abstractmethod
    def _probe(self) -> str:
        """Return what the channel sends through. Raises ChannelError if it does not work."""

    def close(self) -> None:
        """Close connections. Called once, at shutdown."""
