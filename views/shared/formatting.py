"""How the screens put figures and times into words: pure functions, no Flet."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from flashflow.views.controls.formatting import (
    ago,
    badge,
    clock,
    day_heading,
    exact,
    one_line,
    paragraphs,
    reads_rtl,
    times,
    upcoming,
)

__all__ = [
    "ago",
    "as_time",
    "badge",
    "clock",
    "complaint",
    "day_heading",
    "exact",
    "grouped",
    "lasted",
    "mine",
    "one_line",
    "paragraphs",
    "plural",
    "reads_rtl",
    "safe_link",
    "share",
    "times",
    "upcoming",
]

_HOURS = re.compile(r"(\d{1,2})(?:[:.h ]?(\d{2}))?")
_TOO_LONG = re.compile(r"Expected 'str' of length <= (\d+)")
_VERBS = frozenset({"is", "are", "must", "has", "have", "holds", "names", "needs", "goes", "does", "was"})
_TO_THE_READER = (
    ("The user has ", "You have "),
    ("The user turned ", "You turned "),
    ("The user does not ", "You do not "),
)


def grouped(number: int) -> str:
    """1234567 → "1,234,567"."""
    return f"{number:,}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """ "1 activity", "2 activities"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def share(part: int, whole: int) -> str | None:
    """A share in per cent, "98.7 %"; None where there is nothing to share."""
    if whole <= 0:
        return None
    return f"{100 * part / whole:.1f}".removesuffix(".0") + " %"


def safe_link(url: str) -> str | None:
    """The URL where it is a plain web link (http or https with a host and no user name), else None."""
    if any(c.isspace() or not c.isprintable() for c in url):
        return None
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme.lower() not in ("http", "https") or not host or parts.username is not None:
        return None
    return url


def lasted(milliseconds: int) -> str:
    """How long a try took: "120 ms", "1.4 s", "15 s"."""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    return f"{milliseconds / 1000:.1f}".removesuffix(".0") + " s"


def mine(reason: str) -> str:
    """A reason told of a user, told to that user: "The user has no phone number." → "You have no phone number."."""
    for theirs, ours in _TO_THE_READER:
        reason = reason.replace(theirs, ours)
    return reason


def complaint(message: str) -> str:
    """A refusal of one field as a sentence beside it: "is required" → "This is required."."""
    if too_long := _TOO_LONG.search(message):
        return f"This is longer than {too_long[1]} characters."
    words = f"This {message}" if message.split(" ", 1)[0] in _VERBS else message[:1].upper() + message[1:]
    return words if words.endswith((".", "?", "!")) else f"{words}."


def as_time(text: str) -> str:
    """A time of day as people type it ("7", "7.30", "0730") as "07:30"; anything else as it is."""
    match = _HOURS.fullmatch(text.strip())
    return f"{int(match[1]):02}:{match[2] or '00'}" if match else text.strip()
