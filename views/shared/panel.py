"""Panels: parts of a screen, each redrawn only when its data changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any, ClassVar

import flet as ft
import flet.canvas as cv

from flashflow.views.controls.buttons import icon_button, on_press
from flashflow.views.controls.layout import card, column, flow, growing, hairline
from flashflow.views.controls.refresher import is_mounted
from flashflow.views.controls.texts import heading, silent, small
from flashflow.views.controls.tokens import BODY, GRID, TARGET, TITLE


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Panel(ft.Container):
    """A part of a screen; ``draw`` is a pure function of the data given to ``set_data``.

    Pass ``set_data`` only what is drawn: a value that differs every time (``period.until``) causes a redraw every time.
    Isolated: Flet does not compare the panel's content when the surrounding screen changes.
    """

    def init(self) -> None:
        # In a list, because Flet matches list items by key with the previous ones; other content it builds again.
        self._frame = column([], stretch=True)
        self.content = self._frame
        self._shown: tuple[Any, ...] | None = None

    def set_data(self, *shown: Any) -> None:
        """Show the data if it differs from the data shown."""
        if shown != self._shown:
            self.replace_data(*shown)

    def replace_data(self, *shown: Any) -> None:
        """Show the data even if it is unchanged: a pressed chip has already changed itself on the page."""
        self._shown = shown
        self.redraw()

    def redraw(self) -> None:
        """Draw the current data again, after other state changed."""
        if self._shown is None:
            return
        picture = self.draw(*self._shown)
        picture.key = "picture"
        self._frame.controls = [picture]
        if is_mounted(self):
            self.update()

    def draw(self, *shown: Any) -> ft.Control:
        raise NotImplementedError


AROUND = 34.0
"""Width of a panel's border and padding, in logical pixels."""


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Chart(Panel):
    """A panel with a canvas as wide as the panel and a caption for the value under the pointer."""

    around: ClassVar[float] = AROUND

    room: float = field(default=320, metadata={"skip": True})

    def init(self) -> None:
        super().init()
        self.on_size_change = self._resized
        self._pointed: str | None = None

    def chart(
        self,
        shapes: list[cv.Shape],
        height: float,
        label: str,
        caption: str,
        *,
        key: str,
        axis: ft.Control | None = None,
    ) -> ft.Column:
        """Return the canvas with its axis and caption; ``label`` is its accessible name.

        Flet replaces a drawing whose ``key`` differs from the previous one instead of comparing them.
        """
        canvas = cv.Canvas(shapes, height=height)
        watched = ft.GestureDetector(
            canvas,
            hover_interval=50,
            on_hover=self._over,
            on_tap_down=self._over,
            on_exit=self._left,
            exclude_from_semantics=True,
        )
        drawn = ft.Semantics(label=label, container=True, exclude_semantics=True, image=True, content=watched)
        lines: list[ft.Control] = [drawn, silent(small(self._pointed or caption, lines=2))]
        if axis is not None:
            lines.insert(1, silent(axis))
        return column(lines, GRID, key=key, stretch=True)

    def describe_at(self, x: float, y: float) -> str | None:
        """Describe the value at a point of the canvas; None where there is none."""
        raise NotImplementedError

    async def _resized(self, event: ft.LayoutSizeChangeEvent[ft.LayoutControl]) -> None:
        room = max(1.0, event.width - self.around)
        if abs(room - self.room) >= 1:
            self.room = room
            self.redraw()

    async def _over(self, event: ft.HoverEvent[ft.GestureDetector] | ft.TapEvent[ft.GestureDetector]) -> None:
        if event.local_position is not None:
            self._point(self.describe_at(event.local_position.x, event.local_position.y))

    async def _left(self, _: object) -> None:
        self._point(None)

    def _point(self, text: str | None) -> None:
        """Show ``text`` as the caption."""
        # Redraw all of it: Flet does not allow changes to a control that it has compared.
        if text != self._pointed:
            self._pointed = text
            self.redraw()


def titled_panel(
    title: str, content: Sequence[ft.Control], *, subtitle: str = "", means: str = "", padded: bool = True
) -> ft.Control:
    """Return a titled card; ``means`` is the text behind its info button."""
    texts: list[ft.Control] = [heading(title)]
    if subtitle:
        texts.append(small(subtitle))
    named = flow(texts, run_spacing=2)
    head = [growing(named), *([about(title, means)] if means else [])]
    row = ft.Row(head, spacing=GRID)
    above = 2 if means else 15  # a button makes the head taller by itself
    top = ft.Container(row, padding=ft.Padding.only(left=16, right=4 if means else 16, top=above, bottom=above))
    if padded:
        padding = ft.Padding.only(left=16, right=16, top=12, bottom=16)
        body: ft.Control = ft.Container(column(content, 12, stretch=True), padding=padding)
    else:
        body = column(content, stretch=True)
    return card(column([top, hairline(), body], stretch=True), padding=0)


def about(title: str, means: str, *more: str) -> ft.MergeSemantics:
    """Return an info button that explains a metric."""

    async def explain(event: ft.Event[ft.IconButton]) -> None:
        page = event.page

        def close() -> None:
            page.pop_dialog()

        lines: list[ft.Control] = [ft.Text(text, size=BODY) for text in (means, *more) if text]
        page.show_dialog(
            ft.AlertDialog(
                title=ft.Text(title, size=TITLE),
                content=ft.Container(column(lines, 12), width=400),
                actions=[ft.TextButton("Close", height=TARGET, on_click=on_press(close))],
            )
        )

    return icon_button(ft.Icons.INFO_OUTLINE, f"Explain “{title}”", explain)


def no_data(text: str) -> ft.Control:
    """Return the content of a panel without data in this period."""
    return ft.Container(small(text), key="nothing", padding=ft.Padding.symmetric(vertical=GRID))
