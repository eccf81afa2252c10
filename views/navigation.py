"""Navigation: the app's places and the pages of ``.flow`` files, their addresses, the rail, the bar and its "More"."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

import flet as ft

from flashflow.backend import declarations
from flashflow.views.controls.buttons import on_press, pressable
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.layout import growing
from flashflow.views.controls.texts import caller_text, heading, silent
from flashflow.views.controls.tokens import GRID, HAIRLINE, MUTED, SMALL
from flashflow.views.dashboard.screen import Dashboard
from flashflow.views.dashboard.user_profile import UserProfile
from flashflow.views.dashboard.users import Users
from flashflow.views.flow.screen import FlowPage
from flashflow.views.notifications.screen import NotificationCenter
from flashflow.views.settings.screen import Settings
from flashflow.views.shared.screen_base import Screen

BAR_MOST = 5
"""Destinations of the bar; further ones are behind "More"."""
RAIL_WIDTH = 104
RAIL_LABEL, BAR_LABEL = 40, 12
"""Characters of a label."""
PAGES_PATH = "/pages"
RESERVED = frozenset({
    "", "notifications", "users", "settings", "pages",  # screens of the app
    "api", "docs", "openapi.json", "launch", "ws", "assets", "canvaskit", "icons", "pyodide",  # answered by the server
})  # fmt: skip
"""First segments of addresses that belong to FlashFlow: a page with such a route is found below PAGES_PATH only."""


class Place(NamedTuple):
    """A screen with its route. ``PLACES`` are in the navigation; ``BEHIND`` are opened from the dashboard."""

    route: str
    label: str
    icon: ft.IconData
    selected_icon: ft.IconData
    screen: type[Screen]


PLACES = (
    Place("/", "Dashboard", ft.Icons.DASHBOARD_OUTLINED, ft.Icons.DASHBOARD, Dashboard),
    Place("/notifications", "Notifications", ft.Icons.INBOX_OUTLINED, ft.Icons.INBOX, NotificationCenter),
    Place("/settings", "Settings", ft.Icons.SETTINGS_OUTLINED, ft.Icons.SETTINGS, Settings),
)
BEHIND = (
    Place("/users", "Users", ft.Icons.PEOPLE_OUTLINE, ft.Icons.PEOPLE, Users),
    Place("/users", "User", ft.Icons.PERSON_OUTLINE, ft.Icons.PERSON, UserProfile),
    Place(PAGES_PATH, "Page", ft.Icons.ARTICLE_OUTLINED, ft.Icons.ARTICLE, FlowPage),
)
DASHBOARD, NOTIFICATIONS, SETTINGS, USERS, USER, PAGE = range(len(PLACES) + len(BEHIND))

Pages = Sequence[declarations.Page]


def parse(route: str, pages: Pages = ()) -> tuple[int, str | None]:
    """Parse an address into a place index and the notification, user or page in it; a page is its declared route. An
    unknown address is the dashboard."""
    parts = [unquote(part) for part in urlsplit(route).path.split("/") if part]
    named = parts[1] if len(parts) == 2 else None
    if parts[:1] == ["notifications"] and len(parts) <= 2:
        return NOTIFICATIONS, named
    if parts[:1] == ["users"] and len(parts) <= 2:
        return (USERS, None) if named is None else (USER, named)
    if parts == ["settings"]:
        return SETTINGS, None
    page = _page_at(unquote(urlsplit(route).path), pages)
    return (DASHBOARD, None) if page is None else (PAGE, page)


def address_of(route: str) -> str:
    """Return the address of a page: its declared route if FlashFlow does not use it, else below PAGES_PATH."""
    path = quote(route, safe="/")
    return f"{PAGES_PATH}{path}" if _is_reserved(route) else path


def _is_reserved(route: str) -> bool:
    return route.strip("/").split("/")[0] in RESERVED


def _page_at(path: str, pages: Pages) -> str | None:
    """Return the declared route of the page at an address; PAGES_PATH before it and a slash after it are optional."""
    if path == PAGES_PATH or path.startswith(f"{PAGES_PATH}/"):
        path = path.removeprefix(PAGES_PATH)
    elif _is_reserved(path):
        return None
    return next((page.route for page in pages if page.route.rstrip("/") == path.rstrip("/")), None)


class Destination(NamedTuple):
    """An entry of the navigation."""

    address: str
    label: str
    icon: ft.IconData
    selected_icon: ft.IconData


def destinations(pages: Pages) -> tuple[Destination, ...]:
    """Return the places, then the pages."""
    own = [Destination(place.route, place.label, place.icon, place.selected_icon) for place in PLACES]
    return (*own, *(Destination(address_of(page.route), one_line(page.title, 80), *_icons(page)) for page in pages))


class Navigation:
    """The rail of a wide page and the bar of a narrow one, over the same destinations."""

    def __init__(self, go: Callable[[str], None]) -> None:
        self._go = go
        self._shown: tuple[Destination, ...] = ()
        self._selected = DASHBOARD
        self.rail = ft.NavigationRail(
            leading=silent(ft.Icon(ft.Icons.BOLT, size=28, color=ft.Colors.PRIMARY)),
            label_type=ft.NavigationRailLabelType.ALL,
            min_width=RAIL_WIDTH,
            bgcolor=ft.Colors.SURFACE,
            scrollable=True,
            on_change=self._chosen_in_rail,
        )
        self.bar = ft.NavigationBar(
            bgcolor=ft.Colors.SURFACE,
            border=ft.Border(top=ft.BorderSide(1, HAIRLINE)),
            on_change=self._chosen_in_bar,
        )
        self.set_pages(())

    @property
    def _in_bar(self) -> int:
        """Destinations that the bar shows itself."""
        return len(self._shown) if len(self._shown) <= BAR_MOST else BAR_MOST - 1

    def set_pages(self, pages: Pages) -> None:
        """Show these pages; an unchanged list changes no control."""
        shown = destinations(pages)
        if shown == self._shown:
            return
        self._shown = shown
        self.rail.destinations = [
            ft.NavigationRailDestination(
                icon=one.icon, selected_icon=one.selected_icon, label=_rail_label(one.label, own=n < len(PLACES))
            )
            for n, one in enumerate(shown)
        ]
        direct = shown[: self._in_bar]
        self.bar.destinations = [
            ft.NavigationBarDestination(
                icon=one.icon,
                selected_icon=one.selected_icon,
                label=one.label if n < len(PLACES) else one_line(one.label, BAR_LABEL),
            )
            for n, one in enumerate(direct)
        ]
        if len(direct) < len(shown):
            self.bar.destinations.append(ft.NavigationBarDestination(icon=ft.Icons.MORE_HORIZ, label="More"))
        self._mark()

    def select(self, index: int, page_route: str | None) -> None:
        """Mark the destination of a place or a page; places behind the dashboard mark it."""
        addresses = [one.address for one in self._shown]
        address = address_of(page_route) if index == PAGE and page_route is not None else None
        if address in addresses[len(PLACES) :]:
            self._selected = addresses.index(address, len(PLACES))
        else:
            self._selected = index if index < len(PLACES) else DASHBOARD
        self._mark()

    def _mark(self) -> None:
        self._selected = min(self._selected, len(self._shown) - 1)
        self.rail.selected_index = self._selected
        self.bar.selected_index = min(self._selected, self._in_bar)

    async def _chosen_in_rail(self, event: ft.Event[ft.NavigationRail]) -> None:
        self._go(self._shown[event.control.selected_index or DASHBOARD].address)

    async def _chosen_in_bar(self, event: ft.Event[ft.NavigationBar]) -> None:
        chosen = event.control.selected_index or DASHBOARD
        if chosen < self._in_bar:
            self._go(self._shown[chosen].address)
            return
        page = event.page
        self._mark()  # “More” itself is no place
        page.update()
        page.show_dialog(ft.BottomSheet(self._more(page), show_drag_handle=True))

    def _more(self, page: ft.Page | ft.BasePage) -> ft.Control:
        """Return the list of the destinations that the bar has no room for."""

        def open_page(address: str) -> None:
            page.pop_dialog()
            self._go(address)

        rows: list[ft.Control] = [ft.Container(heading("More"), padding=ft.Padding.symmetric(horizontal=2 * GRID))]
        for n, one in enumerate(self._shown[self._in_bar :], self._in_bar):
            line = ft.Row([ft.Icon(one.icon, color=MUTED), growing(caller_text(one.label))], spacing=2 * GRID)
            rows.append(pressable(one.label, line, on_press(open_page, one.address), selected=n == self._selected))
        return ft.SafeArea(
            ft.Container(ft.Column(rows, spacing=4, tight=True, scroll=ft.ScrollMode.AUTO), padding=GRID)
        )


def _rail_label(label: str, *, own: bool) -> str | ft.Text:
    """Return a label that does not widen the rail, whatever a file says."""
    if own:
        return label
    return ft.Text(
        one_line(label, RAIL_LABEL), size=SMALL, width=RAIL_WIDTH - GRID, max_lines=2,
        overflow=ft.TextOverflow.ELLIPSIS, text_align=ft.TextAlign.CENTER,
    )  # fmt: skip


def _icons(page: declarations.Page) -> tuple[ft.IconData, ft.IconData]:
    """Return the icon of a page by its first chart, table, form or settings."""
    for element in _all(page.elements):
        match element:
            case declarations.Chart():
                return ft.Icons.INSERT_CHART_OUTLINED, ft.Icons.INSERT_CHART
            case declarations.Table():
                return ft.Icons.TABLE_CHART_OUTLINED, ft.Icons.TABLE_CHART
            case declarations.Form():
                return ft.Icons.EDIT_NOTE_OUTLINED, ft.Icons.EDIT_NOTE
            case declarations.SettingsPanel():
                return ft.Icons.TUNE_OUTLINED, ft.Icons.TUNE
            case _:
                continue
    return ft.Icons.ARTICLE_OUTLINED, ft.Icons.ARTICLE


def _all(elements: Sequence[declarations.Element]) -> Iterator[declarations.Element]:
    for element in elements:
        yield element
        if isinstance(element, declarations.Container):
            yield from _all(element.children)
