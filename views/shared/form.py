"""Form fields that keep unsaved input through a redraw and show their own validation error."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import flet as ft

from flashflow.backend import FlashFlowError, ValidationError
from flashflow.views.controls.buttons import Handler, icon_button, named_button
from flashflow.views.controls.layout import column, flow, growing
from flashflow.views.controls.texts import body, small
from flashflow.views.controls.tokens import BODY, GOOD, GRID, URGENT

log = logging.getLogger(__name__)

_HOURS = re.compile(r"(\d{1,2})(?:[:.h ]?(\d{2}))?")
_TOO_LONG = re.compile(r"Expected 'str' of length <= (\d+)")
_VERBS = frozenset({"is", "are", "must", "has", "have", "holds", "names", "needs", "goes", "does", "was"})

Columns = dict[str | ft.ResponsiveRowBreakpoint, int | float]
"""Columns of twelve that a field spans, by breakpoint."""
HALF: Columns = {"xs": 12, "md": 6}
QUARTER: Columns = {"xs": 6, "md": 3}
FULL: Columns = {"xs": 12}


class Options:
    """Radio buttons over (value, label, description)."""

    def __init__(self, label: str, options: Iterable[tuple[str, str, str]], value: str) -> None:
        rows: list[ft.Control] = []
        for option, name, description in options:
            rows.append(ft.Radio(label=name, value=option))
            rows.append(ft.Container(small(description), padding=ft.Padding.only(left=5 * GRID, bottom=GRID)))
        self._group = ft.RadioGroup(column(rows), value=value)
        self._error = small("", color=URGENT)
        self._error.visible = False
        self.control = column([small(label), self._group, self._error], 4)
        self.control.col = FULL

    @property
    def text(self) -> str:
        return self._group.value or ""

    def show_error(self, text: str | None) -> None:
        self._error.value, self._error.visible = text or "", text is not None


class Field:
    """A text field. ``set_data`` shows the stored value unless the field has unsaved input."""

    def __init__(
        self,
        label: str,
        *,
        helper: str = "",
        secret: bool = False,
        keyboard: ft.KeyboardType = ft.KeyboardType.TEXT,
        col: Columns | None = None,
        on_done: Handler | None = None,
        lines: int = 1,
    ) -> None:
        """``on_done`` is called when the field loses focus or Enter is pressed; ``lines``: its least height."""
        self._stored = ""
        self._secret = secret
        self.control = ft.TextField(
            label=label,
            helper=helper or None,
            helper_max_lines=3,
            error_max_lines=4,
            password=secret,
            keyboard_type=keyboard,
            autocorrect=False,
            enable_suggestions=False,
            text_size=BODY,
            label_style=ft.TextStyle(size=BODY),
            border=ft.OutlineInputBorder(border_radius=GRID),
            multiline=lines > 1,
            align_label_with_hint=lines > 1,
            min_lines=lines if lines > 1 else None,
            max_lines=4 * lines if lines > 1 else None,
            col=col or HALF,
            on_blur=on_done,
            on_submit=on_done,
        )
        if secret:
            self.control.suffix_icon = icon_button(ft.Icons.VISIBILITY_OUTLINED, f"Show or hide: {label}", self._reveal)

    @property
    def text(self) -> str:
        """Current input, stripped of surrounding space unless it is a secret."""
        typed = self.control.value or ""
        return typed if self._secret else typed.strip()

    @property
    def is_changed(self) -> bool:
        return self.text != self._stored

    def set_data(self, stored: str | None) -> None:
        """Set the stored value; show it unless the field has unsaved input."""
        if not self.is_changed:
            self.control.value = stored or ""
        self._stored = stored or ""

    def reset(self, stored: str | None = None) -> None:
        """Discard unsaved input and show the stored value."""
        self._stored = stored or ""
        self.control.value = self._stored
        self.show_error(None)

    def show_error(self, text: str | None) -> None:
        self.control.error = text

    async def _reveal(self, _: object) -> None:
        self.control.password = not self.control.password
        self.control.update()


class ShowsError(Protocol):
    """A form input with a place for its error."""

    def show_error(self, text: str | None) -> None: ...


Entry = Field | Options


class SaveBar:
    """A form's save button with the result of the last save."""

    def __init__(self, name: str, save: Handler, *more: ft.Control) -> None:
        """``name`` is the accessible name and begins with "Save"."""
        self._button = named_button(ft.FilledButton, "Save", name, save)
        self._result = ft.Row(spacing=GRID, visible=False, vertical_alignment=ft.CrossAxisAlignment.START)
        self.control = column([flow([self._button, *more]), self._result], GRID)

    def busy(self) -> None:
        self._button.disabled, self._result.visible = True, False

    def show_result(self, text: str | None, *, good: bool = True) -> None:
        """Show the result below the button; None hides it."""
        self._button.disabled = False
        self._result.visible = text is not None
        icon, color = (ft.Icons.CHECK, GOOD) if good else (ft.Icons.ERROR_OUTLINE, URGENT)
        message = small(text or "", color=color) if good else body(text or "", color=color)
        self._result.controls = [ft.Icon(icon, size=18, color=color), growing(message)]

    def show_refusal(self, refusal: str) -> None:
        """Show that nothing was saved, and why if no field tells."""
        self.show_result(refusal or "Nothing was saved.", good=False)


def grid(controls: Sequence[ft.Control]) -> ft.ResponsiveRow:
    """Lay fields out side by side where there is room."""
    return ft.ResponsiveRow(list(controls), spacing=2 * GRID, run_spacing=2 * GRID)


async def submit(write: Callable[[], object], fields: Mapping[str, ShowsError], place: str = "") -> str | None:
    """Run ``write`` in a worker thread and show each validation error of ``place.name`` at the field ``name``.

    Returns None on success, else the errors that belong to no field ("" when every error has one).
    """
    for field in fields.values():
        field.show_error(None)
    try:
        await asyncio.to_thread(write)
    except ValidationError as error:
        return _shown(error, fields, place)
    except FlashFlowError as error:
        return str(error)
    except Exception as error:
        log.warning("a form could not be saved", exc_info=True)
        return f"The form could not be saved: {error}"
    return None


def _shown(error: ValidationError, fields: Mapping[str, ShowsError], place: str) -> str:
    left: list[str] = []
    for path, message in error.errors:
        name = path.removeprefix(f"{place}.") if place else path
        if name in fields:
            fields[name].show_error(error_sentence(message))
        else:
            left.append(f"{path}: {message}" if path else message)
    return "; ".join(left) if error.errors else str(error)


def error_sentence(message: str) -> str:
    """Turn a field's validation message into a sentence: "is required" → "This is required."."""
    if too_long := _TOO_LONG.search(message):
        return f"This is longer than {too_long[1]} characters."
    text = f"This {message}" if message.split(" ", 1)[0] in _VERBS else message[:1].upper() + message[1:]
    return text if text.endswith((".", "?", "!")) else f"{text}."


def as_time(text: str) -> str:
    """Normalise a typed time of day ("7", "7.30", "0730") to "07:30"; return any other text unchanged."""
    match = _HOURS.fullmatch(text.strip())
    return f"{int(match[1]):02}:{match[2] or '00'}" if match else text.strip()
