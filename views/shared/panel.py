"""Parts of a screen that are drawn anew only when what they show differs, each by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import Any

import flet as ft
import flet.canvas as cv

from flashflow.views.controls.tokens import (
    BODY,
    GRID,
    TARGET,
    TITLE,
    Handler,
    hairline,
    heading,
    icon_button,
    is_mounted,
    silent,
    small,
)
from flashflow.views.shared.widgets import card


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Panel(ft.Container):
    """``take`` what there is to show; ``draw`` is a pure picture of it.

    Isolated: when the screen around it is compared, what stands in here is not, so that a live screen costs only what
    changes. Take only what is drawn: an answer's own moment (``period.until``) differs every time. The picture stands
    in a list, where Flet matches it by key with the one before.
    """

    def init(self) -> None:
        self._frame = ft.Column(spacing=0, tight=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH)
        self.content = self._frame
        self._shown: tuple[Any, ...] | None = None

    def take(self, *shown: Any) -> None:
        """Show this, if it is not what stands here already."""
        if shown != self._shown:
            self.put(*shown)

    def put(self, *shown: Any) -> None:
        """Show this whatever stands here: a chip that was pressed has changed on the page by itself."""
        self._shown = shown
        self.redraw()

    def redraw(self) -> None:
        """Draw what was taken once more, for whatever else changed."""
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
"""What a panel's border and padding take of its width."""


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Chart(Panel):
    """A part that draws on a canvas as wide as there is room, and says what lies under the pointer."""

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
        """The canvas with its axis and its caption, read aloud as ``label``; a drawing with another ``key`` takes the
        last one's place without being compared with it."""
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
        return ft.Column(lines, key=key, spacing=GRID, tight=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH)

    def told(self, x: float, y: float) -> str | None:
        """What lies there, in words; None where nothing does."""
        raise NotImplementedError

    async def _resized(self, event: ft.LayoutSizeChangeEvent[ft.LayoutControl]) -> None:
        room = max(1.0, event.width - AROUND)
        if abs(room - self.room) >= 1:
            self.room = room
            self.redraw()

    async def _over(self, event: ft.HoverEvent[ft.GestureDetector] | ft.TapEvent[ft.GestureDetector]) -> None:
        if event.local_position is not None:
            self._point(self.told(event.local_position.x, event.local_position.y))

    async def _left(self, _: object) -> None:
        self._point(None)

    def _point(self, words: str | None) -> None:
        """Say it in the caption's place. The picture is drawn anew: what Flet has compared it does not let change."""
        if words != self._pointed:
            self._pointed = words
            self.redraw()


def titled_panel(
    title: str, content: list[ft.Control], *, words: str = "", means: str = "", padded: bool = True
) -> ft.Control:
    """A titled card; ``means`` is what its info button explains."""
    texts: list[ft.Control] = [heading(title)]
    if words:
        texts.append(small(words))
    named = ft.Row(texts, wrap=True, spacing=GRID, run_spacing=2, vertical_alignment=ft.CrossAxisAlignment.CENTER)
    named.expand = True
    head: list[ft.Control] = [named]
    if means:
        head.append(about(title, means))
    row = ft.Row(head, spacing=GRID, vertical_alignment=ft.CrossAxisAlignment.CENTER)
    above = 2 if means else 15  # beside a button the head is as high as that
    top = ft.Container(row, padding=ft.Padding.only(left=16, right=4 if means else 16, top=above, bottom=above))
    if not padded:
        body: ft.Control = ft.Column(content, spacing=0, tight=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH)
    else:
        body = ft.Container(
            ft.Column(content, spacing=12, tight=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH),
            padding=ft.Padding.only(left=16, right=16, top=12, bottom=16),
        )
    parts = [top, hairline(), body]
    return card(ft.Column(parts, spacing=0, tight=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH), padding=0)


def about(what: str, means: str, *more: str) -> ft.MergeSemantics:
    """An info button that says what a figure means."""

    async def explain(event: ft.Event[ft.IconButton]) -> None:
        page = event.page

        async def close(_: object) -> None:
            page.pop_dialog()

        lines: list[ft.Control] = [ft.Text(words, size=BODY) for words in (means, *more) if words]
        page.show_dialog(
            ft.AlertDialog(
                title=ft.Text(what, size=TITLE),
                content=ft.Container(ft.Column(lines, spacing=12, tight=True), width=400),
                actions=[ft.TextButton("Close", height=TARGET, on_click=close)],
            )
        )

    return icon_button(ft.Icons.INFO_OUTLINE, f"What “{what}” means", explain)


def nothing(words: str) -> ft.Control:
    """A part with nothing to show in this period."""
    return ft.Container(small(words), key="nothing", padding=ft.Padding.symmetric(vertical=GRID))


def pressing(action: Callable[..., Awaitable[None]], *given: Any) -> Handler:
    """A handler that awaits ``action`` with what was given when it was made."""

    async def press(_: object) -> None:
        await action(*given)

    return press
