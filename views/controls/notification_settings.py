"""Preference matrix: a switch for each notification type and channel, with the reason for its state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import flet as ft

from flashflow.views.controls.buttons import on_press, on_switch
from flashflow.views.controls.digest_menu import digest_menu
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.http_sources import local_connection, named_user
from flashflow.views.controls.layout import card, column, growing, hairline
from flashflow.views.controls.protocols import ALL, Matrix, PreferenceSource, TypeRow
from flashflow.views.controls.refresher import LiveControl, call
from flashflow.views.controls.texts import body, caller_text, heading, silent, small
from flashflow.views.controls.tokens import GRID, TARGET, URGENT
from flashflow.views.controls.translation import Translation

ALL_LABEL = "All notifications"
NAME = 240
CELL = 96
DIGEST = 176
MARGINS = 4 * GRID
CRITICAL_WORDS = "passes quiet hours"
CHANNEL_LABELS = {"in_app": "In app", "push": "Push", "email": "E-mail", "sms": "SMS"}


@dataclass(frozen=True)
class PreferenceChange:
    """A saved change. ``notification_type``: its name, ``*`` for all. ``setting``: a channel (``value``: whether it is
    on), "digest" (``value``: "off", "hourly", "daily 08:00", None for the default) or "critical"."""

    notification_type: str
    setting: str
    value: bool | str | None


def reason(matrix: Matrix, notification_type: str, channel: str) -> str | None:
    """Describe the preference that decides this switch; None if the user set none."""
    choices = {(c.notification_type, c.channel): c.enabled for c in matrix.preferences}
    if notification_type != ALL and choices.get((ALL, channel)) is False:
        return "Off for all"
    chosen = choices.get((notification_type, channel))
    if chosen is not None:
        return "You turned it on" if chosen else "You turned it off"
    if notification_type != ALL and (notification_type, ALL) in choices:
        return "On for this type" if choices[notification_type, ALL] else "Off for this type"
    if (ALL, ALL) in choices:
        return "On for all" if choices[ALL, ALL] else "Off for all"
    return None


def is_on_for_all(matrix: Matrix, channel: str) -> bool:
    """Return the value of the channel's "All notifications" switch."""
    choices = {(c.notification_type, c.channel): c.enabled for c in matrix.preferences}
    return choices.get((ALL, channel), choices.get((ALL, ALL), True))


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class NotificationSettings(LiveControl):
    """Switches for every type and channel, live from ``source``: a table if it fits, else one card per type. Without
    ``source``, from the FlashFlow of this machine over HTTP, for ``user_id``.

    ``labels`` gives the channels' labels and their order; the matrix gives the channels. ``wide`` selects the layout
    until the width is known. ``on_change`` is called with each saved change and may be asynchronous. ``texts``
    translates (flashflow.controls.TEXTS).
    """

    source: PreferenceSource | None = field(default=None, metadata={"skip": True})
    user_id: str | None = field(default=None, metadata={"skip": True})
    labels: Mapping[str, str] = field(default_factory=lambda: CHANNEL_LABELS, metadata={"skip": True})
    wide: bool = field(default=False, metadata={"skip": True})
    on_change: Callable[[PreferenceChange], Awaitable[None] | None] | None = field(
        default=None, metadata={"skip": True}
    )
    texts: Mapping[str, str] = field(default_factory=dict, metadata={"skip": True})

    def init(self) -> None:
        super().init()
        self._t = Translation(self.texts)
        self._source = self.source or local_connection().preferences(named_user(self.user_id))
        self._matrix: Matrix | None = None
        self._width = 0.0
        self._channels: Mapping[str, str] = self.labels
        self.on_size_change = self._resized
        self._shown = ft.Column([self.matrix_content()], spacing=0, tight=True)
        self.content = self._shown

    def subscribe(self) -> Callable[[], None]:
        return self._source.subscribe(self.request_refresh)

    async def refresh(self) -> None:
        """Read the source and show its state."""
        self._matrix = (
            await self.attempt(self._source.matrix, self._t("The preferences could not be read")) or self._matrix
        )
        self._show()

    async def choose(self, notification_type: str, channel: str, enabled: bool) -> None:
        """Save a preference; the switch changes when the source reports the change."""
        change = PreferenceChange(notification_type, channel, enabled)
        await self._keep(lambda: self._source.set_preference(notification_type, channel, enabled), change)

    async def choose_digest(self, notification_type: str, frequency: str | None, at: str | None) -> None:
        """Save a digest setting; a ``frequency`` of None resets it to the default."""
        change = PreferenceChange(notification_type, "digest", f"{frequency} {at}" if at and frequency else frequency)
        await self._keep(lambda: self._source.set_digest(notification_type, frequency, at), change)

    async def mark_critical(self, notification_type: str, critical: bool) -> None:
        """Save whether a type is critical and passes quiet hours."""
        change = PreferenceChange(notification_type, "critical", critical)
        await self._keep(lambda: self._source.set_critical(notification_type, critical), change)

    async def _keep(self, save: Callable[[], object], change: PreferenceChange) -> None:
        await self.attempt(save, self._t("The preference could not be saved"))
        if self._error:
            self._show()
        else:
            await call(self.on_change, change)

    def matrix_content(self) -> ft.Column:
        """Return the matrix as a table or as cards."""
        parts: list[ft.Control] = []
        if self._error:
            icon = ft.Icon(ft.Icons.ERROR_OUTLINE, size=20, color=URGENT)
            retry = ft.TextButton(self._t("Retry"), height=TARGET, on_click=on_press(self.request_refresh))
            parts.append(ft.Row([icon, growing(body(self._error)), retry]))
        if self._matrix is not None:
            self._channels = _channels(self._matrix, self.labels, self._t)
            parts.append(self._table(self._matrix) if self._has_room else self._cards(self._matrix))
            if not self._matrix.types:
                hint = "A type appears here as soon as an app declares it or sends a notification of it."
                parts.append(small(self._t(hint)))
        return ft.Column(parts, key="table" if self._has_room else "cards", spacing=2 * GRID)

    @property
    def _has_room(self) -> bool:
        """Whether the table fits; ``wide`` until the width is known."""
        columns = len(self._channels) + 1
        return self._width >= NAME + CELL * columns + DIGEST + MARGINS if self._width else self.wide

    def _table(self, matrix: Matrix) -> ft.Container:
        heads = [_column_head(label, CELL) for label in self._channels.values()]
        heads.append(_column_head(self._t("How often"), DIGEST))
        if matrix.may_mark_critical:
            heads.append(_column_head(self._t("Critical"), CELL))
        head = ft.Row([ft.Container(expand=True), *heads], spacing=0)
        rows: list[ft.Control] = [head, hairline(), self._table_row(matrix, None)]
        for row in matrix.types:
            rows += [hairline(), self._table_row(matrix, row)]
        return card(ft.Column(rows, spacing=GRID), key="matrix")

    def _table_row(self, matrix: Matrix, row: TypeRow | None) -> ft.Row:
        cells = [ft.Container(self._switch_cell(matrix, row, channel), width=CELL) for channel in self._channels]
        digest = self._digest(matrix, row)
        cells.append(ft.Container(digest, width=DIGEST, alignment=ft.Alignment.CENTER))
        if matrix.may_mark_critical:
            mark = self._critical(row) if row else None
            cells.append(ft.Container(mark, width=CELL, alignment=ft.Alignment.CENTER))
        return ft.Row([growing(_type_text(row, self._t)), *cells], key=f"type-{row.name if row else ALL}", spacing=0)

    def _cards(self, matrix: Matrix) -> ft.Column:
        cards: list[ft.Control] = [
            self._type_card(matrix, None),
            *(self._type_card(matrix, row) for row in matrix.types),
        ]
        return ft.Column(cards, key="matrix", spacing=12)

    def _type_card(self, matrix: Matrix, row: TypeRow | None) -> ft.Container:
        lines: list[ft.Control] = [_type_text(row, self._t)]
        for channel, label in self._channels.items():
            texts: list[ft.Control] = [silent(body(label))]
            if why := self._why(matrix, row, channel):
                texts.append(small(self._t(why)))
            lines += [hairline(), _line(texts, self._switch(matrix, row, channel))]
        often: list[ft.Control] = [silent(body(self._t("How often"))), self._digest(matrix, row)]
        lines += [hairline(), ft.Row(often, wrap=True, alignment=ft.MainAxisAlignment.SPACE_BETWEEN)]
        if row is not None and matrix.may_mark_critical:
            texts = [silent(body(self._t("Critical"))), small(self._t(CRITICAL_WORDS))]
            lines += [hairline(), _line(texts, self._critical(row))]
        return card(ft.Column(lines, spacing=GRID), key=f"type-{row.name if row else ALL}")

    def _switch_cell(self, matrix: Matrix, row: TypeRow | None, channel: str) -> ft.Column:
        parts: list[ft.Control] = [self._switch(matrix, row, channel)]
        if why := self._why(matrix, row, channel):
            text = small(self._t(why))
            text.text_align = ft.TextAlign.CENTER
            parts.append(text)
        return ft.Column(parts, spacing=0, tight=True, horizontal_alignment=ft.CrossAxisAlignment.CENTER)

    def _why(self, matrix: Matrix, row: TypeRow | None, channel: str) -> str | None:
        return reason(matrix, row.name if row else ALL, channel)

    def _switch(self, matrix: Matrix, row: TypeRow | None, channel: str) -> ft.Switch:
        label = one_line(row.label, 80) if row else self._t(ALL_LABEL)
        on_for_all = is_on_for_all(matrix, channel)
        blocked = row is not None and self._why(matrix, row, channel) == "Off for all" and not on_for_all
        return ft.Switch(
            value=row.channels.get(channel, False) if row else on_for_all,
            disabled=blocked,
            tooltip=self._t("{type} by {channel}", type=label, channel=self._channels[channel]),
            on_change=on_switch(self.choose, row.name if row else ALL, channel),
        )

    def _digest(self, matrix: Matrix, row: TypeRow | None) -> ft.Control:
        name, label = (row.name, one_line(row.label, 80)) if row else (ALL, self._t(ALL_LABEL))
        return digest_menu(label, row.digest if row else matrix.digest, partial(self.choose_digest, name), self._t)

    def _critical(self, row: TypeRow) -> ft.Switch:
        name = self._t("{type} is critical: passes quiet hours", type=one_line(row.label, 80))
        return ft.Switch(value=row.critical, tooltip=name, on_change=on_switch(self.mark_critical, row.name))

    async def _resized(self, event: ft.LayoutSizeChangeEvent[ft.LayoutControl]) -> None:
        had_room, self._width = self._has_room, event.width
        if self._has_room != had_room:
            self._show()

    def _show(self) -> None:
        # In a list, because Flet matches list items by key with the previous ones and keeps an open menu working;
        # content that is assigned directly is built again.
        self._shown.controls = [self.matrix_content()]
        self.redraw()


