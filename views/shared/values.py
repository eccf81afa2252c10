"""Format shares, durations and points of a trend. Pure functions, no Flet."""

from __future__ import annotations

from datetime import date

from flashflow.views.controls.formatting import plural

Number = int | float

NOTHING = "–"


def percent(part: Number | None) -> str:
    """Format a share: 0.4167 → "42 %", 0.042 → "4.2 %", 0 → "0 %", None → "–"."""
    if part is None:
        return NOTHING
    hundredths = 100 * part
    if part and abs(hundredths) < 0.1:
        return "under 0.1 %"
    if abs(hundredths) < 9.95:
        return f"{hundredths:.1f}".removesuffix(".0") + " %"
    return f"{hundredths:,.0f} %"


def duration_text(seconds: float | None) -> str:
    """ "45 s", "3 min 20 s", "2 h 5 min", "3 days"; None → "–"."""
    if seconds is None:
        return NOTHING
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min" + (f" {rounded % 60} s" if rounded % 60 else "")
    if rounded < 2 * 86_400:
        return f"{rounded // 3600} h" + (f" {rounded % 3600 // 60} min" if rounded % 3600 // 60 else "")
    return plural(round(rounded / 86_400), "day")


def point_text(at: str) -> str:
    """Format a point of a trend: "2026-11-24" → "Tue 24 Nov", "2026-11-24T09" → "09:00"."""
    if "T" in at:
        return f"{at[-2:]}:00"
    of = date.fromisoformat(at)
    return f"{of:%a} {of.day} {of:%b}"
