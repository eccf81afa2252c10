"""SMTP time-outs: one for each step of a dialogue, in minutes as RFC 5321, 4.5.3.2 asks, and who waits for it."""

from __future__ import annotations

from flashflow.backend.core.clock import Clock
from flashflow.backend.domain.channel import Transient
from flashflow.backend.settings.model import EmailSettings

CHECK_S = 4.0
"""An idle connection has this long to say that it still stands; one that went deaf is replaced."""
SLOW_S = 15.0
"""A mail whose server takes longer for one step leaves its place to another mail and waits beside it."""
COMMANDS = 12
"""Commands that one mail may need: EHLO and HELO twice, STARTTLS, three for a login, MAIL twice, RCPT, DATA."""
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
    """The deadlines of one mail's steps, each from the time it is asked for.

    ``patience_s``: the seconds that a caller waits for the whole mail, where someone does.
    """

    def __init__(self, settings: EmailSettings, clock: Clock, patience_s: float | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._whole = None if patience_s is None else Deadline(clock, patience_s)

    def connect(self) -> Deadline:
        """For a free connection, the name look-up, the TCP connection and the TLS handshake, each."""
        return self._deadline(self._settings.connect_timeout)

    def greeting(self) -> Deadline:
        return self._deadline(self._settings.greeting_timeout)

    def command(self) -> Deadline:
        """For the answer to any command."""
        return self._deadline(self._settings.command_timeout)

    def check(self) -> Deadline:
        """For the answer of a connection that was idle."""
        return self._deadline(min(CHECK_S, self._settings.command_timeout))

    def data(self) -> Deadline:
        """For the server to take the text."""
        return self._deadline(self._settings.data_timeout)

    def answer(self) -> Deadline:
        """For the answer to the last dot: a server looks into a mail then, and a client that hangs up too early gets it
        delivered and sends it again (RFC 5321, 4.5.3.2.6)."""
        return self._deadline(self._settings.answer_timeout)

    def _deadline(self, seconds: float) -> Deadline:
        return Deadline(self._clock, seconds if self._whole is None else min(seconds, self._whole.left()))


def longest_s(settings: EmailSettings) -> float:
    """Return the seconds that one mail can take at most, and a margin."""
    return (
        4 * settings.connect_timeout
        + settings.greeting_timeout
        + COMMANDS * settings.command_timeout
        + settings.data_timeout
        + settings.answer_timeout
        + MARGIN_S
    )
