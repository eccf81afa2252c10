"""Refreshes, one at a time however many are requested, and the base of controls that refresh after changes."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import field
from datetime import datetime
from typing import ClassVar, TypeVar

import flet as ft

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class Refresher:
    """Run one refresh at a time; any number of requests during a refresh cause one more after it.

    If ``rest`` is set, wait after each refresh: ``rest`` seconds, or ``ease`` times the refresh's duration if longer.
    """

    def __init__(
        self,
        refresh: Callable[[], Awaitable[None]],
        rest: float = 0,
        ease: float = 0,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._refresh = refresh
        self._rest = rest
        self._ease = ease
        self._now = now
        self._sleep = sleep
        self._again = False
        self._task: asyncio.Task[None] | None = None

    def request_refresh(self) -> None:
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def cancel(self) -> None:
        """Drop pending requests and cancel a running refresh."""
        self._again = False
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while self._again:
            self._again = False
            began = self._now()
            try:
                await self._refresh()
            except Exception:
                log.warning("a refresh failed", exc_info=True)
            if self._rest:
                await self._sleep(max(self._rest, self._ease * (self._now() - began)))


async def call(handler: Callable[..., Awaitable[None] | None] | None, *given: object) -> None:
    """Call a handler of the host app, if there is one, and await it if it is asynchronous. Log its error."""
    if handler is None:
        return
    try:
        running = handler(*given)
        if inspect.isawaitable(running):
            await running
    except Exception:
        log.exception("a handler of the host app failed")


def is_mounted(control: ft.BaseControl) -> bool:
    """Return whether the control is on a page, which ``update()`` requires."""
    try:
        return control.page is not None
    except RuntimeError:
        return False


def _now() -> datetime:
    return datetime.now().astimezone()


@ft.control(kw_only=True, isolated=True)  # type: ignore[arg-type]  # Flet's overload leaves its T unbound
class LiveControl(ft.Container):
    """A control that refreshes when it is mounted, and on every change after that until it is unmounted.

    ``rest`` and ``ease`` limit how often it refreshes: see ``Refresher``.
    """

    rest: ClassVar[float] = 0
    ease: ClassVar[float] = 0

    now: Callable[[], datetime] = field(default=_now, metadata={"skip": True})

    def init(self) -> None:
        self._error: str | None = None
        self._refresher = Refresher(self.refresh, self.rest, self.ease)
        self._unsubscribe: Callable[[], None] | None = None

    def did_mount(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # a synchronous handler of the host app, in a thread
            self.page.run_task(self._begin)
        else:
            self._listen()

    async def _begin(self) -> None:
        if is_mounted(self):
            self._listen()

    def _listen(self) -> None:
        if self._unsubscribe is None:
            self._unsubscribe = self.subscribe()
        self.request_refresh()

    def will_unmount(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self._refresher.cancel()

    def subscribe(self) -> Callable[[], None]:
        """Call ``request_refresh`` after every change; return a function that ends it."""
        raise NotImplementedError

    async def refresh(self) -> None:
        """Read the data and show it."""
        raise NotImplementedError

    def request_refresh(self) -> None:
        """Refresh as soon as the current refresh and its rest are over."""
        self._refresher.request_refresh()

    def redraw(self) -> None:
        """Send the changes in this control to the page."""
        if is_mounted(self):
            self.update()

    async def attempt(self, action: Callable[[], Result], failure: str) -> Result | None:
        """Run ``action`` in a worker thread; None, and ``failure`` with its reason to show, if it failed."""
        try:
            result = await asyncio.to_thread(action)
        except Exception as error:
            log.debug(failure, exc_info=True)
            self._error = f"{failure}: {error}"
            return None
        self._error = None
        return result
