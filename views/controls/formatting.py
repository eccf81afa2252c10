"""Words for times and counts: pure functions, no Flet."""

from __future__ import annotations

from datetime import datetime, timedelta
from unicodedata import bidirectional

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
BADGE_MAX = 99
JOINERS = "\u200c\u200d"


def ago(then: datetime, now: datetime) -> str:
    """How long ago in a few words: "just now", "4 min ago", "2 h ago", "yesterday", "3 days ago", "12 Mar 2025".

    Both times are aware; days are those of ``now``'s zone. A time ahead of ``now`` (clocks differ) reads "just now" up
    to a minute and as its date and hour beyond.
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
    """ "12 Mar", with the year where it is not this one."""
    text = f"{day.day} {day:%b}"
    return text if day.year == now.year else f"{text} {day.year}"


def day_heading(then: datetime, now: datetime) -> str:
    """The heading a list is grouped under: "Today", "Yesterday", "Friday", "12 Mar"."""
    then = then.astimezone(now.tzinfo)
    days = (now.date() - then.date()).days
    if days <= 0:
        return "Today"
    if days == 1:
        return "Yesterday"
    return f"{then:%A}" if days < 7 else day_month(then, now)


def exact(then: datetime, now: datetime) -> str:
    """The full time in ``now``'s zone: "Sunday 22 November 2026, 12:04:11"."""
    then = then.astimezone(now.tzinfo)
    return f"{then:%A} {then.day} {then:%B} {then.year}, {then:%H:%M:%S}"


def clock(then: datetime, now: datetime) -> str:
    """The time of day, with the day where it is not today: "12:04:11", "12 Mar, 12:04:11"."""
    then = then.astimezone(now.tzinfo)
    return f"{then:%H:%M:%S}" if then.date() == now.date() else f"{day_month(then, now)}, {then:%H:%M:%S}"


def upcoming(then: datetime, now: datetime) -> str:
    """A time ahead, as short as it can be said: "14:05", "tomorrow, 07:00", "Friday, 07:00", "12 Mar, 07:00"."""
    then = then.astimezone(now.tzinfo)
    days = (then.date() - now.date()).days
    if days == 0:
        return f"{then:%H:%M}"
    if days == 1:
        return f"tomorrow, {then:%H:%M}"
    return f"{then:%A}, {then:%H:%M}" if 1 < days < 7 else f"{day_month(then, now)}, {then:%H:%M}"


def next_minute(now: datetime) -> timedelta:
    """How long until the minute turns, when relative times want to be written again."""
    return timedelta(seconds=MINUTE) - timedelta(seconds=now.second, microseconds=now.microsecond)


def badge(unread: int) -> str | None:
    """What stands in a badge: None at zero, "99+" at most."""
    if unread <= 0:
        return None
    return str(unread) if unread <= BADGE_MAX else f"{BADGE_MAX}+"


def bell_name(unread: int, quiet_until: str | None = None) -> str:
    """The bell's name for screen readers: "Notifications, 3 unread, do not disturb until 14:05"."""
    name = f"Notifications, {unread:,} unread" if unread > 0 else "Notifications, none unread"
    return f"{name}, do not disturb until {quiet_until}" if quiet_until else name


def times(count: int) -> str | None:
    """How often a notice was updated in place: "×3", None where it came once."""
    return f"×{count:,}" if count > 1 else None


def one_line(text: str, limit: int = 300) -> str:
    """Text as one line of at most ``limit`` characters; line breaks and control characters become spaces."""
    line = " ".join(_shown(text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def paragraphs(text: str) -> str:
    """Text with its line breaks kept, other control characters (bidi overrides too) taken out."""
    return "\n".join(_shown(line).rstrip() for line in text.splitlines()).strip()


def reads_rtl(text: str) -> bool:
    """Whether the first letter that has a direction reads from right to left."""
    for character in text:
        direction = bidirectional(character)
        if direction in ("L", "R", "AL"):
            return direction != "L"
    return False


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() or c in JOINERS else " " for c in text)
