"""Fields to fill in: each keeps what is being typed through a redraw, and shows what is wrong in its own place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import flet as ft

from flashflow.backend import FlashFlowError, ValidationError
from flashflow.views.controls.tokens import BODY, GOOD, GRID, URGENT, Handler, body, icon_button, named_button, small
from flashflow.views.shared.formatting import complaint

log = logging.getLogger(__name__)

Columns = dict[str | ft.ResponsiveRowBreakpoint, int | float]
"""Of twelve, how many columns a field takes by the page's width."""
HALF: Columns = {"xs": 12, "md": 6}
QUARTER: Columns = {"xs": 6, "md": 3}
WHOLE: Columns = {"xs": 12}


class Entry(Protocol):
    """Something to fill in, and a place to say what is wrong with it."""

    @property
    def text(self) -> str: ...
    def complain(self, words: str | None) -> None: ...


class Options:
    """One of several values, each (value, label, what it means)."""

    def __init__(self, label: str, options: Iterable[tuple[str, str, str]], value: str) -> None:
        rows: list[ft.Control] = []
        for option, name, words in options:
            rows.append(ft.Radio(label=name, value=option))
            rows.append(ft.Container(small(words), padding=ft.Padding.only(left=5 * GRID, bottom=GRID)))
        self._group = ft.RadioGroup(ft.Column(rows, spacing=0, tight=True), value=value)
        self._error = small("", color=URGENT)
        self._error.visible = False
        self.control = ft.Column([small(label), self._group, self._error], spacing=4, tight=True, col=WHOLE)

    @property
    def text(self) -> str:
        return self._group.value or ""

    def complain(self, words: str | None) -> None:
        self._error.value, self._error.visible = words or "", words is not None


class Field:
    """A line of text. ``take`` shows what is stored, unless the person is changing it just now."""

    def __init__(
        self,
        label: str,
        *,
        helper: str = "",
        secret: bool = False,
        keyboard: ft.KeyboardType = ft.KeyboardType.TEXT,
        col: Columns | None = None,
        on_done: Handler | None = None,
    ) -> None:
        """``on_done`` is called when the person leaves the field or presses Enter."""
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
            col=col or HALF,
            on_blur=on_done,
            on_submit=on_done,
        )
        if secret:
            self.control.suffix_icon = icon_button(ft.Icons.VISIBILITY_OUTLINED, f"Show or hide: {label}", self._reveal)

    @property
    def text(self) -> str:
        """What stands in it, without the space around it; a secret as it is."""
        typed = self.control.value or ""
        return typed if self._secret else typed.strip()

    @property
    def is_changed(self) -> bool:
        return self.text != self._stored

    def take(self, stored: str | None) -> None:
        """What is stored now."""
        if not self.is_changed:
            self.control.value = stored or ""
        self._stored = stored or ""

    def reset(self, stored: str | None = None) -> None:
        """Show what is stored, whatever was typed."""
        self._stored = stored or ""
        self.control.value = self._stored
        self.complain(None)

    def complain(self, words: str | None) -> None:
        self.control.error = words

    async def _reveal(self, _: object) -> None:
        self.control.password = not self.control.password
        self.control.update()


class Saving:
    """The line under a form: its button, and what came of pressing it."""

    def __init__(self, name: str, save: Handler, *more: ft.Control) -> None:
        """``name`` begins with "Save" and says what."""
        self._button = named_button(ft.FilledButton, "Save", name, save)
        self._told = ft.Row(spacing=GRID, visible=False, vertical_alignment=ft.CrossAxisAlignment.START)
        buttons = ft.Row([self._button, *more], wrap=True, spacing=GRID, run_spacing=GRID)
        self.control = ft.Column([buttons, self._told], spacing=GRID, tight=True)

    def busy(self) -> None:
        self._button.disabled, self._told.visible = True, False

    def say(self, words: str | None, *, good: bool = True) -> None:
        """Show how it went, beside the button; None: nothing to say."""
        self._button.disabled = False
        self._told.visible = words is not None
        icon, color = (ft.Icons.CHECK, GOOD) if good else (ft.Icons.ERROR_OUTLINE, URGENT)
        text = small(words or "", color=color) if good else body(words or "", color=color)
        text.expand = True
        self._told.controls = [ft.Icon(icon, size=18, color=color), text]


def grid(controls: Sequence[ft.Control]) -> ft.ResponsiveRow:
    """Fields side by side where there is room."""
    return ft.ResponsiveRow(list(controls), spacing=2 * GRID, run_spacing=2 * GRID)


async def attempt(write: Callable[[], object], fields: Mapping[str, Entry], place: str = "") -> str | None:
    """Do ``write`` in a worker thread. A refusal of a field (``place.name``) is shown at it; what is left is returned.

    Returns None when it was done, "" when every refusal found its field.
    """
    for field in fields.values():
        field.complain(None)
    try:
        await asyncio.to_thread(write)
    except ValidationError as error:
        return _shown(error, fields, place)
    except FlashFlowError as error:
        return str(error)
    except Exception as error:
        log.warning("a form could not be saved", exc_info=True)
        return f"That did not work: {error}"
    return None


def _shown(error: ValidationError, fields: Mapping[str, Entry], place: str) -> str:
    left: list[str] = []
    for path, message in error.errors:
        name = path.removeprefix(f"{place}.") if place else path
        if name in fields:
            fields[name].complain(complaint(message))
        else:
            left.append(f"{path}: {message}" if path else message)
    return "; ".join(left) if error.errors else str(error)
