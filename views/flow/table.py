"""Tables of pages: columns that sort, rows that can be pressed, and a list of cards where there is no room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import field
from functools import partial
from typing import Any, NamedTuple

import flet as ft

from flashflow.backend import declarations
from flashflow.views.controls.buttons import named_button, on_press, pressable
from flashflow.views.controls.formatting import one_line, plural
from flashflow.views.controls.layout import column, growing, hairline
from flashflow.views.controls.refresher import is_mounted
from flashflow.views.controls.texts import body, caller_text, hint, read_as, silent, small
from flashflow.views.controls.tokens import ACCENT, GRID, MUTED, TARGET
from flashflow.views.flow.cells import RIGHT, Cell, cell, decimals_of, title_of
from flashflow.views.flow.context import Row, Rows, result_text, unit_of
from flashflow.views.flow.data_part import PADDED, DataPart

log = logging.getLogger(__name__)

PAGE = 10
PAGES_MAX = 50
TEXT_LONG = 24
"""Characters from which a text has a tooltip: the column may cut it."""
NAME_LIMIT = 400
GAP = 3 * GRID
WIDTHS = {"number": 72, "share": 72, "seconds": 88, "time": 96, "day": 96}
TEXT_WIDTH = 112
"""Least width of a column by its unit, in logical pixels."""
CHARACTER, TITLE_WIDTH = 7, 112
"""Width of a character of a header, and the most that a header makes its column wider."""


class Column(NamedTuple):
    """A column with its unit, and the decimals of its numbers."""

    name: str
    unit: str
    decimals: int | None

    @classmethod
    def of(cls, name: str, data: Rows) -> Column:
        return cls(name, unit_of(data, name), decimals_of(row.get(name) for row in data.rows))


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class TablePart(DataPart):
    """A table of a page. A pressed header sorts by its column, then the other way round, then as the file says."""

    declared: declarations.Table = field(metadata={"skip": True})

    def init(self) -> None:
        self._pages = 1
        self._sort = self.declared.sort
        self._width = 0.0
        self._clicking = False
        super().init()
        self.on_size_change = self._resized

    def adopt(self, before: DataPart) -> None:
        if isinstance(before, TablePart):
            self._pages, self._width = before._pages, before._width
            chosen = before._sort
            if chosen is not None and chosen != before.declared.sort and chosen.column in self.declared.columns:
                self._sort = chosen
        super().adopt(before)

    # --- data -----------------------------------------------------------------------------------------------------

    def load(self) -> Rows:
        return self.context.read(self.declared.data, PAGE * self._pages, self._sort)

    async def _show_more(self) -> None:
        self._pages += 1
        self.refresh_now()

    def _sort_by(self, name: str) -> None:
        current = self._sort
        # Numbers and times begin with the largest, texts with A.
        largest_first = self._data is not None and unit_of(self._data, name) != "text"
        if current is None or current.column != name:
            self._sort = declarations.Sort(name, largest_first)
        elif current.descending == largest_first:
            self._sort = declarations.Sort(name, not largest_first)
        else:
            self._sort = self.declared.sort if self.declared.sort != current else None
        self.refresh_now()

    async def _click(self, row: Row) -> None:
        """Run the actions of a row and say what they did."""
        if self._clicking:
            return
        self._clicking = True
        try:
            run = partial(self.context.flow.click_row, self.declared, row, self.context.user_id)
            text = result_text(await asyncio.to_thread(run)) or "Done."
        except Exception as error:
            log.warning("the actions of a row failed", exc_info=True)
            text = f"This did not work: {one_line(str(error))}"
        finally:
            self._clicking = False
        self._say(text)
        self.context.refresh_page()

    def _say(self, text: str) -> None:
        if is_mounted(self):
            self.page.show_dialog(ft.SnackBar(text))

    # --- show -----------------------------------------------------------------------------------------------------

    async def _resized(self, event: ft.LayoutSizeChangeEvent[ft.LayoutControl]) -> None:
        self._width = event.width
        self.show()

    def state(self) -> Sequence[Any]:
        return (*super().state(), self._sort, self._pages, self._has_room)

    @property
    def height_loading(self) -> float:
        return 5.0 * TARGET

    @property
    def _has_room(self) -> bool:
        """Whether the columns fit side by side; the page decides until the width is known."""
        if not self._width or self._data is None:
            return self.context.wide
        needed = sum(_least_width(name, unit_of(self._data, name)) + GAP for name in self.declared.columns)
        return self._width >= needed + GRID

    def draw(self, data: Rows) -> ft.Control:
        rows = list(data.rows)
        if not rows:
            return _empty()
        wide = self._has_room
        columns = [Column.of(name, data) for name in self.declared.columns]
        lines = [self._row(columns, row, n, wide=wide) for n, row in enumerate(rows)]
        if wide:
            content: list[ft.Control] = [self._head(data), hairline(), *lines]
        else:
            content = [self._sort_menu(data)]
            for line in lines:
                content += [hairline(), line]
        if data.next_cursor is not None and self._pages < PAGES_MAX:
            more = named_button(ft.TextButton, "Show more", f"Show more: {self.title}", on_press(self._show_more))
            content += [*([] if wide else [hairline()]), more]
        elif data.next_cursor is not None:
            content.append(ft.Container(small(f"The first {plural(len(rows), 'row')} are shown."), padding=PADDED))
        return column(content, stretch=True)

    def _head(self, data: Rows) -> ft.Control:
        cells = [self._header(name, unit_of(data, name)) for name in self.declared.columns]
        row = ft.Row(cells, spacing=GAP, vertical_alignment=ft.CrossAxisAlignment.CENTER)
        return ft.Container(row, padding=ft.Padding.symmetric(horizontal=2 * GRID))

    def _header(self, name: str, unit: str) -> ft.Control:
        sorted_ = self._sort is not None and self._sort.column == name
        title, right = title_of(name), unit in RIGHT
        text = small(title, lines=1, color=ACCENT if sorted_ else MUTED)
        text.weight = ft.FontWeight.W_600
        parts: list[ft.Control] = [ft.Container(text, expand=True, expand_loose=True)]
        spoken = f"Sort by {title}"
        if sorted_ and self._sort is not None:
            down = self._sort.descending
            icon = ft.Icon(ft.Icons.ARROW_DOWNWARD if down else ft.Icons.ARROW_UPWARD, size=14, color=ACCENT)
            parts.insert(0 if right else 1, icon)
            spoken += f", sorted {'descending' if down else 'ascending'}"
        side = ft.MainAxisAlignment.END if right else ft.MainAxisAlignment.START
        face = ft.Container(
            silent(ft.Row(parts, spacing=4, alignment=side)),
            height=TARGET,
            alignment=ft.Alignment.CENTER_RIGHT if right else ft.Alignment.CENTER_LEFT,
            on_click=on_press(self._sort_by, name),
            ink=True,
            border_radius=GRID,
            tooltip=hint(title),
        )
        button = ft.Semantics(label=spoken, button=True, content=face)
        return ft.MergeSemantics(content=button, expand=_share_of(unit), key=f"head-{name}")

    def _sort_menu(self, data: Rows) -> ft.Control:
        """Return the menu that sorts a list of cards."""
        current = self._sort
        label = "Sort" if current is None else f"Sorted by {title_of(current.column)}"
        items = [
            ft.PopupMenuItem(title_of(name), on_click=on_press(self._sort_by, name)) for name in self.declared.columns
        ]
        icon = ft.Icons.SORT if current is None or current.descending else ft.Icons.ARROW_UPWARD
        face = ft.Row([ft.Icon(icon, size=18, color=MUTED), small(label, lines=1)], spacing=GRID, tight=True)
        spoken = f"{label}: {self.title}"
        menu = ft.PopupMenuButton(
            content=silent(ft.Container(face, height=TARGET, padding=PADDED)), items=items, tooltip=spoken, padding=0,
            menu_position=ft.PopupMenuPosition.UNDER,
        )  # fmt: skip
        return ft.Row([menu], key="sort")

    def _row(self, columns: Sequence[Column], row: Row, n: int, *, wide: bool) -> ft.Control:
        now = self.context.now_minute()
        cells = [(one, cell(row.get(one.name), one.unit, now, one.decimals)) for one in columns]
        name = one_line(", ".join(f"{title_of(one.name)}: {found.text}" for one, found in cells), NAME_LIMIT)
        content = _line(cells) if wide else _card(cells)
        if self.declared.on_row_click:
            return pressable(name, content, on_press(self._click, row), key=f"row-{n}")
        padding = ft.Padding.symmetric(vertical=12, horizontal=2 * GRID)
        return read_as(name, ft.Container(content, padding=padding), key=f"row-{n}")


def _least_width(name: str, unit: str) -> float:
    return max(WIDTHS.get(unit, TEXT_WIDTH), min(CHARACTER * len(title_of(name)), TITLE_WIDTH))


def _share_of(unit: str) -> int:
    """Return the share of a row's width for a column."""
    return 2 if unit in WIDTHS else 3


