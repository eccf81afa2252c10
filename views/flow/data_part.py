"""Base of tables and charts: each loads its source by itself and keeps it current while the page is visible."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any, ClassVar, TypeVar

import flet as ft

from flashflow.backend import declarations
from flashflow.views.controls.buttons import named_button, on_press
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.layout import column, growing
from flashflow.views.controls.refresher import LiveControl
from flashflow.views.controls.texts import body, heading, small
from flashflow.views.controls.tokens import GRID, RADIUS, TARGET, URGENT
from flashflow.views.flow.cells import title_of
from flashflow.views.flow.context import PageContext, Rows, kinds_of
from flashflow.views.shared.panel import titled_panel

log = logging.getLogger(__name__)

SKELETON_AFTER_S = 0.15
PADDED = ft.Padding.symmetric(vertical=GRID, horizontal=2 * GRID)

Declared = TypeVar("Declared", declarations.Table, declarations.Chart)


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class DataPart(LiveControl):
    """A part over one source. Without ``refresh`` it follows the events of its source, else it reads the source every
    ``refresh`` seconds; both only while the page is visible. ``framed``: it has a card of its own.

    A failed refresh keeps the rows shown and says so.
    """

    rest: ClassVar[float] = 1.0  # a value that changes faster cannot be read
    ease: ClassVar[float] = 5.0

    declared: declarations.Table | declarations.Chart = field(metadata={"skip": True})
    context: PageContext = field(metadata={"skip": True})
    framed: bool = field(default=True, metadata={"skip": True})

    def init(self) -> None:
        super().init()
        self._data: Rows | None = None
        self._failed: str | None = None
        self._read_at = 0.0
        self._shown: tuple[Any, ...] | None = None
        self._timer: asyncio.Task[None] | None = None
        # In a list, because Flet matches list items by key with the previous ones.
        self._frame = column([], stretch=True)
        self.content = framed_or_not(self.declared.title, self.title, self._frame, framed=self.framed)
        self._put(_space(self.height_loading), "space")

    @property
    def title(self) -> str:
        return one_line(self.declared.title or title_of(self.declared.name), 120)

    # --- life -----------------------------------------------------------------------------------------------------

    def adopt(self, before: DataPart) -> None:
        """Take over the rows that ``before``, the same part of an earlier version of the file, has loaded."""
        if before._data is not None and before.declared.data.name == self.declared.data.name:
            self._data = before._data
            self.show()

    def did_mount(self) -> None:
        super().did_mount()
        if self.declared.refresh_s is not None:
            self._timer = asyncio.get_running_loop().create_task(self._tick(self.declared.refresh_s))

    def will_unmount(self) -> None:
        super().will_unmount()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def subscribe(self) -> Callable[[], None]:
        kinds = kinds_of(self.declared.data) if self.declared.refresh_s is None else ()
        return self.context.live.listen(kinds, self._changed)

    def _changed(self) -> None:
        """Read the source again, or only update relative times while the rows are as recent as the file asks for."""
        refresh_s = self.declared.refresh_s
        if refresh_s is None or time.monotonic() - self._read_at >= refresh_s:
            self.request_refresh()
        else:
            self.show()

    async def _tick(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            if self.context.live.is_started:
                self.request_refresh()

    def refresh_now(self) -> None:
        """Read the source at once, without the rest after a refresh: the user has changed data."""
        self._refresher.cancel()
        self.request_refresh()

    # --- data -----------------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        loading = asyncio.create_task(self._load())
        if self._data is None:
            done, _ = await asyncio.wait({loading}, timeout=SKELETON_AFTER_S)
            if not done and self._failed is None:
                self._put(_skeleton(self.title, self.height_loading), "skeleton")
                self.redraw()
        try:
            self._data, self._failed = await loading, None
        except Exception as error:
            log.warning("a data source could not be read", exc_info=True)
            self._failed = one_line(str(error))
        self._read_at = time.monotonic()
        self.show()

    async def _load(self) -> Rows:
        async with self.context.slots:
            return await asyncio.to_thread(self.load)

    def load(self) -> Rows:
        """Read the source. Runs in a worker thread."""
        raise NotImplementedError

    # --- show -----------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Show the rows, or the reason why there are none, if anything differs from the picture shown."""
        shown = (self._data, self._failed, *self.state())
        if shown == self._shown:
            return
        self._shown = shown
        if self._data is None:
            if self._failed is not None:
                self._put(_failure(self.title, self._failed, self.refresh_now), "failure")
        else:
            note = [] if self._failed is None else [_stale(self.title, self._failed, self.refresh_now)]
            self._put(self.draw(self._data), "data", *note)
        self.redraw()

    def _put(self, content: ft.Control, key: str, *above: ft.Control) -> None:
        content.key = key
        self._frame.controls = [*above, content]

    def state(self) -> Sequence[Any]:
        """Return everything besides the rows that the picture depends on."""
        return (self.context.now_minute(),)

    @property
    def height_loading(self) -> float:
        """Height of the content until it is loaded."""
        raise NotImplementedError

    def draw(self, data: Rows) -> ft.Control:
        """Return the picture of the rows."""
        raise NotImplementedError


def framed_or_not(declared: str | None, title: str, content: ft.Control, *, framed: bool) -> ft.Control:
    """Return a part in a card, or as a piece of the card around it, with a title there only if ``declared``."""
    if framed:
        return titled_panel(title, [content], padded=False)
    if declared is None:
        return content
    head = ft.Container(heading(title, level=3), padding=ft.Padding.only(left=2 * GRID, right=2 * GRID, top=2 * GRID))
    return column([head, content], stretch=True)


def _space(height: float) -> ft.Control:
    return ft.Container(height=height)


def _skeleton(title: str, height: float) -> ft.Control:
    """Return placeholder bars."""
    bars: list[ft.Control] = [
        ft.Container(height=3 * GRID, border_radius=RADIUS / 2, bgcolor=ft.Colors.SURFACE_CONTAINER)
        for _ in range(max(1, int(height / TARGET)))
    ]
    rows = column(bars, 3 * GRID, stretch=True)
    content = ft.Container(rows, padding=2 * GRID, height=height, clip_behavior=ft.ClipBehavior.HARD_EDGE)
    return ft.Semantics(content=content, label=f"Loading: {title}", exclude_semantics=True)


def _failure(title: str, reason: str, retry: Callable[[], None]) -> ft.Control:
    """Return the state of a part that has never been loaded."""
    parts = [
        body("This could not be loaded", strong=True),
        small(reason),
        named_button(ft.OutlinedButton, "Retry", f"Retry: {title}", on_press(retry)),
    ]
    icon = ft.Icon(ft.Icons.ERROR_OUTLINE, size=24, color=URGENT)
    row = ft.Row([icon, growing(column(parts, GRID))], spacing=12, vertical_alignment=ft.CrossAxisAlignment.START)
    return ft.Container(row, padding=2 * GRID)


def _stale(title: str, reason: str, retry: Callable[[], None]) -> ft.Control:
    """Return the line above rows whose refresh has failed."""
    icon = ft.Icon(ft.Icons.ERROR_OUTLINE, size=18, color=URGENT)
    text = growing(small(f"Could not be refreshed: {reason}", lines=3))
    button = named_button(ft.TextButton, "Retry", f"Retry: {title}", on_press(retry))
    return ft.Container(ft.Row([icon, text, button], spacing=GRID), padding=PADDED)
