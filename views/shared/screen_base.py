"""Base class of the screens: load data in a worker thread, then show the data, a skeleton or an error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar, TypeVar

import flet as ft

from flashflow.backend import Backend, EventKind, NotificationPage, SessionPage, UserRows
from flashflow.views.controls.buttons import on_press
from flashflow.views.controls.refresher import LiveControl, is_mounted
from flashflow.views.shared.delivery_labels import second_person
from flashflow.views.shared.live import Live
from flashflow.views.shared.widgets import failure, skeleton

Page = TypeVar("Page", NotificationPage, SessionPage, UserRows)

log = logging.getLogger(__name__)

SKELETON_AFTER_S = 0.15


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Screen(LiveControl):
    """A screen that shows the data of ``load`` and refreshes after every event of ``kinds``.

    ``render`` is a pure function of the data; Flet sends the page only the differences.
    """

    kinds: ClassVar[tuple[EventKind, ...]] = ()

    backend: Backend = field(metadata={"skip": True})
    live: Live = field(metadata={"skip": True})
    go: Callable[[str], None] = field(metadata={"skip": True})
    wide: bool = field(default=False, metadata={"skip": True})

    def init(self) -> None:
        super().init()
        self.expand = True
        # In a list, because Flet matches list items by key with the previous ones and keeps scroll positions and open
        # menus; content that is assigned directly is built again.
        self._frame = ft.Column(spacing=0, expand=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH)
        self.content = self._frame
        self._loaded: Any = None
        self._pages = 1

    def subscribe(self) -> Callable[[], None]:
        return self.live.listen(self.kinds, self.request_refresh)

    def refresh_now(self) -> None:
        """Refresh at once, without the rest after a refresh: for changes that the user made."""
        self._refresher.cancel()
        self.request_refresh()

    def load_pages(self, read: Callable[[str | None], Page]) -> list[Page]:
        """Read as many pages of a list as are shown, with the cursor of each."""
        pages = [read(None)]
        while len(pages) < self._pages and pages[-1].next_cursor is not None:
            pages.append(read(pages[-1].next_cursor))
        return pages

    def show_more(self) -> None:
        """Show one more page of the list."""
        self._pages += 1
        self.refresh_now()

    def load(self) -> Any:
        """Query the services. Runs in a worker thread."""
        raise NotImplementedError

    def render(self, data: Any) -> ft.Control:
        """Return the control that shows the data of ``load``."""
        raise NotImplementedError

    def set_wide(self, wide: bool) -> None:
        """Switch to the layout of a wide or a narrow page."""
        self.wide = wide
        if self._loaded is not None:
            self.show(self.render(self._loaded), "data")

    async def refresh(self) -> None:
        loading = asyncio.create_task(asyncio.to_thread(self.load))
        if self._loaded is None:
            done, _ = await asyncio.wait({loading}, timeout=SKELETON_AFTER_S)
            if not done:
                self.show(skeleton(), "skeleton")
        try:
            data = await loading
            self.show(self.render(data), "data")
            self._loaded = data
        except Exception as error:
            log.warning("a screen could not be loaded", exc_info=True)
            self._loaded = None
            self.show(failure(str(error), on_press(self.request_refresh)), "failure")

    async def act(self, action: Callable[[], object]) -> None:
        """Run ``action`` in a worker thread and show an error. Its result arrives over the bus."""
        try:
            await asyncio.to_thread(action)
        except Exception as error:
            log.warning("an action was refused", exc_info=True)
            if is_mounted(self):
                self.page.show_dialog(ft.SnackBar(f"Nothing was changed: {second_person(str(error))}"))

    def show(self, content: ft.Control, key: str) -> None:
        content.key, content.expand = key, True
        self._frame.controls = [content]
        self.redraw()
