"""The event bus: publishes committed changes to subscribers in the same process.

An event says that something changed, not to which state. A subscriber reads the state from a service, so a missed or
repeated event never leads to a wrong display.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

log = logging.getLogger(__name__)

EventKind = Literal[
    "notification",
    "notification.updated",
    "activity",
    "session",
    "preference",
    "device",
    "template",
    "rule",
    "outbox",
    "toast.dismissed",
    "settings",
    "flow",
    "key_activities",
    "dimension.full",
    "rollups.rebuilt",
    "pruning",
    "erasure",
    "file.damaged",
]


class Event(msgspec.Struct, frozen=True, gc=False):
    """One committed change.

    ``id`` identifies the changed row and is empty where the kind concerns no single row. ``app`` is the name of the
    key that wrote it. Kinds whose meaning is not that of their table:

    - ``outbox``: a delivery is due or queued (``id``: the delivery)
    - ``toast.dismissed``: a notification's desktop toast must close (``id``: the notification)
    - ``rule``: a rule changed or fired (``id``: its name)
    - ``settings``: ``flashflow.toml`` was applied, or became unreadable
    - ``flow``: the ``.flow`` files were loaded or have errors (``id`` empty), or a row of the model ``id`` was saved
    - ``key_activities``: the activity types, or their key activity marks, changed
    - ``dimension.full``: a dimension (``id``: ``page``, ``type``, …) has no room for another name
    - ``rollups.rebuilt``: all rollups were recalculated
    - ``pruning``: expired rows were deleted
    - ``erasure``: a user was erased (``id`` and ``user_id`` stay empty)
    - ``file.damaged``: a database file is damaged or was repaired (``id``: its file name)
    """

    kind: EventKind
    id: str = ""
    user_id: str = ""
    app: str = ""


Subscriber = Callable[[tuple[Event, ...]], None]


class Bus:
    """Publish batches of events to subscribers. Thread-safe; subscribers are called outside the lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: tuple[Subscriber, ...] = ()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call ``subscriber`` with every batch from now on, in the thread that committed, right after COMMIT.

        It must only hand the events to a loop or queue and return. Return a function that unsubscribes (idempotent).
        """
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)

        return unsubscribe

    def publish(self, events: Iterable[Event]) -> None:
        """Call every subscriber with ``events``; log a subscriber's exception and continue with the next."""
        subscribers = self._subscribers
        if not subscribers:
            return
        batch = tuple(events)
        if not batch:
            return
        for subscriber in subscribers:
            try:
                subscriber(batch)
            except Exception:
                log.exception("a bus subscriber failed")