def _channels(matrix: Matrix, labels: Mapping[str, str], t: Translation) -> dict[str, str]:
    """Return the label of each channel in the matrix, in the order of ``labels`` and then of the matrix."""
    found = [channel for row in matrix.types for channel in row.channels] or list(labels)
    known = [channel for channel in labels if channel in found]
    return {channel: t(labels.get(channel) or one_line(channel, 40)) for channel in dict.fromkeys((*known, *found))}


def _column_head(label: str, width: float) -> ft.Container:
    return ft.Container(width=width, alignment=ft.Alignment.CENTER, content=silent(small(label, lines=1)))


def _line(texts: list[ft.Control], control: ft.Control) -> ft.Row:
    return ft.Row([ft.Column(texts, spacing=0, expand=True, tight=True), control])


def _type_text(row: TypeRow | None, t: Translation) -> ft.Column:
    """Return a row's label, its description and its app."""
    if row is None:
        text = small(t("A channel that is off here is off for every type below."))
        return column([heading(t(ALL_LABEL), level=3), text], 2)
    texts = [caller_text(row.label or row.name, strong=True, lines=2)]
    if row.description:
        texts.append(small(one_line(row.description, 200)))
    origin = [t("from {app}", app=one_line(row.app, 60))] if row.app else []
    if row.critical or row.asks_critical:
        origin.append(t("critical") if row.critical else t("requests critical"))
    if origin:
        texts.append(small(" · ".join(origin)))
    return column(texts, 2)