def _text(found: Cell, unit: str, *, strong: bool = False, lines: int = 1) -> ft.Text:
    text = caller_text(found.text, strong=strong, lines=lines) if unit == "text" else body(found.text, lines=1)
    if found.tooltip or len(found.text) > TEXT_LONG:
        text.tooltip = hint(found.tooltip or found.text)
    return text


def _line(cells: Sequence[tuple[Column, Cell]]) -> ft.Control:
    parts: list[ft.Control] = []
    for one, found in cells:
        text = growing(_text(found, one.unit))
        text.expand = _share_of(one.unit)
        if one.unit in RIGHT:
            text.text_align = ft.TextAlign.RIGHT
        parts.append(text)
    return ft.Row(parts, spacing=GAP)


def _card(cells: Sequence[tuple[Column, Cell]]) -> ft.Control:
    """Return the first value as a title, and each further value beside its column's name."""
    (title, first), *others = cells
    lines: list[ft.Control] = [_text(first, title.unit, strong=True, lines=2)]
    for one, found in others:
        text = growing(_text(found, one.unit))
        text.text_align = ft.TextAlign.RIGHT
        lines.append(ft.Row([small(title_of(one.name), lines=1), text], spacing=GAP))
    return column(lines, 4, stretch=True)


def _empty() -> ft.Control:
    parts: list[ft.Control] = [body("No rows yet", strong=True), small("Rows appear here as soon as there are any.")]
    return ft.Container(column(parts, 4), padding=2 * GRID)
