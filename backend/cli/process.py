"""The process around the command line: its standard streams, and the signals that ask it to end."""

from __future__ import annotations

import codecs
import io
import os
import signal
import socket
import sys
from types import TracebackType
from typing import TextIO

from flashflow.backend.core.errors import FlashFlowError, ValidationError

PLAIN = "flashflow.plain"
MOST_INPUT = 1_000_000
_PLAIN_TEXT = {"“": '"', "”": '"', "‘": "'", "’": "'", "…": "...", "–": "-", "—": "-", "→": "->", "·": "-"}


class Unwritable(FlashFlowError):
    """Standard output takes no more."""


def prepare_streams() -> None:
    """Open the standard streams that the caller closed, and make every character printable in any locale."""
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # Else the next file that is opened gets this number, and what is printed ends up in it. The wrong mode
            # keeps reading and writing an error, as it is for a stream that is closed.
            os.open(os.devnull, flags)
    # None where the descriptor was closed when the interpreter started.
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    codecs.register_error(PLAIN, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace what the stream's encoding lacks: by plain punctuation where there is some, else by its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    return "".join(_PLAIN_TEXT.get(c) or c.encode("ascii", "backslashreplace").decode() for c in part), error.end


def print_line(text: str, end: str = "\n") -> None:
    """Print a line at once. Raises Unwritable, and BrokenPipeError where the reader has gone away."""
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritable(f"Standard output cannot be written: {error.strerror or error}.") from error


def announce(text: str) -> None:
    """Print a line that a server can do without: it serves with its output closed or on a full disk, too."""
    try:
        print_line(text)
    except (Unwritable, BrokenPipeError) as error:
        drop(sys.stdout)
        complain(f"flashflow: {error}")


def complain(text: str) -> None:
    """Print a line on standard error; where that cannot be written there is no other place to say so."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        drop(sys.stderr)


def drop(stream: TextIO) -> None:
    """Send ``stream`` nowhere from now on, so that what is still buffered fails no more when the process ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def reason(error: Exception) -> str:
    """What failed and on which file, without the numbers and quotes of Python."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error).rstrip(".") or type(error).__name__


def read_input() -> str:
    """All of standard input as text. Raises FlashFlowError where it cannot be read, is no text or is without end."""
    try:
        text = sys.stdin.read(MOST_INPUT + 1)
        text.encode()
    except UnicodeError:
        words = f"is not text in this locale's encoding ({sys.stdin.encoding})"
        raise ValidationError.of("standard input", words) from None
    except OSError as error:
        raise FlashFlowError(f"Standard input cannot be read: {error.strerror or error}.") from error
    if len(text) > MOST_INPUT:
        raise ValidationError.of("standard input", f"is longer than {MOST_INPUT:,} characters")
    return text


class EndSignals:
    """SIGINT, SIGTERM and SIGHUP as something to wait for.

    The interpreter writes each signal's number to a socket, in whichever thread the system delivers it. A wait for a
    lock would end only where that is the main thread, and after SIGSTOP and SIGCONT it often is another.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._numbers = {signal.SIGINT, signal.SIGTERM}
        hang_up = getattr(signal, "SIGHUP", None)
        # nohup has it ignored, and means it.
        if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
            self._numbers.add(hang_up)

    def __enter__(self) -> EndSignals:
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in self._numbers:
            signal.signal(number, lambda *_: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        self._reader.close()
        self._writer.close()

    def wait(self) -> None:
        """Return once one of the signals has come, be it before this call."""
        while not self._numbers.intersection(self._reader.recv(64)):
            pass
