"""Texts of controls, and how screen readers read them."""

from __future__ import annotations

from datetime import datetime

import flet as ft

from flashflow.views.controls.formatting import one_line, reads_rtl
from flashflow.views.controls.relative_time import ago, exact
from flashflow.views.controls.tokens import BODY, MUTED, SMALL
from flashflow.views.controls.translation import ENGLISH, Translation


def body(text: str, *, strong: bool = False, lines: int | None = None, color: ft.ColorValue | None = None) -> ft.Text:
    """Return text of size BODY; ``lines`` limits it with an ellipsis."""
    return _text(text, BODY, ft.FontWeight.W_600 if strong else ft.FontWeight.W_400, lines, color)


def small(text: str, *, lines: int | None = None, color: ft.ColorValue = MUTED) -> ft.Text:
    """Return secondary text of size SMALL."""
    return _text(text, SMALL, ft.FontWeight.W_400, lines, color)


def copyable(text: ft.Text) -> ft.Semantics:
    """Make text selectable."""
    # Without the label Flutter announces selectable text as an input field.
    text.selectable = True
    return ft.Semantics(label=text.value, exclude_semantics=True, content=text)


def caller_text(text: str, *, strong: bool = False, lines: int = 1) -> ft.Text:
    """Return text from a caller as one paragraph in its own writing direction."""
    control = body(one_line(text), strong=strong, lines=lines)
    control.rtl, control.text_align = reads_rtl(text), ft.TextAlign.LEFT
    return control


def time_text(then: datetime, now: datetime, t: Translation = ENGLISH) -> ft.Text:
    """Return a relative time with the exact time as tooltip."""
    control = small(ago(then, now, t))
    control.tooltip = hint(exact(then, now, t))
    return control


def hint(text: str, *, tap: bool = False) -> ft.Tooltip:
    """Return a tooltip that screen readers skip; ``tap`` opens it by a tap instead of a long press."""
    trigger = ft.TooltipTriggerMode.TAP if tap else ft.TooltipTriggerMode.LONG_PRESS
    return ft.Tooltip(text, exclude_from_semantics=True, trigger_mode=trigger)  # type: ignore[arg-type]  # Flet's own: no enum, strings


def heading(text: str, *, size: int = BODY, level: int = 2) -> ft.Semantics:
    """Return a heading, marked as one for screen readers."""
    return ft.Semantics(
        label=text,
        header=True,
        heading_level=level,
        exclude_semantics=True,
        content=ft.Text(text, size=size, weight=ft.FontWeight.W_600),
    )


def silent(content: ft.Control) -> ft.Semantics:
    """Hide content from screen readers."""
    return ft.Semantics(exclude_semantics=True, content=content)


def read_as(name: str, content: ft.Control, *, key: str | None = None, expand: bool | None = None) -> ft.Semantics:
    """Group content into one semantics node with the accessible name ``name``."""
    return ft.Semantics(key=key, label=name, container=True, exclude_semantics=True, expand=expand, content=content)


def _text(text: str, size: int, weight: ft.FontWeight, lines: int | None, color: ft.ColorValue | None) -> ft.Text:
    overflow = ft.TextOverflow.ELLIPSIS if lines else ft.TextOverflow.VISIBLE
    return ft.Text(text, size=size, weight=weight, max_lines=lines, overflow=overflow, color=color)
