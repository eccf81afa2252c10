"""The only crossing from backend threads to a page.

The bus calls ``Live`` in the thread that committed a change. ``Live`` remembers what kind it was, wakes the page's
event loop at most once an interval (the first time at once), and there asks whoever listens to look again. A burst of
any size costs a page one refresh an interval, and one more after it.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from flashflow.backend import Event, EventKind

log = logging.getLogger(__name__)

INTERVAL = 0.1
NOTIFICATION_KINDS: tuple[EventKind, ...] = ("notification", "notification.updated")
ROLLUP_KINDS: tuple[EventKind, ...] = ("key_activities", "rollups.rebuilt", "dimension.full", "pruning", "erasure")
"""Changes of counted metrics that no activity or session event announces."""

Heard = Callable[["tuple[Event, ...]"], None]


class EventSource(Protocol):
    """What ``Live`` needs of the bus."""

    def subscribe(self, subscriber: Heard, /) -> Callable[[], None]: ...


class Loop(Protocol):
    """What ``Live`` needs of an event loop."""

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> object: ...
    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> object: ...


class Topic(NamedTuple):
    """A kind of event; ``mine`` when it concerns the person at this machine."""

    kind: EventKind
    mine: bool


class Live:
    """One page's ear on the bus. Made, started and stopped in the page's event loop."""

    def __init__(self, bus: EventSource, me: str, loop: Loop, interval: float = INTERVAL) -> None:
        self._bus = bus
        self._me = me
        self._loop = loop
        self._interval = interval
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._pending: set[Topic] = set()
        self._awake = False
        self._unsubscribe: Callable[[], None] | None = None
        self._listeners: list[tuple[frozenset[EventKind], bool, Callable[[], None]]] = []

    def start(self) -> None:
        """Hear the bus from now on; whatever happened before is looked up once."""
        if self._unsubscribe is None:
            self._unsubscribe = self._bus.subscribe(self._hear)
            self.ask_everyone()

    def stop(self) -> None:
        """Hear nothing more, until ``start`` is called again."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        with self._lock:
            self._pending.clear()

    def listen(self, kinds: Iterable[EventKind], ask: Callable[[], None], *, mine: bool = False) -> Callable[[], None]:
        """Call ``ask`` in the page's loop when one of ``kinds`` happened (with ``mine``: to this person).

        Returns what ends that.
        """
        entry = (frozenset(kinds), mine, ask)
        self._listeners.append(entry)

        def unlisten() -> None:
            self._listeners = [other for other in self._listeners if other is not entry]

        return unlisten

    def ask_everyone(self) -> None:
        """Ask every listener to look again: after a reconnect, or when the minute turned."""
        for _, _, ask in tuple(self._listeners):
            ask()

    def _hear(self, events: tuple[Event, ...]) -> None:
        """In a backend thread: remember and hand over."""
        topics = {Topic(event.kind, event.user_id == self._me) for event in events}
        with self._lock:
            self._pending |= topics
            if self._awake:
                return
            self._awake = True
        try:
            self._loop.call_soon_threadsafe(self._tell, context=self._context)
        except RuntimeError:  # the loop is closed: the page is gone, and so is whoever would look
            log.debug("the page's loop is closed")

    def _tell(self) -> None:
        """In the page's loop: tell what is pending, then rest for one interval."""
        with self._lock:
            topics, self._pending = self._pending, set()
            if not topics or self._unsubscribe is None:
                self._awake = False
                return
        self._loop.call_later(self._interval, self._tell)
        for kinds, mine, ask in tuple(self._listeners):
            if any(t.kind in kinds and (t.mine or not mine) for t in topics):
                ask()
