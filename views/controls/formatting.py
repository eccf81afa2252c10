"""Format counts, durations and texts of callers. Pure functions, no Flet."""

from __future__ import annotations

from unicodedata import bidirectional
from urllib.parse import urlsplit

JOINERS = "\u200c\u200d"


def times(count: int) -> str | None:
    """Return how often a notification was sent under one collapse key: "×3"; None for once."""
    return f"×{count:,}" if count > 1 else None


def grouped(number: int) -> str:
    """1234567 → "1,234,567"."""
    return f"{number:,}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """ "1 activity", "2 activities"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def share(part: int, total: int) -> str | None:
    """Return a percentage, "98.7 %"; None when ``total`` is zero."""
    if total <= 0:
        return None
    return f"{100 * part / total:.1f}".removesuffix(".0") + " %"


def elapsed_text(milliseconds: int) -> str:
    """Format a duration: "120 ms", "1.4 s", "15 s"."""
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    return f"{milliseconds / 1000:.1f}".removesuffix(".0") + " s"


def one_line(text: str, limit: int = 300) -> str:
    """Shorten text to one line of ``limit`` characters; line breaks and control characters become spaces."""
    line = " ".join(_shown(text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def paragraphs(text: str) -> str:
    """Replace control characters, bidi overrides too, with spaces; keep line breaks."""
    return "\n".join(_shown(line).rstrip() for line in text.splitlines()).strip()


def reads_rtl(text: str) -> bool:
    """Return whether the first character with a direction reads from right to left."""
    for character in text:
        direction = bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False


def safe_link(url: str) -> str | None:
    """Return the URL if it is http or https with a host and without a user name, else None."""
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


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() or c in JOINERS else " " for c in text)
