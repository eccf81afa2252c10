"""How the screens put figures and times into words: pure functions, no Flet."""

from __future__ import annotations

from urllib.parse import urlsplit

from views.controls.words import ago, badge, clock, day_heading, exact, one_line, paragraphs, reads_rtl

__all__ = [
    "ago",
    "badge",
    "clock",
    "day_heading",
    "exact",
    "grouped",
    "one_line",
    "paragraphs",
    "plural",
    "reads_rtl",
    "safe_link",
    "share",
]


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
