"""Light and dark theme from one seed colour; the tokens are in ``views/controls/tokens.py``."""

from __future__ import annotations

import flet as ft

from flashflow.views.controls.tokens import RADIUS

SEED = "#5B5BD6"


def light() -> ft.Theme:
    # Amber (tertiary) and green (tertiary_fixed_dim) use roles that no Flet widget uses by default.
    return _theme(
        ft.ColorScheme(
            primary="#5B5BD6",
            on_primary="#FFFFFF",
            secondary_container="#E6E6FB",
            on_secondary_container="#272962",
            tertiary="#9A5B00",
            tertiary_container="#FFEFD6",
            on_tertiary_container="#4A2B00",
            tertiary_fixed_dim="#1B7A43",
            surface="#FBFBFE",
            surface_container="#F2F2F8",
            surface_container_lowest="#FFFFFF",
            outline_variant="#E1E1EA",
        )
    )


def dark() -> ft.Theme:
    return _theme(
        ft.ColorScheme(
            primary="#B4B1FF",
            on_primary="#1C1A5E",
            secondary_container="#34345C",
            on_secondary_container="#E0DFFF",
            tertiary="#F2B457",
            tertiary_container="#3F2C0B",
            on_tertiary_container="#FFE2B3",
            tertiary_fixed_dim="#62C98B",
            surface="#111116",
            surface_container="#1E1E26",
            surface_container_lowest="#18181F",
            outline_variant="#31313B",
        )
    )


def _theme(scheme: ft.ColorScheme) -> ft.Theme:
    round_shape = ft.RoundedRectangleBorder(radius=RADIUS)
    return ft.Theme(
        color_scheme_seed=SEED,
        color_scheme=scheme,
        use_material3=True,
        card_theme=ft.CardTheme(elevation=0, shape=round_shape),
        dialog_theme=ft.DialogTheme(elevation=0, shape=round_shape),
        tooltip_theme=ft.TooltipTheme(wait_duration=ft.Duration(milliseconds=400)),
        page_transitions=_still(),
    )


def _still() -> ft.PageTransitionsTheme:
    none = ft.PageTransitionTheme.NONE
    return ft.PageTransitionsTheme(android=none, ios=none, linux=none, macos=none, windows=none)
