"""Unread badge of the bell: its text ("3", "99+") and its look."""

from __future__ import annotations

import flet as ft

from flashflow.views.controls.texts import silent
from flashflow.views.controls.tokens import ACCENT
from flashflow.views.controls.translation import ENGLISH, Translation

BADGE_MAX = 99


def badge_text(unread: int) -> str | None:
    """Return the text of the badge: None at zero, "99+" above BADGE_MAX."""
    if unread <= 0:
        return None
    return str(unread) if unread <= BADGE_MAX else f"{BADGE_MAX}+"


def bell_name(unread: int, quiet_until: str | None = None, t: Translation = ENGLISH) -> str:
    """Return the bell's accessible name: "Notifications, 3 unread, do not disturb until 14:05"."""
    name = t("Notifications, {unread:,} unread", unread=unread) if unread > 0 else t("Notifications, none unread")
    return t("{bell}, do not disturb until {time}", bell=name, time=quiet_until) if quiet_until else name


class Badge:
    """The badge over the bell's icon; hidden at zero."""

    def __init__(self) -> None:
        self._count = ft.Text(size=11, weight=ft.FontWeight.W_600, color=ft.Colors.ON_PRIMARY)
        pill = ft.Container(
            self._count, bgcolor=ACCENT, border_radius=9, padding=ft.Padding.symmetric(horizontal=5, vertical=1)
        )
        self.control = ft.TransparentPointer(silent(pill), right=2, top=4)

    @property
    def text(self) -> str | None:
        return self._count.value if self.control.visible else None

    def set_unread(self, unread: int) -> None:
        text = badge_text(unread)
        self._count.value, self.control.visible = text or "", text is not None
