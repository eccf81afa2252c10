"""The page: navigation rail or bar, the head with the bell, the theme, and the routes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

import flet as ft

from flashflow.backend import Backend
from flashflow.views.controls.buttons import icon_button, on_press
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.layout import column
from flashflow.views.controls.notification_bell import NotificationBell
from flashflow.views.controls.texts import heading, silent
from flashflow.views.controls.tokens import GRID, HAIRLINE, TITLE
from flashflow.views.dashboard.date_range import Selection
from flashflow.views.dashboard.screen import Dashboard
from flashflow.views.dashboard.user_profile import UserProfile
from flashflow.views.dashboard.users import Users
from flashflow.views.notifications.screen import NotificationCenter
from flashflow.views.settings.screen import Settings
from flashflow.views.shared.live import Live
from flashflow.views.shared.screen_base import Screen
from flashflow.views.shared.sources import MyInbox
from flashflow.views.shared.theme import dark, light
from flashflow.views.shared.widgets import banner, centred

Destination = TypeVar("Destination", ft.NavigationRailDestination, ft.NavigationBarDestination)

WIDE = 840
CLOCK = 60.0


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
)
DASHBOARD, NOTIFICATIONS, SETTINGS, USERS, USER = range(len(PLACES) + len(BEHIND))


def parse(route: str) -> tuple[int, str | None]:
    """Parse a route into a place index and the notification or user id in it; an unknown route is the dashboard."""
    parts = [unquote(part) for part in urlsplit(route).path.split("/") if part]
    named = parts[1] if len(parts) == 2 else None
    if parts[:1] == ["notifications"] and len(parts) <= 2:
        return NOTIFICATIONS, named
    if parts[:1] == ["users"] and len(parts) <= 2:
        return (USERS, None) if named is None else (USER, named)
    return (SETTINGS, None) if parts == ["settings"] else (DASHBOARD, None)


def make_main(backend: Backend) -> Callable[[ft.Page], Awaitable[None]]:
    """Return the Flet main function for this backend; Flet calls it once per session."""

    async def main(page: ft.Page) -> None:
        Shell(page, backend).open()

    return main


class Shell:
    """One session's page."""

    def __init__(self, page: ft.Page, backend: Backend) -> None:
        self._page = page
        self._backend = backend
        self._live = Live(backend.bus, backend.me, asyncio.get_running_loop())
        self._ticking: asyncio.Task[None] | None = None
        self._screen: Screen | None = None
        self._place = -1
        self._named: str | None = None
        self._previous_route = "/"
        self._selection = Selection()
        self._dismissed: set[str] = set()
        self._bell = NotificationBell(
            source=MyInbox(backend, self._live), open_notification=self._open_notification, open_all=self._open_all
        )
        self._body = ft.Container(expand=True)
        self._banners = column([], GRID)
        self._title = ft.Container(expand=True)
        self._back = ft.Container(visible=False, content=icon_button(ft.Icons.ARROW_BACK, "Back", self._up))
        self._rail = self._make_rail()
        self._bar = self._make_bar()
        self._divider = ft.VerticalDivider(width=1, thickness=1, color=HAIRLINE)

    def open(self) -> None:
        """Set up the page, mount the controls and subscribe to events."""
        page = self._page
        page.title = "FlashFlow"
        page.theme, page.dark_theme, page.theme_mode = light(), dark(), ft.ThemeMode.SYSTEM
        page.on_route_change = self._routed
        page.on_resize = self._resized
        page.on_connect = on_press(self._listen)
        page.on_disconnect = page.on_close = on_press(self._rest)
        page.on_app_lifecycle_state_change = self._shown_or_hidden
        self._draw_banners()
        page.views[:] = [self._view()]
        self._go_to(page.route)
        self._listen()
        page.update()

    def _view(self) -> ft.View:
        head = ft.Container(centred(ft.Row([self._back, self._title, self._bell], spacing=GRID)))
        banners = ft.Container(centred(self._banners))
        self._framed = (head, banners)
        column = ft.Column([head, banners, self._body], expand=True, spacing=0)
        columns = ft.Row(
            [self._rail, self._divider, column],
            expand=True,
            spacing=0,
            vertical_alignment=ft.CrossAxisAlignment.STRETCH,
        )
        return ft.View(
            route="/",
            padding=0,
            spacing=0,
            bgcolor=ft.Colors.SURFACE,
            controls=[ft.SafeArea(columns, expand=True)],
            navigation_bar=self._bar,
        )

    def _make_rail(self) -> ft.NavigationRail:
        return ft.NavigationRail(
            destinations=_destinations(ft.NavigationRailDestination),
            leading=silent(ft.Icon(ft.Icons.BOLT, size=28, color=ft.Colors.PRIMARY)),
            label_type=ft.NavigationRailLabelType.ALL,
            min_width=104,
            bgcolor=ft.Colors.SURFACE,
            on_change=self._chosen,
        )

    def _make_bar(self) -> ft.NavigationBar:
        return ft.NavigationBar(
            destinations=_destinations(ft.NavigationBarDestination),
            bgcolor=ft.Colors.SURFACE,
            border=ft.Border(top=ft.BorderSide(1, HAIRLINE)),
            on_change=self._chosen,
        )

    @property
    def _wide(self) -> bool:
        return (self._page.width or 0) >= WIDE

    def _lay_out(self) -> None:
        """Show the rail on a wide page, the bar on a narrow one."""
        self._rail.visible = self._divider.visible = self._wide
        self._bar.visible = not self._wide
        side = (3 if self._wide else 2) * GRID
        head, banners = self._framed
        left = 4 if self._back.visible else side
        head.padding = ft.Padding.only(left=left, right=side - GRID, top=GRID, bottom=GRID)
        banners.padding = ft.Padding.only(left=side, right=side, bottom=GRID if self._banners.controls else 0)

    def _go_to(self, route: str) -> None:
        """Show the screen of a route."""
        index, named = parse(route)
        place = (*PLACES, *BEHIND)[index]
        if index != self._place or self._screen is None or (index == USER and named != self._named):
            if index == USER:
                self._previous_route = BEHIND[0].route if self._place == USERS else PLACES[DASHBOARD].route
            self._screen = self._make(place, named)
            self._body.content = self._screen
        self._place, self._named = index, named
        if isinstance(self._screen, NotificationCenter) and self._screen.selected != named:
            self._screen.select(named)
        title = one_line(named or "", 60) if index == USER else place.label
        self._title.content = heading(title, size=TITLE, level=1)
        self._back.visible = index >= USERS or (named is not None and not self._wide)
        self._lay_out()
        self._rail.selected_index = self._bar.selected_index = index if index < len(PLACES) else DASHBOARD

    def _make(self, place: Place, named: str | None) -> Screen:
        """Build the screen of a place. Dashboard and Users share one ``Selection``, which is kept across screens."""
        more: dict[str, object] = {}
        if place.screen in (Dashboard, Users):
            more["chosen"] = self._selection
        elif place.screen is UserProfile:
            more["user_id"] = named or ""
        return place.screen(backend=self._backend, live=self._live, go=self._go, wide=self._wide, **more)  # type: ignore[arg-type]

    def _go(self, route: str) -> None:
        self._page.navigate(route)

    async def _up(self, _: object) -> None:
        """Go from a detail page to its list."""
        if self._place == USER:
            self._go(self._previous_route)
        else:
            self._go(PLACES[DASHBOARD if self._place == USERS else NOTIFICATIONS].route)

    async def _chosen(self, event: ft.Event[ft.NavigationRail] | ft.Event[ft.NavigationBar]) -> None:
        self._go(PLACES[event.control.selected_index or DASHBOARD].route)

    async def _open_notification(self, notification_id: str) -> None:
        self._go(f"{PLACES[NOTIFICATIONS].route}/{quote(notification_id, safe='')}")

    async def _open_all(self) -> None:
        self._go(PLACES[NOTIFICATIONS].route)

    async def _routed(self, event: ft.RouteChangeEvent) -> None:
        self._go_to(event.route)
        self._page.update()

    async def _resized(self, _: ft.PageResizeEvent) -> None:
        screen = self._screen
        if screen is not None and screen.wide != self._wide:
            self._go_to(self._page.route)
            self._page.update()
            screen.set_wide(self._wide)

    async def _shown_or_hidden(self, _: ft.AppLifecycleStateChangeEvent) -> None:
        """Pause updates while the page is hidden; refresh when it is visible again."""
        if self._page.app_visible:
            self._listen()
        else:
            self._rest()

    def _rest(self) -> None:
        self._live.stop()
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    def _listen(self) -> None:
        self._live.start()
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().create_task(self._tick())

    async def _tick(self) -> None:
        """Refresh relative times every CLOCK seconds."""
        while True:
            await asyncio.sleep(CLOCK)
            self._live.refresh_all()

    def _draw_banners(self) -> None:
        self._banners.controls = [
            banner(text, on_press(self._dismiss, text)) for text in self._backend.notices if text not in self._dismissed
        ]

    def _dismiss(self, text: str) -> None:
        self._dismissed.add(text)
        self._draw_banners()
        self._lay_out()
        self._page.update()


def _destinations(kind: type[Destination]) -> list[Destination]:
    return [kind(icon=place.icon, selected_icon=place.selected_icon, label=place.label) for place in PLACES]
