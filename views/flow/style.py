"""The part of CSS that ``style`` of a text understands; the rest is ignored. Pure functions, no I/O."""

from __future__ import annotations

import re
from typing import NamedTuple

import flet as ft

from flashflow.views.controls.tokens import ACCENT, GOOD, HIGH, MUTED, URGENT

COLORS: dict[str, ft.ColorValue] = {
    "primary": ACCENT, "accent": ACCENT, "blue": ACCENT,
    "success": GOOD, "good": GOOD, "green": GOOD,
    "warning": HIGH, "high": HIGH, "orange": HIGH, "amber": HIGH, "yellow": HIGH,
    "danger": URGENT, "error": URGENT, "urgent": URGENT, "red": URGENT,
    "muted": MUTED, "secondary": MUTED, "gray": MUTED, "grey": MUTED,
}  # fmt: skip
"""Names of colours. They give the theme's tokens, which have enough contrast in the light and the dark theme."""

SIZES = {"small": 12, "smaller": 12, "medium": 14, "large": 20, "larger": 20, "x-large": 28, "xx-large": 28}
SMALLEST, LARGEST = 12, 28
_PIXELS = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)\s*(px|pt|rem|em)")
_PER_UNIT = {"px": 1.0, "pt": 4 / 3, "rem": 14.0, "em": 14.0}


class Style(NamedTuple):
    """Look of a text; None: as the element has it."""

    bold: bool | None = None
    italic: bool = False
    underline: bool = False
    color: ft.ColorValue | None = None
    size: int | None = None
    align: ft.TextAlign | None = None


def parse_style(css: str | None) -> Style:
    """Return the declarations of ``css`` that are understood; the last of a property counts."""
    style = Style()
    for declaration in (css or "").split(";"):
        name, _, value = declaration.partition(":")
        style = _with(style, name.strip().lower(), value.replace("!important", "").strip().lower())
    return style


def _with(style: Style, name: str, value: str) -> Style:
    if not value and name in {"bold", "italic", "underline", *COLORS}:
        return _word(style, name)
    match name:
        case "font-weight":
            heavy = value in {"bold", "bolder"} or (value.isdecimal() and len(value) <= 4 and int(value) >= 600)
            style = style._replace(bold=heavy)
        case "font-style":
            style = style._replace(italic=value in {"italic", "oblique"})
        case "text-decoration":
            style = style._replace(underline="underline" in value)
        case "color":
            style = style._replace(color=COLORS.get(_color_name(value), style.color))
        case "font-size":
            style = style._replace(size=_size(value) or style.size)
        case "text-align" if value in {"left", "center", "right"}:
            style = style._replace(align=ft.TextAlign(value))
    return style


def _word(style: Style, word: str) -> Style:
    """Apply a single word without a property: "bold", "muted"."""
    match word:
        case "bold":
            return style._replace(bold=True)
        case "italic":
            return style._replace(italic=True)
        case "underline":
            return style._replace(underline=True)
        case _:
            return style._replace(color=COLORS[word])


def _color_name(value: str) -> str:
    """Return the name of a token: "var(--primary-color)" → "primary"."""
    inner = re.fullmatch(r"var\(\s*--([a-z-]{1,40})\s*\)", value)
    return inner[1].removeprefix("color-").removesuffix("-color") if inner else value


def _size(value: str) -> int | None:
    if value in SIZES:
        return SIZES[value]
    if (match := _PIXELS.fullmatch(value)) is None:
        return None
    return round(min(LARGEST, max(SMALLEST, float(match[1]) * _PER_UNIT[match[2]])))
