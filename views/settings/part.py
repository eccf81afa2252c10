"""Base of the parts of Settings. A part lives as long as the screen, so that a refresh keeps unsaved input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flet as ft

from flashflow.views.controls.buttons import named_button, on_press
from flashflow.views.shared.screen_base import Screen


class SettingsPart:
    """A part of Settings, which draws itself from the data given to ``set_data``."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.backend = screen.backend
        self._confirming: str | None = None
        """The id of the row that waits for a confirmation."""

    def load(self) -> Any:
        """Query the part's data. Runs in a worker thread."""
        raise NotImplementedError

    def set_data(self, data: Any) -> None:
        """Show the data of ``load``."""
        raise NotImplementedError

    def draw(self) -> None:
        """Build the changing controls again."""

    def redraw(self) -> None:
        """Draw, and send the changes to the page."""
        self.draw()
        self.screen.redraw()

    async def confirm(self, row_id: str | None) -> None:
        """Ask for the confirmation of a row, or of none."""
        self._confirming = row_id
        self.redraw()

    async def write(self, command: Callable[..., Any], *given: Any) -> None:
        """Store the write of ``command(*given)``; an error is shown."""
        store = self.backend.notifications.store
        await self.screen.act(lambda: store.run(command(*given)))

    def keep_button(self, name: str, *, disabled: bool = False, key: str = "keep") -> ft.Control:
        """Return the button that ends the confirmation."""
        return named_button(
            ft.TextButton, "Keep", f"Keep: {name}", on_press(self.confirm, None), disabled=disabled, key=key
        )
