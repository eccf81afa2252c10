"""How the person's data is told of: sizes, rules, what an erasure takes. Pure functions, no Flet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashflow.views.shared.formatting import plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flashflow.backend import PrivacySettings, RetentionSettings

_UNITS = ("bytes", "KB", "MB", "GB", "TB")
_KINDS = {
    "activities": ("activity", "activities"),
    "sessions": ("session", None),
    "notifications": ("notification", None),
    "devices": ("device", None),
    "schedules": ("recurring notification", None),
}


def size(count: int) -> str:
    """Bytes in words, 1 MB being 1,024 KB: "12.4 MB"."""
    number, unit = float(count), 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    if unit == 0:
        return plural(count, "byte")
    return f"{number:,.1f}".removesuffix(".0") + f" {_UNITS[unit]}"


def keeping(rules: RetentionSettings) -> str:
    """How long rows are kept."""
    if (rules.activities_days, rules.notifications_days, rules.max_mb) == (None, None, None):
        return "Keeps everything, for ever."
    told = [
        f"{what} for {plural(days, 'day')}" if days is not None else f"{what} for ever"
        for what, days in (("activities", rules.activities_days), ("notifications", rules.notifications_days))
    ]
    words = f"Keeps {' and '.join(told)}."
    if rules.max_mb is not None:
        words += f" Above {size(rules.max_mb * 1024 * 1024)} the oldest go first."
    return f"{words} Figures stay."


def tracking(rules: PrivacySettings) -> str:
    """Of whom activities are kept, and what of their addresses."""
    who = {
        "all": "Keeps the activities of everybody who has not said no.",
        "consented": "Keeps the activities of those who agreed.",
        "none": "Keeps nobody's activities.",
    }[rules.tracking]
    what = "IP addresses are masked before they are stored." if rules.mask_ip else "IP addresses are stored whole."
    return f"{who} {what}"


def erased(user: str, removed: Mapping[str, int]) -> str:
    """What an erasure took."""
    told = [plural(removed[kind], *words) for kind, words in _KINDS.items() if removed.get(kind)]
    if not told:
        return f"Nothing was stored of “{user}”. Whatever comes of them now is refused."
    listed = told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]}"
    return f"“{user}” is erased: {listed}, and everything that belongs to them."
