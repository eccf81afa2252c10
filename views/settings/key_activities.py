"""Key activities: types that make a session engaged and count in the engagement score."""

from __future__ import annotations

from collections.abc import Sequence

import flet as ft

from flashflow.backend import ActivityType
from flashflow.views.controls.buttons import on_press
from flashflow.views.controls.formatting import grouped, one_line
from flashflow.views.controls.layout import card, column
from flashflow.views.controls.texts import caller_text, small
from flashflow.views.controls.tokens import GRID, TARGET
from flashflow.views.settings.part import SettingsPart
from flashflow.views.shared.screen_base import Screen

SHOWN = 100
"""Largest number of types with a switch; the API sets the others."""


class KeyActivities(SettingsPart):
    """A switch for each type; a row shows progress while its sessions are recalculated."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(screen)
        self._types: Sequence[ActivityType] = ()
        self._busy: str | None = None
        self._list = column([])
        self.control = card(self._list, key="key-activities")

    def load(self) -> Sequence[ActivityType]:
        return self.backend.activity.rollups.activity_types()

    def set_data(self, types: Sequence[ActivityType]) -> None:
        """Set the activity types; key activities are listed first."""
        self._types = sorted(types, key=lambda kind: (not kind.key, kind.name))
        self.draw()

    def draw(self) -> None:
        rows: list[ft.Control] = [self._row(kind) for kind in self._types[:SHOWN]]
        if not rows:
            rows = [small("No activities yet. Each activity type that your apps record appears here.")]
        elif (more := len(self._types) - SHOWN) > 0:
            rows.append(small(f"{grouped(more)} more types: use the API to change them, see /docs."))
        self._list.controls = rows

    def _row(self, kind: ActivityType) -> ft.Control:
        name = one_line(kind.name, 120)
        busy = self._busy == kind.name
        switch = ft.Switch(
            value=kind.key,
            disabled=self._busy is not None,
            tooltip=f"Key activity: {name}",
            on_change=on_press(self._mark, kind),
        )
        read = ft.Semantics(exclude_semantics=True, expand=True, content=caller_text(kind.name))
        progress: list[ft.Control] = [small("recalculating sessions …")] if busy else []
        return ft.Row([read, *progress, switch], key=f"key-{kind.name}", height=TARGET, spacing=GRID)

    async def _mark(self, kind: ActivityType) -> None:
        self._busy = kind.name
        self.redraw()
        try:
            rollups = self.backend.activity.rollups
            await self.screen.act(lambda: rollups.mark_key_activity(kind.name, not kind.key))
        finally:
            self._busy = None
            self.draw()
            self.screen.refresh_now()
