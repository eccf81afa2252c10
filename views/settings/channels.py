"""Channel list: the state of each channel, its settings form, and a test with its real outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import flet as ft

from flashflow.backend import ChannelState, ChannelTest, Conflict, FlashFlowError
from flashflow.views.controls.buttons import named_button, on_press
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.layout import card, column, flow, hairline, mark_row
from flashflow.views.controls.relative_time import clock
from flashflow.views.controls.texts import body, small
from flashflow.views.controls.tokens import GOOD, GRID, HIGH, MUTED, TARGET, URGENT
from flashflow.views.settings.channel_fields import TABLES, TableSpec, other_table, stored_at
from flashflow.views.settings.channel_form import ChannelForm
from flashflow.views.settings.part import SettingsPart
from flashflow.views.shared.delivery_labels import PLATFORMS, outcome_of, provider_text
from flashflow.views.shared.form import Columns
from flashflow.views.shared.screen_base import Screen

log = logging.getLogger(__name__)

TEXTS: Columns = {"xs": 12, "md": 7}
BUTTONS: Columns = {"xs": 12, "md": 5}
MISSING = {
    "email": "You have no e-mail address. Add it above, under Delivery settings.",
    "sms": "You have no phone number. Add it above, under Delivery settings.",
}
NO_DEVICE = "You have no device for this channel. Apps register devices."


class Line(NamedTuple):
    """A message under a channel; ``more`` is a provider's own text."""

    icon: ft.IconData
    color: ft.ColorValue
    text: str
    more: str = ""


class ChannelRow:
    """One channel with its form and the result of its last test; it lives as long as the screen."""

    def __init__(self, owner: ChannelList, route: str) -> None:
        self._owner = owner
        self._screen = owner.screen
        self._route = route
        self._state: ChannelState | None = None
        self._tables: Mapping[str, Any] = {}
        self._head = column([])
        self._message = ft.Container(visible=False)
        self._form = ft.Container(visible=False)
        self._testing = False
        self.control = column([self._head, self._message, self._form, hairline()], 12, key=f"channel-{route}")

    @property
    def _spec(self) -> TableSpec | None:
        """The channel's settings table; None for a channel without settings."""
        if self._route in ("in_app", "desktop"):
            return None
        return TABLES.get(self._route) or other_table(self._route)

    def set_data(self, state: ChannelState, tables: Mapping[str, Any]) -> None:
        self._state, self._tables = state, tables
        self._draw()

    def close(self) -> None:
        """Close the form if it is open."""
        self._form.visible, self._form.content = False, None
        self._draw()

    def _draw(self) -> None:
        state, spec = self._state, self._spec
        if state is None:
            return
        is_set_up = spec is not None and stored_at(self._tables, spec.place) is not None
        icon, color, word = _status(state, is_set_up, spec is not None)
        texts: list[ft.Control] = [body(f"{one_line(state.label, 60)}: {word}")]
        if state.detail and (state.works or is_set_up or spec is None):
            texts.append(small(one_line(state.detail)))
        what, buttons = (
            mark_row(ft.Icon(icon, size=20, color=color), texts, spacing=2),
            flow(self._buttons(state, is_set_up)),
        )
        what.col = TEXTS
        wide = self._screen.wide
        buttons.alignment = ft.MainAxisAlignment.END if wide else ft.MainAxisAlignment.START
        side = ft.Container(buttons, padding=ft.Padding.only(left=0 if wide else 4 * GRID), col=BUTTONS)
        center = ft.CrossAxisAlignment.CENTER
        self._head.controls = [ft.ResponsiveRow([what, side], key="head", vertical_alignment=center, run_spacing=GRID)]

    def _buttons(self, state: ChannelState, is_set_up: bool) -> list[ft.Control]:
        label = one_line(state.label, 60)
        buttons: list[ft.Control] = []
        if self._spec is not None and not self._form.visible:
            text = "Change" if is_set_up else "Set up"
            buttons.append(named_button(ft.OutlinedButton, text, f"{text}: {label}", self._open_form, key="change"))
        if (is_set_up or self._spec is None) and not self._form.visible:
            text, name = "Testing…" if self._testing else "Send a test", f"Send a test: {label}"
            buttons.append(
                named_button(ft.FilledTonalButton, text, name, self._test, disabled=self._testing, key="test")
            )
        return buttons

    async def _open_form(self, _: object) -> None:
        self._owner.close_forms()
        label = one_line(self._state.label, 60) if self._state is not None else self._route
        self._form.content = ChannelForm(self._screen, self._spec, label, self._tables, self._closed).control
        self._form.visible, self._message.visible = True, False
        self._draw()
        self._screen.redraw()

    async def _closed(self, text: str) -> None:
        self.close()
        if text:
            self._show_message([Line(ft.Icons.CHECK, GOOD, text)])
        self._screen.redraw()

    async def _test(self, _: object) -> None:
        self._testing = True
        self._show_message([Line(ft.Icons.SCHEDULE_SEND, MUTED, "Sending the test. A provider may take 15 seconds.")])
        self._draw()
        self._screen.redraw()
        try:
            trials = await asyncio.to_thread(self._screen.backend.send_test, self._route)
            lines = [_test_result(trial, self._screen.now()) for trial in trials]
        except Conflict:
            lines = [Line(ft.Icons.INFO_OUTLINE, HIGH, MISSING.get(self._route, NO_DEVICE))]
        except FlashFlowError as error:
            lines = [Line(ft.Icons.ERROR_OUTLINE, URGENT, str(error))]
        except Exception as error:
            log.warning("a test could not be sent", exc_info=True)
            lines = [Line(ft.Icons.ERROR_OUTLINE, URGENT, f"The test could not be sent: {error}")]
        self._testing = False
        self._show_message(lines)
        self._draw()
        self._screen.redraw()

    def _show_message(self, lines: list[Line]) -> None:
        """Show messages under the channel, in a live region that screen readers announce."""
        self._message.content = ft.Semantics(
            label="\n".join(text for line in lines for text in (line.text, line.more) if text),
            live_region=True,
            exclude_semantics=True,
            content=column([_message_row(line) for line in lines], 4),
        )
        self._message.padding = ft.Padding.only(left=32)
        self._message.visible = True


