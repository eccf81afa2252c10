"""Format times, counts and texts of callers. Pure functions, no Flet."""

from __future__ import annotations

from datetime import datetime
from unicodedata import bidirectional
from urllib.parse import urlsplit

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
BADGE_MAX = 99
JOINERS = "\u200c\u200d"


def ago(then: datetime, now: datetime) -> str:
    """Format a past time: "just now", "4 min ago", "2 h ago", "yesterday", "3 days ago", "12 Mar 2025".

    Both times are aware; days are calendar days in ``now``'s zone. A future time (clocks differ) is "just now" within a
    minute and a date with a time of day beyond it.
    """
    then = then.astimezone(now.tzinfo)
    seconds = (now - then).total_seconds()
    if seconds < -MINUTE:
        return f"{day_month(then, now)}, {then:%H:%M}"
    if seconds < MINUTE:
        return "just now"
    if seconds < HOUR:
        return f"{int(seconds // MINUTE)} min ago"
    days = (now.date() - then.date()).days
    if days == 0 or seconds < 6 * HOUR:
        return f"{int(seconds // HOUR)} h ago"
    if days == 1:
        return "yesterday"
    return f"{days} days ago" if days < 7 else day_month(then, now)


def day_month(day: datetime, now: datetime) -> str:
    """ "12 Mar", with the year unless it is the current year."""
    text = f"{day.day} {day:%b}"
    return text if day.year == now.year else f"{text} {day.year}"


def day_heading(then: datetime, now: datetime) -> str:
    """Return the heading of a day in a list: "Today", "Yesterday", "Friday", "12 Mar"."""
    then = then.astimezone(now.tzinfo)
    days = (now.date() - then.date()).days
    if days <= 0:
        return "Today"
    if days == 1:
        return "Yesterday"
    return f"{then:%A}" if days < 7 else day_month(then, now)


def exact(then: datetime, now: datetime) -> str:
    """Format date and time in ``now``'s zone: "Sunday 22 November 2026, 12:04:11"."""
    then = then.astimezone(now.tzinfo)
    return f"{then:%A} {then.day} {then:%B} {then.year}, {then:%H:%M:%S}"


def clock(then: datetime, now: datetime) -> str:
    """Format the time of day, with the date unless it is today: "12:04:11", "12 Mar, 12:04:11"."""
    then = then.astimezone(now.tzinfo)
    return f"{then:%H:%M:%S}" if then.date() == now.date() else f"{day_month(then, now)}, {then:%H:%M:%S}"


def upcoming(then: datetime, now: datetime) -> str:
    """Format a future time: "14:05", "tomorrow, 07:00", "Friday, 07:00", "12 Mar, 07:00"."""
    then = then.astimezone(now.tzinfo)
    days = (then.date() - now.date()).days
    if days == 0:
        return f"{then:%H:%M}"
    if days == 1:
        return f"tomorrow, {then:%H:%M}"
    return f"{then:%A}, {then:%H:%M}" if 1 < days < 7 else f"{day_month(then, now)}, {then:%H:%M}"


def badge(unread: int) -> str | None:
    """Return the text of the unread badge: None at zero, "99+" above BADGE_MAX."""
    if unread <= 0:
        return None
    return str(unread) if unread <= BADGE_MAX else f"{BADGE_MAX}+"


def bell_name(unread: int, quiet_until: str | None = None) -> str:
    """Return the bell's accessible name: "Notifications, 3 unread, do not disturb until 14:05"."""
    name = f"Notifications, {unread:,} unread" if unread > 0 else "Notifications, none unread"
    return f"{name}, do not disturb until {quiet_until}" if quiet_until else name


def times(count: int) -> str | None:
    """Return how often a notification was sent under one collapse key: "×3"; None for once."""
    return f"×{count:,}" if count > 1 else None


def grouped(number: int) -> str:
    """1234567 → "1,234,567"."""
    return f"{number:,}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """ "1 activity", "2 activities"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def share(part: int, whole: int) -> str | None:
    """Return a percentage, "98.7 %"; None when ``whole`` is zero."""
    if whole <= 0:
        return None
    return f"{100 * part / whole:.1f}".removesuffix(".0") + " %"


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
