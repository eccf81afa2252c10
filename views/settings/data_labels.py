"""Texts about stored data: sizes, retention and privacy rules, erasure results. Pure functions, no Flet."""

from __future__ import annotations

from collections.abc import Mapping

from flashflow.backend import PrivacySettings, RetentionSettings
from flashflow.views.controls.formatting import plural

_UNITS = ("bytes", "KB", "MB", "GB", "TB")
_KINDS = {
    "activities": ("activity", "activities"),
    "sessions": ("session", None),
    "notifications": ("notification", None),
    "devices": ("device", None),
    "schedules": ("recurring notification", None),
}


def size_text(count: int) -> str:
    """Format bytes with 1 KB = 1,024 bytes: "12.4 MB"."""
    number, unit = float(count), 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    if unit == 0:
        return plural(count, "byte")
    return f"{number:,.1f}".removesuffix(".0") + f" {_UNITS[unit]}"


def retention_text(rules: RetentionSettings) -> str:
    """Describe the retention rules."""
    if (rules.activities_days, rules.notifications_days, rules.max_mb) == (None, None, None):
        return "Keeps everything without a time limit."
    kept = [
        f"{kind} for {plural(days, 'day')}" if days is not None else f"{kind} without a time limit"
        for kind, days in (("activities", rules.activities_days), ("notifications", rules.notifications_days))
    ]
    text = f"Keeps {' and '.join(kept)}."
    if rules.max_mb is not None:
        text += f" Above {size_text(rules.max_mb * 1024 * 1024)} the oldest are deleted first."
    return f"{text} Metrics are kept."


def tracking_text(rules: PrivacySettings) -> str:
    """Describe whose activities are stored and how IP addresses are stored."""
    who = {
        "all": "Stores activities of all users except those who declined.",
        "consented": "Stores activities of users who consented.",
        "none": "Stores no activities.",
    }[rules.tracking]
    addresses = "IP addresses are masked before they are stored." if rules.mask_ip else "IP addresses are stored whole."
    return f"{who} {addresses}"


def erasure_text(user: str, removed: Mapping[str, int]) -> str:
    """Describe what an erasure deleted."""
    deleted = [plural(removed[kind], *names) for kind, names in _KINDS.items() if removed.get(kind)]
    if not deleted:
        return f"Nothing was stored about “{user}”. Later activities and notifications of this user are refused."
    listed = deleted[0] if len(deleted) == 1 else f"{', '.join(deleted[:-1])} and {deleted[-1]}"
    return f"“{user}” was erased: {listed} and all related data."
