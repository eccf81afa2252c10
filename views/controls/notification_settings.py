"""Preference matrix: a switch for each notification type and channel, with the reason for its state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import field

import flet as ft

from flashflow.views.controls.digest_menu import digest_menu
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.protocols import Matrix, PreferenceSource, TypeRow
from flashflow.views.controls.refresher import Refresher
from flashflow.views.controls.tokens import (
    CARD,
    GRID,
    HAIRLINE,
    RADIUS,
    TARGET,
    URGENT,
    Handler,
    body,
    caller_text,
    hairline,
    heading,
    is_mounted,
    silent,
    small,
)

log = logging.getLogger(__name__)

ALL = "*"
ALL_LABEL = "All notifications"
NAME = 240
CELL = 96
DIGEST = 176
MARGINS = 4 * GRID
CRITICAL_WORDS = "passes quiet hours"
CHANNEL_LABELS = {"in_app": "In app", "push": "Push", "email": "E-mail", "sms": "SMS"}


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


def whole_channel(matrix: Matrix, channel: str) -> bool:
    """Return the value of the channel's "All notifications" switch."""
    choices = {(c.notification_type, c.channel): c.enabled for c in matrix.preferences}
    return choices.get((ALL, channel), choices.get((ALL, ALL), True))


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class NotificationSettings(ft.Container):
    """Switches for every type and channel, live from ``source``: a table if it fits, else one card per type.

    ``labels`` gives the channels' labels and their order; the matrix gives the channels. ``wide`` selects the layout
    until the width is known.
    """

    source: PreferenceSource = field(metadata={"skip": True})
    labels: Mapping[str, str] = field(default_factory=lambda: CHANNEL_LABELS, metadata={"skip": True})
    wide: bool = field(default=False, metadata={"skip": True})

    def init(self) -> None:
        self._matrix: Matrix | None = None
        self._width = 0.0
        self._error: str | None = None
        self._channels: Mapping[str, str] = self.labels
        self._refresher = Refresher(self.refresh)
        self._unsubscribe: Callable[[], None] | None = None
        self.on_size_change = self._resized
        self._shown = ft.Column([self.matrix_content()], spacing=0, tight=True)
        self.content = self._shown

    def did_mount(self) -> None:
        self._unsubscribe = self.source.subscribe(self._refresher.request_refresh)
        self._refresher.request_refresh()

    def will_unmount(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self._refresher.cancel()

    async def refresh(self) -> None:
        """Read the source and show its state."""
        try:
            self._matrix = await asyncio.to_thread(self.source.matrix)
            self._error = None
        except Exception as error:
            log.debug("the preferences could not be read", exc_info=True)
            self._error = f"The preferences could not be read: {error}"
        self._show()

    async def choose(self, notification_type: str, channel: str, enabled: bool) -> None:
        """Save a preference; the switch changes when the source reports the change."""
        await self._keep(lambda: self.source.set_preference(notification_type, channel, enabled))

    async def choose_digest(self, notification_type: str, frequency: str | None, at: str | None) -> None:
        """Save a digest setting; a ``frequency`` of None resets it to the default."""
        await self._keep(lambda: self.source.set_digest(notification_type, frequency, at))

    async def mark_critical(self, notification_type: str, critical: bool) -> None:
        """Save whether a type is critical and passes quiet hours."""
        await self._keep(lambda: self.source.set_critical(notification_type, critical))

    async def _keep(self, choice: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(choice)
            self._error = None
        except Exception as error:
            log.debug("a preference could not be saved", exc_info=True)
            self._error = f"The preference could not be saved: {error}"
            self._show()

    def matrix_content(self) -> ft.Column:
        """Return the matrix as a table or as cards."""
        parts: list[ft.Control] = []
        if self._error:
            icon = ft.Icon(ft.Icons.ERROR_OUTLINE, size=20, color=URGENT)
            text = body(self._error)
            text.expand = True
            parts.append(ft.Row([icon, text, ft.TextButton("Retry", height=TARGET, on_click=self._retry)]))
        if self._matrix is not None:
            self._channels = _channels(self._matrix, self.labels)
            parts.append(self._table(self._matrix) if self._has_room else self._cards(self._matrix))
            if not self._matrix.types:
                parts.append(small("A type appears here as soon as an app declares it or sends a notification of it."))
        return ft.Column(parts, key="table" if self._has_room else "cards", spacing=2 * GRID)

    @property
    def _has_room(self) -> bool:
        """Whether the table fits; ``wide`` until the width is known."""
        columns = len(self._channels) + 1
        return self._width >= NAME + CELL * columns + DIGEST + MARGINS if self._width else self.wide

    def _table(self, matrix: Matrix) -> ft.Container:
        heads = [_column_head(label, CELL) for label in self._channels.values()]
        heads.append(_column_head("How often", DIGEST))
        if matrix.may_mark_critical:
            heads.append(_column_head("Critical", CELL))
        head = ft.Row([ft.Container(expand=True), *heads], spacing=0)
        rows: list[ft.Control] = [head, hairline(), self._table_row(matrix, None)]
        for row in matrix.types:
            rows += [hairline(), self._table_row(matrix, row)]
        return _card(ft.Column(rows, spacing=GRID), key="matrix")

    def _table_row(self, matrix: Matrix, row: TypeRow | None) -> ft.Row:
        cells = [
            ft.Container(
                width=CELL,
                content=ft.Column(
                    [self._switch(matrix, row, channel), *self._why_text(matrix, row, channel)],
                    spacing=0,
                    tight=True,
                    horizontal_alignment=ft.CrossAxisAlignment.CENTER,
                ),
            )
            for channel in self._channels
        ]
        digest = self._digest(matrix, row)
        cells.append(ft.Container(digest, width=DIGEST, alignment=ft.Alignment.CENTER))
        if matrix.may_mark_critical:
            mark = self._critical(row) if row else None
            cells.append(ft.Container(mark, width=CELL, alignment=ft.Alignment.CENTER))
        text = _type_text(row)
        text.expand = True
        return ft.Row([text, *cells], key=f"type-{row.name if row else ALL}", spacing=0)

    def _cards(self, matrix: Matrix) -> ft.Column:
        cards: list[ft.Control] = [
            self._type_card(matrix, None),
            *(self._type_card(matrix, row) for row in matrix.types),
        ]
        return ft.Column(cards, key="matrix", spacing=12)

    def _type_card(self, matrix: Matrix, row: TypeRow | None) -> ft.Container:
        lines: list[ft.Control] = [_type_text(row)]
        for channel, label in self._channels.items():
            texts: list[ft.Control] = [silent(body(label))]
            if why := self._why(matrix, row, channel):
                texts.append(small(why))
            lines += [hairline(), _line(texts, self._switch(matrix, row, channel))]
        often: list[ft.Control] = [silent(body("How often")), self._digest(matrix, row)]
        lines += [hairline(), ft.Row(often, wrap=True, alignment=ft.MainAxisAlignment.SPACE_BETWEEN)]
        if row is not None and matrix.may_mark_critical:
            texts = [silent(body("Critical")), small(CRITICAL_WORDS)]
            lines += [hairline(), _line(texts, self._critical(row))]
        return _card(ft.Column(lines, spacing=GRID), key=f"type-{row.name if row else ALL}")

    def _why_text(self, matrix: Matrix, row: TypeRow | None, channel: str) -> list[ft.Control]:
        why = self._why(matrix, row, channel)
        if why is None:
            return []
        text = small(why)
        text.text_align = ft.TextAlign.CENTER
        return [text]

    def _why(self, matrix: Matrix, row: TypeRow | None, channel: str) -> str | None:
        return reason(matrix, row.name if row else ALL, channel)

    def _switch(self, matrix: Matrix, row: TypeRow | None, channel: str) -> ft.Switch:
        label = one_line(row.label, 80) if row else ALL_LABEL
        whole = whole_channel(matrix, channel)
        blocked = row is not None and self._why(matrix, row, channel) == "Off for all" and not whole
        return ft.Switch(
            value=row.channels.get(channel, False) if row else whole,
            disabled=blocked,
            tooltip=f"{label} by {self._channels[channel]}",
            on_change=self._switcher(row.name if row else ALL, channel),
        )

    def _switcher(self, notification_type: str, channel: str) -> Handler:
        async def switched(event: ft.Event[ft.Switch]) -> None:
            await self.choose(notification_type, channel, bool(event.control.value))

        return switched

    def _digest(self, matrix: Matrix, row: TypeRow | None) -> ft.Control:
        label = one_line(row.label, 80) if row else ALL_LABEL

        async def chosen(frequency: str | None, at: str | None) -> None:
            await self.choose_digest(row.name if row else ALL, frequency, at)

        return digest_menu(label, row.digest if row else matrix.digest, chosen)

    def _critical(self, row: TypeRow) -> ft.Switch:
        async def switched(event: ft.Event[ft.Switch]) -> None:
            await self.mark_critical(row.name, bool(event.control.value))

        name = f"{one_line(row.label, 80)} is critical: {CRITICAL_WORDS}"
        return ft.Switch(value=row.critical, tooltip=name, on_change=switched)

    async def _retry(self, _: object) -> None:
        self._refresher.request_refresh()

    async def _resized(self, event: ft.LayoutSizeChangeEvent[ft.LayoutControl]) -> None:
        had_room, self._width = self._has_room, event.width
        if self._has_room != had_room:
            self._show()

    def _show(self) -> None:
        # In a list, because Flet matches list items by key with the previous ones and keeps an open menu working;
        # content that is assigned directly is built again.
        self._shown.controls = [self.matrix_content()]
        if is_mounted(self):
            self.update()


def _channels(matrix: Matrix, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the label of each channel in the matrix, in the order of ``labels`` and then of the matrix."""
    found = [channel for row in matrix.types for channel in row.channels] or list(labels)
    known = [channel for channel in labels if channel in found]
    return {channel: labels.get(channel) or one_line(channel, 40) for channel in dict.fromkeys((*known, *found))}


def _column_head(label: str, width: float) -> ft.Container:
    return ft.Container(width=width, alignment=ft.Alignment.CENTER, content=silent(small(label, lines=1)))


def _line(texts: list[ft.Control], control: ft.Control) -> ft.Row:
    return ft.Row([ft.Column(texts, spacing=0, expand=True, tight=True), control])


def _type_text(row: TypeRow | None) -> ft.Column:
    """Return a row's label, its description and its app."""
    if row is None:
        texts: list[ft.Control] = [
            heading(ALL_LABEL, level=3),
            small("A channel that is off here is off for every type below."),
        ]
        return ft.Column(texts, spacing=2, tight=True)
    title = caller_text(row.label or row.name, strong=True, lines=2)
    texts = [title]
    if row.description:
        texts.append(small(one_line(row.description, 200)))
    origin = [f"from {one_line(row.app, 60)}"] if row.app else []
    if row.critical or row.asks_critical:
        origin.append("critical" if row.critical else "requests critical")
    if origin:
        texts.append(small(" · ".join(origin)))
    return ft.Column(texts, spacing=2, tight=True)


def _card(content: ft.Control, *, key: str) -> ft.Container:
    return ft.Container(
        key=key,
        content=content,
        padding=2 * GRID,
        border_radius=RADIUS,
        border=ft.Border.all(1, HAIRLINE),
        bgcolor=CARD,
    )
