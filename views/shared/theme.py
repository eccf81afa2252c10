"""Light and dark theme from one seed colour; the tokens are in ``views/controls/tokens.py``."""

from __future__ import annotations

import flet as ft

from flashflow.views.controls.tokens import RADIUS

SEED = "#5B5BD6"
# Amber (tertiary) and green (tertiary_fixed_dim) use roles that no Flet widget uses by default.
COLORS = {
    "primary": ("#5B5BD6", "#B4B1FF"),
    "on_primary": ("#FFFFFF", "#1C1A5E"),
    "secondary_container": ("#E6E6FB", "#34345C"),
    "on_secondary_container": ("#272962", "#E0DFFF"),
    "tertiary": ("#9A5B00", "#F2B457"),
    "tertiary_container": ("#FFEFD6", "#3F2C0B"),
    "on_tertiary_container": ("#4A2B00", "#FFE2B3"),
    "tertiary_fixed_dim": ("#1B7A43", "#62C98B"),
    "surface": ("#FBFBFE", "#111116"),
    "surface_container": ("#F2F2F8", "#1E1E26"),
    "surface_container_lowest": ("#FFFFFF", "#18181F"),
    "outline_variant": ("#E1E1EA", "#31313B"),
}
"""Light and dark colour of each role."""


def light() -> ft.Theme:
    return _theme(ft.ColorScheme(**{role: color for role, (color, _) in COLORS.items()}))


def dark() -> ft.Theme:
    return _theme(ft.ColorScheme(**{role: color for role, (_, color) in COLORS.items()}))


def _theme(scheme: ft.ColorScheme) -> ft.Theme:
    round_shape = ft.RoundedRectangleBorder(radius=RADIUS)
    none = ft.PageTransitionTheme.NONE
    return ft.Theme(
        color_scheme_seed=SEED,
        color_scheme=scheme,
        use_material3=True,
        card_theme=ft.CardTheme(elevation=0, shape=round_shape),
        # Five labels side by side on a page of 360: the longest is “Notifications”.
        navigation_bar_theme=ft.NavigationBarTheme(label_text_style=ft.TextStyle(size=11, letter_spacing=0)),
        dialog_theme=ft.DialogTheme(elevation=0, shape=round_shape),
        tooltip_theme=ft.TooltipTheme(wait_duration=ft.Duration(milliseconds=400)),
        page_transitions=ft.PageTransitionsTheme(android=none, ios=none, linux=none, macos=none, windows=none),
    )