class ChannelList(SettingsPart):
    """All channels and a form to add another; at most one form is open."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(screen)
        self._rows: dict[str, ChannelRow] = {}
        self._tables: Mapping[str, Any] = {}
        self.broken: Mapping[str, str] = {}
        """The reason by channel that cannot work."""
        self._list = column([], 12)
        opened = on_press(self._open_new)
        add = ft.TextButton("Add another service…", icon=ft.Icons.ADD, height=TARGET, on_click=opened)
        self._add = ft.Row([add])
        self._new = ft.Container(visible=False)
        self.control = card(column([self._list, self._add, self._new], 12), key="channels")

    def load(self) -> tuple[Sequence[ChannelState], Mapping[str, Any]]:
        return self.backend.channel_states(), self.backend.settings.shown()

    def set_data(self, data: tuple[Sequence[ChannelState], Mapping[str, Any]]) -> None:
        states, self._tables = data
        self.broken = {state.name: state.detail for state in states if not state.works}
        self._rows = {state.name: self._rows.get(state.name) or ChannelRow(self, state.name) for state in states}
        for state in states:
            self._rows[state.name].set_data(state, self._tables)
        self._list.controls = [row.control for row in self._rows.values()]

    def close_forms(self) -> None:
        for row in self._rows.values():
            row.close()
        self._new.visible, self._new.content = False, None
        self._add.visible = True

    def _open_new(self) -> None:
        self.close_forms()
        self._new.content = ChannelForm(self.screen, None, "another service", self._tables, self._closed).control
        self._new.visible, self._add.visible = True, False
        self.screen.redraw()

    async def _closed(self, _: str) -> None:
        self.close_forms()
        self.screen.redraw()


def _status(state: ChannelState, is_set_up: bool, can_be_set_up: bool) -> tuple[ft.IconData, ft.ColorValue, str]:
    """Return icon, colour and label of a channel's state.

    "works" is only for channels without a remote service; a configured service may still refuse.
    """
    if state.works:
        return ft.Icons.CHECK_CIRCLE_OUTLINE, GOOD, "set up" if can_be_set_up else "works"
    if is_set_up:
        return ft.Icons.ERROR_OUTLINE, URGENT, "cannot work with these settings"
    return ft.Icons.REMOVE_CIRCLE_OUTLINE, MUTED, "not set up" if can_be_set_up else "not available"


def _test_result(trial: ChannelTest, now: datetime) -> Line:
    """Return the outcome of one test with the provider's text."""
    state = outcome_of(trial)
    target = f"{PLATFORMS[trial.target]}: " if trial.target in PLATFORMS and trial.channel != "desktop" else ""
    text = f"{target}{state.word} · {clock(now, now)}"
    return Line(state.icon, state.color, text, provider_text(trial.code, trial.text))


def _message_row(line: Line) -> ft.Control:
    texts: list[ft.Control] = [body(line.text)]
    if line.more:
        more = small(line.more)
        more.selectable = True
        texts.append(more)
    return mark_row(ft.Icon(line.icon, size=18, color=line.color), texts, gap=GRID)
