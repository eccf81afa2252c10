"""Format times relative to now: "5 min ago", "tomorrow, 07:00", and exact. Pure functions, no Flet."""

from __future__ import annotations

from datetime import date, datetime

from flashflow.views.controls.translation import ENGLISH, Translation

MINUTE = 60
HOUR = 60 * MINUTE
# Not from strftime, whose words depend on the process's locale.
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)


def ago(then: datetime, now: datetime, t: Translation = ENGLISH) -> str:
    """Format a past time: "just now", "4 min ago", "2 h ago", "yesterday", "3 days ago", "12 Mar 2025".

    Both times are aware; days are calendar days in ``now``'s zone. A future time (clocks differ) is "just now" within a
    minute and a date with a time of day beyond it.
    """
    then = then.astimezone(now.tzinfo)
    seconds = (now - then).total_seconds()
    if seconds < -MINUTE:
        return t("{day}, {time}", day=day_month(then, now, t), time=f"{then:%H:%M}")
    if seconds < MINUTE:
        return t("just now")
    if seconds < HOUR:
        return t("{count} min ago", count=int(seconds // MINUTE))
    days = (now.date() - then.date()).days
    if days == 0 or seconds < 6 * HOUR:
        return t("{count} h ago", count=int(seconds // HOUR))
    if days == 1:
        return t("yesterday")
    return t("{count} days ago", count=days) if days < 7 else day_month(then, now, t)


def day_month(day: date, now: date, t: Translation = ENGLISH) -> str:
    """ "12 Mar", with the year unless it is the current year."""
    month = t(MONTHS[day.month - 1][:3])
    if day.year == now.year:
        return t("{day} {month}", day=day.day, month=month)
    return t("{day} {month} {year}", day=day.day, month=month, year=day.year)


def day_heading(then: datetime, now: datetime) -> str:
    """Return the heading of a day in a list: "Today", "Yesterday", "Friday", "12 Mar"."""
    then = then.astimezone(now.tzinfo)
    days = (now.date() - then.date()).days
    if days <= 0:
        return "Today"
    if days == 1:
        return "Yesterday"
    return WEEKDAYS[then.weekday()] if days < 7 else day_month(then, now)


def exact(then: datetime, now: datetime, t: Translation = ENGLISH) -> str:
    """Format date and time in ``now``'s zone: "Sunday 22 November 2026, 12:04:11"."""
    then = then.astimezone(now.tzinfo)
    return t(
        "{weekday} {day} {month} {year}, {time}",
        weekday=t(WEEKDAYS[then.weekday()]),
        day=then.day,
        month=t(MONTHS[then.month - 1]),
        year=then.year,
        time=f"{then:%H:%M:%S}",
    )


def clock(then: datetime, now: datetime) -> str:
    """Format the time of day, with the date unless it is today: "12:04:11", "12 Mar, 12:04:11"."""
    then = then.astimezone(now.tzinfo)
    return f"{then:%H:%M:%S}" if then.date() == now.date() else f"{day_month(then, now)}, {then:%H:%M:%S}"


def upcoming(then: datetime, now: datetime, t: Translation = ENGLISH) -> str:
    """Format a future time: "14:05", "tomorrow, 07:00", "Friday, 07:00", "12 Mar, 07:00"."""
    then = then.astimezone(now.tzinfo)
    days, time = (then.date() - now.date()).days, f"{then:%H:%M}"
    if days == 0:
        return time
    if days == 1:
        return t("{day}, {time}", day=t("tomorrow"), time=time)
    day = t(WEEKDAYS[then.weekday()]) if 1 < days < 7 else day_month(then, now, t)
    return t("{day}, {time}", day=day, time=time)
