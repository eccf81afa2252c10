"""The page: navigation rail or bar, the head with the bell, the theme, and the routes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import quote

import flet as ft

from flashflow.backend import Backend, declarations
from flashflow.views.controls.badge import badge_text
from flashflow.views.controls.buttons import icon_button, on_press
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.layout import column
from flashflow.views.controls.notification_bell import NotificationBell
from flashflow.views.controls.texts import heading
from flashflow.views.controls.tokens import GRID, HAIRLINE, TITLE
from flashflow.views.dashboard.date_range import Selection
from flashflow.views.dashboard.screen import Dashboard
from flashflow.views.dashboard.user_profile import UserProfile
from flashflow.views.dashboard.users import Users
from flashflow.views.flow.problem import problem_banner
from flashflow.views.flow.screen import FlowPage
from flashflow.views.navigation import (
    BEHIND,
    DASHBOARD,
    NOTIFICATIONS,
    PAGE,
    PLACES,
    USER,
    USERS,
    Navigation,
    Place,
    parse,
)
from flashflow.views.notifications.screen import NotificationCenter
from flashflow.views.shared.live import Live
from flashflow.views.shared.screen_base import Screen
from flashflow.views.shared.sources import UserInbox
from flashflow.views.shared.theme import dark, light
from flashflow.views.shared.widgets import banner, centred

APP = "FlashFlow"
WIDE = 840
CLOCK = 60.0
TITLE_DELAY = 0.3


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
        self._flow_shown: tuple[object, ...] = ()
        self._unread = 0
        self._titling: asyncio.TimerHandle | None = None
        self._bell = NotificationBell(
            source=UserInbox(backend, self._live),
            open_notification=self._open_notification,
            open_all=self._open_all,
            on_change=self._count_in_title,
        )
        self._body = ft.Container(expand=True)
        self._banners = column([], GRID)
        self._title = ft.Container(expand=True)
        self._back = ft.Container(visible=False, content=icon_button(ft.Icons.ARROW_BACK, "Back", self._up))
        self._navigation = Navigation(self._go)
        self._rail, self._bar = self._navigation.rail, self._navigation.bar
        self._divider = ft.VerticalDivider(width=1, thickness=1, color=HAIRLINE)

    def open(self) -> None:
        """Set up the page, mount the controls and subscribe to events."""
        page = self._page
        page.title = APP
        page.theme, page.dark_theme, page.theme_mode = light(), dark(), ft.ThemeMode.SYSTEM
        page.on_route_change = self._routed
        page.on_resize = self._resized
        page.on_connect = on_press(self._listen)
        page.on_disconnect = page.on_close = on_press(self._rest)
        page.on_app_lifecycle_state_change = self._shown_or_hidden
        self._live.listen(("flow",), self._follow_flow)
        self._navigation.set_pages(self._pages)
        self._draw_banners()
        page.views[:] = [self._view()]
        self._go_to(page.route)
        self._listen()
        page.update()

    def _count_in_title(self, unread: int) -> None:
        """Show the unread count in the title, TITLE_DELAY later."""
        # Flet compares the whole page for it, and the lists go first.
        self._unread = unread
        if self._titling is None:
            self._titling = asyncio.get_running_loop().call_later(TITLE_DELAY, self._show_title)

    def _show_title(self) -> None:
        self._titling = None
        count = badge_text(self._unread)
        title = f"({count}) {APP}" if count else APP
        if title != self._page.title:
            self._page.title = title
            self._page.update()

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
        index, named = parse(route, self._pages)
        place = (*PLACES, *BEHIND)[index]
        if index != self._place or self._screen is None or (index in {USER, PAGE} and named != self._named):
            if index == USER:
                self._previous_route = BEHIND[0].route if self._place == USERS else PLACES[DASHBOARD].route
            self._screen = self._make(place, named)
            self._body.content = self._screen
        self._place, self._named = index, named
        if isinstance(self._screen, NotificationCenter) and self._screen.selected != named:
            self._screen.select(named)
        self._draw_title()
        self._back.visible = index in {USERS, USER} or (index == NOTIFICATIONS and named is not None and not self._wide)
        self._lay_out()
        self._navigation.select(index, named)

    def _draw_title(self) -> None:
        title = (*PLACES, *BEHIND)[self._place].label
        if self._place == USER:
            title = one_line(self._named or "", 60)
        elif self._place == PAGE:
            page = next((page for page in self._pages if page.route == self._named), None)
            title = title if page is None else one_line(page.title, 80)
        self._title.content = heading(title, size=TITLE, level=1)

    def _make(self, place: Place, named: str | None) -> Screen:
        """Build the screen of a place. Dashboard and Users share one ``Selection``, which is kept across screens."""
        more: dict[str, object] = {}
        if place.screen in (Dashboard, Users):
            more["chosen"] = self._selection
        elif place.screen is UserProfile:
            more["user_id"] = named or ""
        elif place.screen is FlowPage:
            more.update(flow=self._backend.flow, route=named or "/")
        return place.screen(backend=self._backend, live=self._live, go=self._go, wide=self._wide, **more)  # type: ignore[arg-type]

    def _go(self, route: str) -> None:
        self._page.navigate(route)

    async def _up(self, _: object) -> None:
        """Go from a detail page to its list."""
        if self._place == USER:
            self._go(self._previous_route)
        else:
            self._go(PLACES[DASHBOARD if self._place == USERS else NOTIFICATIONS].route)

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
        flow = self._backend.flow
        if flow is not None and flow.problem is not None:
            self._banners.controls.insert(0, problem_banner(flow.problem, flow.errors))

    @property
    def _pages(self) -> Sequence[declarations.Page]:
        flow = self._backend.flow
        return () if flow is None else flow.project.pages

    def _follow_flow(self) -> None:
        """Show the pages, the title and the errors of the files as they are now. The screen redraws itself."""
        flow = self._backend.flow
        shown = (self._pages, flow and flow.problem, flow and flow.errors)
        if shown == self._flow_shown:
            return
        self._flow_shown = shown
        self._navigation.set_pages(self._pages)
        self._navigation.select(self._place, self._named)
        self._draw_title()
        self._draw_banners()
        self._lay_out()
        self._page.update()

    def _dismiss(self, text: str) -> None:
        self._dismissed.add(text)
        self._draw_banners()
        self._lay_out()
        self._page.update()
