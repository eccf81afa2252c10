"""What the three screens share: load in a worker thread, then show the data, a skeleton, or what went wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import flet as ft

from flashflow.views.controls.refresher import Refresher
from flashflow.views.controls.tokens import is_mounted
from flashflow.views.shared.formatting import mine
from flashflow.views.shared.live import Live
from flashflow.views.shared.widgets import failure, skeleton

if TYPE_CHECKING:
    from flashflow.backend import Backend, EventKind

log = logging.getLogger(__name__)

PATIENCE = 0.15


def _now() -> datetime:
    return datetime.now().astimezone()


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class Screen(ft.Container):
    """A screen that shows what ``load`` found, again after every event of ``kinds``.

    ``render`` is a pure picture of the data: each refresh draws it anew, and Flet sends the page only what differs.
    For that the picture stands in a list: there Flet matches what has a key with what stood there before (what is
    scrolled stays so, a menu that is open still knows whom to tell), while a content that is exchanged is built anew.
    """

    kinds: ClassVar[tuple[EventKind, ...]] = ()
    rest: ClassVar[float] = 0
    ease: ClassVar[float] = 0

    backend: Backend = field(metadata={"skip": True})
    live: Live = field(metadata={"skip": True})
    go: Callable[[str], None] = field(metadata={"skip": True})
    wide: bool = field(default=False, metadata={"skip": True})
    now: Callable[[], datetime] = field(default=_now, metadata={"skip": True})

    def init(self) -> None:
        self.expand = True
        self._frame = ft.Column(spacing=0, expand=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH)
        self.content = self._frame
        self._found: Any = None
        self._refresher = Refresher(self.refresh, self.rest, self.ease)
        self._unlisten: Callable[[], None] | None = None

    def did_mount(self) -> None:
        self._unlisten = self.live.listen(self.kinds, self.ask)
        self.ask()

    def will_unmount(self) -> None:
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        self._refresher.cancel()

    def ask(self) -> None:
        """Look again as soon as the last look is over."""
        self._refresher.ask()

    def ask_now(self) -> None:
        """Look again at once: what the person did does not wait out the rest after a look."""
        self._refresher.cancel()
        self._refresher.ask()

    def load(self) -> Any:
        """Ask the services. Runs in a worker thread."""
        raise NotImplementedError

    def render(self, found: Any) -> ft.Control:
        """Draw what ``load`` found."""
        raise NotImplementedError

    def set_wide(self, wide: bool) -> None:
        """Take the layout for a wide or a narrow page."""
        self.wide = wide
        if self._found is not None:
            self.show(self.render(self._found), "data")

    async def refresh(self) -> None:
        loading = asyncio.create_task(asyncio.to_thread(self.load))
        if self._found is None:
            done, _ = await asyncio.wait({loading}, timeout=PATIENCE)
            if not done:
                self.show(skeleton(), "skeleton")
        try:
            found = await loading
            self.show(self.render(found), "data")
            self._found = found
        except Exception as error:
            log.warning("a screen could not be loaded", exc_info=True)
            self._found = None
            self.show(failure(str(error), self._retry), "failure")

    async def act(self, action: Callable[[], object]) -> None:
        """Do something in a worker thread; what came of it arrives over the bus, a refusal is told at once."""
        try:
            await asyncio.to_thread(action)
        except Exception as error:
            log.warning("an action was refused", exc_info=True)
            if is_mounted(self):
                self.page.show_dialog(ft.SnackBar(f"That did not work, and nothing was changed: {mine(str(error))}"))

    def show(self, content: ft.Control, key: str) -> None:
        content.key, content.expand = key, True
        self._frame.controls = [content]
        self.redraw()

    def redraw(self) -> None:
        """Send the page what changed in this screen's parts."""
        if is_mounted(self):
            self.update()

    async def _retry(self, _: object) -> None:
        self.ask()
