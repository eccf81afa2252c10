"""Deliver bus events from backend threads to one page's event loop; no other module crosses these threads.

The bus calls ``Live`` in the thread that committed a change. ``Live`` collects the kinds of events and wakes the page's
event loop at most once per interval (the first event at once), where listeners refresh. A burst of any size costs a
page one refresh per interval, and one more after it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Iterable

from flashflow.backend import Bus, Event, EventKind

log = logging.getLogger(__name__)

INTERVAL = 0.1
NOTIFICATION_KINDS: tuple[EventKind, ...] = ("notification", "notification.updated")
ROLLUP_KINDS: tuple[EventKind, ...] = ("key_activities", "rollups.rebuilt", "dimension.full", "pruning", "erasure")
"""Changes of counted metrics that no activity or session event announces."""


class Live:
    """One page's subscription to the bus. Create, start and stop it in the page's event loop."""

    def __init__(self, bus: Bus, me: str, loop: asyncio.AbstractEventLoop, interval: float = INTERVAL) -> None:
        self._bus = bus
        self._me = me
        self._loop = loop
        self._interval = interval
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._pending: set[tuple[EventKind, bool]] = set()
        """Kinds of events, each with whether its user is the local user."""
        self._awake = False
        self._unsubscribe: Callable[[], None] | None = None
        self._listeners: list[tuple[frozenset[EventKind], bool, Callable[[], None]]] = []

    @property
    def is_started(self) -> bool:
        """Whether the page is visible and follows the bus."""
        return self._unsubscribe is not None

    def start(self) -> None:
        """Subscribe to the bus and refresh every listener once, for events missed so far."""
        if self._unsubscribe is None:
            self._unsubscribe = self._bus.subscribe(self._on_events)
            self.refresh_all()

    def stop(self) -> None:
        """Unsubscribe from the bus until ``start`` is called again."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        with self._lock:
            self._pending.clear()

    def listen(
        self, kinds: Iterable[EventKind], refresh: Callable[[], None], *, mine: bool = False
    ) -> Callable[[], None]:
        """Call ``refresh`` in the page's loop after an event of ``kinds`` (``mine``: only events of the local user).

        Returns a function that unsubscribes.
        """
        entry = (frozenset(kinds), mine, refresh)
        self._listeners.append(entry)

        def unlisten() -> None:
            self._listeners = [other for other in self._listeners if other is not entry]

        return unlisten

    def refresh_all(self) -> None:
        """Refresh every listener: after a reconnect, or to update relative times."""
        for _, _, refresh in tuple(self._listeners):
            refresh()

    def _on_events(self, events: tuple[Event, ...]) -> None:
        """Record events and wake the page's loop. Runs in a backend thread."""
        topics = {(event.kind, event.user_id == self._me) for event in events}
        with self._lock:
            self._pending |= topics
            if self._awake:
                return
            self._awake = True
        try:
            self._loop.call_soon_threadsafe(self._notify, context=self._context)
        except RuntimeError:  # the loop is closed: the page has ended
            log.debug("the page's loop is closed")

    def _notify(self) -> None:
        """Call the listeners of pending events, then wait one interval. Runs in the page's loop."""
        with self._lock:
            topics, self._pending = self._pending, set()
            if not topics or self._unsubscribe is None:
                self._awake = False
                return
        self._loop.call_later(self._interval, self._notify)
        for kinds, mine, refresh in tuple(self._listeners):
            if any(kind in kinds and (is_mine or not mine) for kind, is_mine in topics):
                refresh()
