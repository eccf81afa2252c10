"""SMTP time-outs: one deadline per step, in minutes as RFC 5321, 4.5.3.2 requires."""

from __future__ import annotations

from flashflow.backend.core.clock import Clock
from flashflow.backend.domain.channel import Transient
from flashflow.backend.settings.model import EmailSettings

CHECK_S = 4.0
"""Seconds for the answer of an idle connection; without one it is replaced."""
SLOW_S = 15.0
"""Seconds for one step after which a mail moves aside (see ``BaseChannel.aside``)."""
COMMANDS = 12
"""Most commands of one mail: EHLO and HELO twice, STARTTLS, three for a login, MAIL twice, RCPT, DATA."""
MARGIN_S = 60.0


class Overdue(Transient):
    """A deadline has passed."""


class Deadline:
    """The time by which a step must have ended, however slowly the server talks."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self.seconds = seconds
        self._end = clock.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left, more than 0. Raises Overdue ``timeout`` when there are none."""
        left = self._end - self._clock.monotonic()
        if left <= 0:
            raise self.passed()
        return left

    def spent(self) -> float:
        """Return the seconds since the step began."""
        return self.seconds - (self._end - self._clock.monotonic())

    def passed(self) -> Overdue:
        return Overdue("timeout", f"The mail server had not answered after {self.seconds:g} seconds.")

    def sooner(self, share: float) -> Deadline:
        """Return a deadline that leaves this share of the time left."""
        return Deadline(self._clock, self.left() * share)


class Timeouts:
    """Deadlines of one mail's steps. ``limit_s``: seconds that a caller waits for the whole mail; None for no limit."""

    def __init__(self, clock: Clock, limit_s: float | None = None) -> None:
        self._clock = clock
        self._mail = None if limit_s is None else Deadline(clock, limit_s)

    def start(self, seconds: float) -> Deadline:
        """Start a step that may take ``seconds``. Raises Overdue ``timeout`` when the whole mail is late."""
        return Deadline(self._clock, seconds if self._mail is None else min(seconds, self._mail.left()))


def longest_s(settings: EmailSettings) -> float:
    """Return the longest time in seconds that one mail can take, plus a margin."""
    return (
        4 * settings.connect_timeout
        + settings.greeting_timeout
        + COMMANDS * settings.command_timeout
        + settings.data_timeout
        + settings.answer_timeout
        + MARGIN_S
    )
