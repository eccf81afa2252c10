"""Inputs of forms by the type of their field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

import flet as ft

from flashflow.backend import declarations
from flashflow.views.controls.buttons import Handler, icon_button
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.layout import column
from flashflow.views.controls.texts import small
from flashflow.views.controls.tokens import BODY, GRID, TARGET, URGENT
from flashflow.views.flow.cells import title_of
from flashflow.views.shared.form import FULL, HALF, Field, as_time

HELP: Mapping[declarations.FieldType, str] = {
    "date": "Like 2026-11-22", "time": "Like 10:15", "timestamp": "Like 2026-11-22 10:15",
    "datetime": "Like 2026-11-22 10:15", "url": "Like https://example.org", "json": "JSON", "object": "JSON: {…}",
    "array": "JSON: […]", "uuid": "Like 6f1c2a8e-0000-4000-8000-000000000000",
}  # fmt: skip
KEYBOARDS: Mapping[declarations.FieldType, ft.KeyboardType] = {
    "integer": ft.KeyboardType.NUMBER, "decimal": ft.KeyboardType.NUMBER, "email": ft.KeyboardType.EMAIL,
    "url": ft.KeyboardType.URL, "date": ft.KeyboardType.DATETIME, "time": ft.KeyboardType.DATETIME,
    "timestamp": ft.KeyboardType.DATETIME, "datetime": ft.KeyboardType.DATETIME,
}  # fmt: skip
LINES: Mapping[declarations.FieldType, int] = {"text": 3, "json": 3, "object": 3, "array": 3}
TIMES = frozenset({"timestamp", "datetime"})
DAYS = frozenset({"date", *TIMES})


class Input(Protocol):
    """Input of one field. ``typed`` is its state as the user sees it, ``value`` the value to submit."""

    control: ft.Control
    typed: Any

    @property
    def value(self) -> Any: ...
    def reset(self) -> None: ...
    def show_error(self, text: str | None) -> None: ...


def make_input(declared: declarations.Field, on_submit: Handler) -> Input:
    """Return the input of a field; Enter in a text of one line calls ``on_submit``."""
    if declared.type == "boolean":
        return SwitchInput(declared)
    return ChoiceInput(declared) if declared.choices else TextInput(declared, on_submit)


def label_of(declared: declarations.Field) -> str:
    """Return the title of a field with a mark if it is required."""
    must = declared.required and not declared.auto and declared.default is None
    return f"{title_of(declared.name)} *" if must else title_of(declared.name)


class TextInput:
    """Text, number, date, time or JSON; dates have a calendar too."""

    def __init__(self, declared: declarations.Field, on_submit: Handler) -> None:
        self._type = declared.type
        self._default = "" if declared.default is None else str(declared.default)
        lines = LINES.get(declared.type, 1)
        self._field = Field(
            label_of(declared),
            helper=HELP.get(declared.type, ""),
            keyboard=ft.KeyboardType.MULTILINE if lines > 1 else KEYBOARDS.get(declared.type, ft.KeyboardType.TEXT),
            col=FULL if lines > 1 else HALF,
            lines=lines,
        )
        self.control: ft.Control = self._field.control
        if lines == 1:
            self._field.control.on_submit = on_submit
        if declared.type in DAYS:
            name = f"Choose a day: {title_of(declared.name)}"
            self._field.control.suffix_icon = icon_button(ft.Icons.CALENDAR_TODAY, name, self._open_calendar)
        self.reset()

    @property
    def typed(self) -> str:
        return self._field.control.value or ""

    @typed.setter
    def typed(self, text: str) -> None:
        self._field.control.value = text

    @property
    def value(self) -> str | None:
        text = self._field.text
        if self._type in TIMES:
            text = with_offset(text)
        elif self._type == "time":
            text = as_time(text)
        return text or None

    def reset(self) -> None:
        self.typed = self._default
        self.show_error(None)

    def show_error(self, text: str | None) -> None:
        self._field.show_error(text)

    async def _open_calendar(self, event: ft.Event[ft.IconButton]) -> None:
        calendar = ft.DatePicker(value=day_of(self.typed), on_change=self._chosen)
        event.page.show_dialog(calendar)

    async def _chosen(self, event: ft.Event[ft.DatePicker]) -> None:
        chosen = event.control.value
        if isinstance(chosen, datetime):
            # The calendar gives midnight of the page, as UTC.
            day = f"{chosen.astimezone():%Y-%m-%d}" if chosen.tzinfo is not None else f"{chosen:%Y-%m-%d}"
            _, _, time_of_day = self.typed.strip().partition(" ")
            self.typed = day if self._type == "date" else f"{day} {time_of_day or '00:00'}"
            self._field.control.update()


class SwitchInput:
    """Truth value."""

    def __init__(self, declared: declarations.Field) -> None:
        self._default = declared.default is True or declared.default == "true"
        self._switch = ft.Switch(label=title_of(declared.name), value=self._default, height=TARGET)
        self._error = _error_text()
        self.control: ft.Control = column([self._switch, self._error])
        self.control.col = HALF

    @property
    def typed(self) -> bool:
        return bool(self._switch.value)

    @typed.setter
    def typed(self, on: bool) -> None:
        self._switch.value = on is True

    @property
    def value(self) -> bool:
        return self.typed

    def reset(self) -> None:
        self.typed = self._default
        self.show_error(None)

    def show_error(self, text: str | None) -> None:
        self._error.value, self._error.visible = text or "", text is not None


class ChoiceInput:
    """One of the choices of a field."""

    def __init__(self, declared: declarations.Field) -> None:
        self._choices = declared.choices
        self._default = None if declared.default is None else str(declared.default)
        options = [ft.DropdownOption(key=one, text=one_line(title_of(one), 80)) for one in declared.choices]
        self._menu = ft.Dropdown(
            label=label_of(declared),
            options=options,
            value=self._default,
            text_size=BODY,
            label_style=ft.TextStyle(size=BODY),
            border=ft.OutlineInputBorder(border_radius=GRID),
            expanded_insets=ft.Padding.all(0),
            enable_search=False,
            expand=True,
        )
        self.control: ft.Control = ft.Row([self._menu])
        self.control.col = HALF

    @property
    def typed(self) -> str | None:
        return self._menu.value

    @typed.setter
    def typed(self, choice: str | None) -> None:
        self._menu.value = choice if choice in self._choices else self._default

    @property
    def value(self) -> str | None:
        return self.typed

    def reset(self) -> None:
        self._menu.value = self._default
        self.show_error(None)

    def show_error(self, text: str | None) -> None:
        self._menu.error_text = text


def with_offset(text: str, zone: Callable[[datetime], datetime] = datetime.astimezone) -> str:
    """Return a typed time as RFC 3339 with the offset of this computer's zone; any other text unchanged."""
    try:
        then = datetime.fromisoformat(text)
        return (then if then.tzinfo is not None else zone(then)).isoformat()
    except (ValueError, OverflowError, OSError):
        return text


def day_of(text: str) -> datetime | None:
    """Return the day that a text begins with."""
    try:
        return datetime.fromisoformat(text.strip()[:10])
    except ValueError:
        return None


def _error_text() -> ft.Text:
    text = small("", color=URGENT)
    text.visible = False
    return text
