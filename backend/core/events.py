"""The bus: what happened, told to whoever asked.

A subscriber is called in the thread that committed the change, right after COMMIT, and must only hand the event on
(to its own loop or queue) and return. Events say *that* something changed and where; whoever shows it asks a service
for the state, so a missed or doubled event can never show a wrong figure.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

log = logging.getLogger(__name__)

Kind = Literal[
    "notification",
    "notification.updated",
    "activity",
    "session",
    "preference",
    "device",
    "template",
    "system",
    "outbox",
    "withdraw",
    "rule",
]


class Event(msgspec.Struct, frozen=True, gc=False):
    """One committed change. ``id`` is the id of what changed, ``app`` the name of the key that wrote it.

    ``outbox`` says that something waits there to be delivered, ``withdraw`` that a notification's toast is not wanted
    any more, ``rule`` that a rule was changed or has fired (``id``: its name).
    """

    kind: Kind
    id: str
    user_id: str = ""
    app: str = ""


Subscriber = Callable[[tuple[Event, ...]], None]


class Bus:
    """Publishes batches of events to subscribers. Thread-safe; publishing happens outside the lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: tuple[Subscriber, ...] = ()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call ``subscriber`` with every batch from now on; returns what ends that (safe to call twice)."""
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)

        return unsubscribe

    def publish(self, events: Iterable[Event]) -> None:
        """Tell every subscriber. One that raises is logged and does not keep the others from hearing."""
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
