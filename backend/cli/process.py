"""Standard streams of the command line."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO

from flashflow.backend.core.errors import FlashFlowError, ValidationError

PLAIN = "flashflow.plain"
MOST_INPUT = 1_000_000
_PLAIN_TEXT = {"“": '"', "”": '"', "‘": "'", "’": "'", "…": "...", "–": "-", "—": "-", "→": "->", "·": "-"}


class Unwritable(FlashFlowError):
    """Standard output cannot be written."""


def prepare_streams() -> None:
    """Open standard streams that the caller closed, and make every character printable in any locale."""
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # Otherwise the next opened file gets this number and receives the printed text. The wrong mode keeps
            # reading and writing an error, as for a closed stream.
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
    """Replace characters that the stream's encoding lacks: by plain punctuation, else by an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    return "".join(_PLAIN_TEXT.get(c) or c.encode("ascii", "backslashreplace").decode() for c in part), error.end


def print_line(text: str, end: str = "\n") -> None:
    """Print and flush a line. Raises Unwritable, and BrokenPipeError where the reader has closed the pipe."""
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritable(f"Standard output cannot be written: {error.strerror or error}.") from error


def announce(text: str) -> None:
    """Print a line; a failure is reported but does not end a server whose output is closed or on a full disk."""
    try:
        print_line(text)
    except (Unwritable, BrokenPipeError) as error:
        drop(sys.stdout)
        complain(f"flashflow: {error}")


def complain(text: str) -> None:
    """Print a line on standard error; a failure is ignored."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        drop(sys.stderr)


def drop(stream: TextIO) -> None:
    """Redirect ``stream`` to the null device, so that buffered text raises no error at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def reason(error: Exception) -> str:
    """Format an exception for users, without error numbers and quotes."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error).rstrip(".") or type(error).__name__


def read_input() -> str:
    """Read standard input as text. Raises FlashFlowError where it cannot be read, is no text or is too long."""
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
