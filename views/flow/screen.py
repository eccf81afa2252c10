"""The screen of a page that a ``.flow`` file declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote

import flet as ft

from flashflow.backend import EventKind, declarations
from flashflow.views.controls.layout import column
from flashflow.views.controls.texts import body, silent, small
from flashflow.views.controls.tokens import GRID, MUTED
from flashflow.views.flow.context import FlowRuntime, PageContext
from flashflow.views.flow.data_part import DataPart
from flashflow.views.flow.layout import PageLayout, substance
from flashflow.views.shared.screen_base import Screen
from flashflow.views.shared.widgets import page_column, page_padding


class FlowPageData(NamedTuple):
    """The project, and the page of the route; None where no file declares it any more. ``scope``: values of names."""

    project: declarations.Project
    page: declarations.Page | None
    scope: Mapping[str, Any]


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class FlowPage(Screen):
    """The page of a route. Its parts load by themselves. A reload of the files builds them again where the declarations
    have changed; the scroll position, the rows and the input in forms stay."""

    kinds: ClassVar[tuple[EventKind, ...]] = ("flow",)

    flow: FlowRuntime = field(metadata={"skip": True})
    route: str = field(metadata={"skip": True})
    user_id: str = field(default="", metadata={"skip": True})

    def init(self) -> None:
        super().init()
        self.user_id = self.user_id or self.backend.me
        self._layout: PageLayout | None = None
        self._substance: Any = None
        self._page: ft.ListView | None = None

    def load(self) -> FlowPageData:
        project = self.flow.project
        return FlowPageData(project, page_at(project, self.route), self.flow.scope_of(self.user_id))

    def render(self, data: FlowPageData) -> ft.Control:
        page = data.page
        if page is None:
            self._layout = self._page = self._substance = None
            return _message(ft.Icons.WEB_ASSET_OFF, "This page is gone", "No .flow file declares it any more.")
        if page.auth == "admin" and self.user_id != self.backend.me:
            return _message(
                ft.Icons.LOCK_OUTLINE, "This page is for the owner", f"{self.user_id} may not open it: auth is admin."
            )
        named = {name: value for name, value in data.scope.items() if name != "now"}
        shown = (substance((page, data.project.models)), named, self.wide)
        if self._page is None:
            self._page = page_column([], wide=self.wide)
        if shown != self._substance:
            self._substance = shown
            self._build(data, page)
        self._page.padding = page_padding(wide=self.wide)
        return self._page

    def _build(self, data: FlowPageData, page: declarations.Page) -> None:
        context = PageContext(
            self.backend, self.flow, page, data.scope, self.live, self.user_id, self.wide, self._refresh_parts, self.now
        )
        before = self._layout.parts if self._layout is not None else None
        self._layout = PageLayout(context, data.project, page, self._open_notification, self._open_all, before)
        controls = self._layout.controls or [small("This page has no elements.")]
        assert self._page is not None
        self._page.controls = page_column(controls, wide=self.wide).controls

    def _refresh_parts(self) -> None:
        for part in self._layout.parts.values() if self._layout is not None else ():
            if isinstance(part, DataPart):
                part.refresh_now()

    async def _open_notification(self, notification_id: str) -> None:
        self.go(f"/notifications/{quote(notification_id, safe='')}")

    async def _open_all(self) -> None:
        self.go("/notifications")


def page_at(project: declarations.Project, route: str) -> declarations.Page | None:
    """Return the page that declares ``route``; the first of several."""
    return next((page for page in project.pages if page.route == route), None)


def _message(icon: ft.IconData, title: str, text: str) -> ft.Control:
    parts: list[ft.Control] = [silent(ft.Icon(icon, size=32, color=MUTED)), body(title, strong=True), small(text)]
    return ft.Container(column(parts, GRID), padding=3 * GRID)
