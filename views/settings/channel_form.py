"""Form for one channel's table of ``flashflow.toml``; secrets are written but never shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import flet as ft

from flashflow.views.controls.buttons import on_press
from flashflow.views.controls.layout import column
from flashflow.views.controls.texts import body, small
from flashflow.views.controls.tokens import GRID, TARGET
from flashflow.views.settings.channel_fields import (
    FieldSpec,
    TableSpec,
    name_error,
    other_table,
    secret_hint,
    shown_in,
    stored_at,
    values_of,
)
from flashflow.views.shared.form import Entry, Field, Options, SaveBar, grid, submit
from flashflow.views.shared.screen_base import Screen

Close = Callable[[str], Awaitable[None]]
"""Called with the result to show; "" if nothing was changed."""


class ChannelForm:
    """Form for the channel ``label``; ``tables`` are the settings. Without ``spec`` it adds a custom channel."""

    def __init__(
        self, screen: Screen, spec: TableSpec | None, label: str, tables: Mapping[str, Any], close: Close
    ) -> None:
        self._screen = screen
        self._is_new = spec is None
        self._spec = spec or other_table("")
        self._tables = tables
        self._close = close
        self._stored = None if self._is_new else stored_at(tables, self._spec.place)
        self._name = Field("Name", helper="The name that your apps use when they send") if self._is_new else None
        self._entries: dict[str, Entry] = {}
        rows: list[ft.Control] = [self._name.control] if self._name is not None else []
        rows += [self._field(field) for field in self._spec.fields]
        remove = ft.FilledTonalButton("Remove", height=TARGET, on_click=self._remove)
        keep = ft.TextButton("Keep", height=TARGET, on_click=on_press(self._confirm_removal, False))
        text = body("Remove these settings? Deliveries that wait for this channel will fail.")
        question = column([text, ft.Row([remove, keep], spacing=GRID, tight=True)], GRID)
        self._confirmation = ft.Container(question, visible=False)
        more: list[ft.Control] = [ft.TextButton("Cancel", height=TARGET, on_click=on_press(self._close, ""))]
        if self._stored is not None:
            more.append(ft.TextButton("Remove…", height=TARGET, on_click=on_press(self._confirm_removal, True)))
        self._saving = SaveBar(f"Save: {label}", self._save, *more)
        parts = [small(self._spec.introduction), grid(rows), self._saving.control, self._confirmation]
        self.control = column(parts, 2 * GRID, key="form")

    def _field(self, spec: FieldSpec) -> ft.Control:
        stored = shown_in(spec, self._stored)
        if spec.choices:
            options = Options(spec.label, spec.choices, stored)
            self._entries[spec.name] = options
            return options.control
        helper = secret_hint(spec, self._stored) if spec.secret else spec.helper
        keyboard = ft.KeyboardType.NUMBER if spec.number else ft.KeyboardType.TEXT
        field = Field(spec.label, helper=helper, secret=spec.secret, keyboard=keyboard)
        field.reset(stored)
        self._entries[spec.name] = field
        return field.control

    async def _save(self, _: object) -> None:
        place = self._spec.place
        if self._name is not None:
            name = self._name.text
            error = name_error(name, self._tables.get("channels", {}))
            self._name.show_error(error)
            if error is not None:
                self._screen.redraw()
                return
            place = other_table(name).place
        typed = {name: entry.text for name, entry in self._entries.items()}
        values = values_of(self._spec, typed, self._stored)
        self._saving.busy()
        self._screen.redraw()
        await self._finish(lambda: self._screen.backend.change_settings(place, values), place, "Saved")

    async def _finish(self, write: Callable[[], object], place: str, done: str) -> None:
        refusal = await submit(write, self._entries, place)
        if refusal is None:
            await self._close(done)
            return
        self._saving.show_result(refusal or "Nothing was saved. Correct the fields above.", good=False)
        self._screen.redraw()

    def _confirm_removal(self, shown: bool) -> None:
        self._confirmation.visible = shown
        self._screen.redraw()

    async def _remove(self, _: object) -> None:
        place = self._spec.place
        self._confirmation.visible = False
        await self._finish(lambda: self._screen.backend.change_settings(place, None), place, "Removed")
