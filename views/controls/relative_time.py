"""Format times relative to now: "5 min ago", "tomorrow, 07:00", and exact. Pure functions, no Flet."""

from __future__ import annotations

from datetime import date, datetime

MINUTE = 60
HOUR = 60 * MINUTE


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


def day_month(day: date, now: date) -> str:
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
