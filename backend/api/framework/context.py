"""The services, writers and threads that request handlers use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.api.framework.aliases import AliasRoute
from flashflow.backend.api.framework.event_feed import EventFeed
from flashflow.backend.api.framework.serializers import NotificationPages
from flashflow.backend.api.http.connection_limits import ConnectionWatch, Limits
from flashflow.backend.api.http.request_metrics import RequestMetrics
from flashflow.backend.api.http.unread_bytes import Outgoing
from flashflow.backend.api_keys import KeyRing
from flashflow.backend.core.clock import Clock
from flashflow.backend.core.config import Config
from flashflow.backend.core.events import Bus, Event
from flashflow.backend.data.erasure import Erasure
from flashflow.backend.data.export import Export
from flashflow.backend.data.retention import Retention
from flashflow.backend.delivery.channel_registry import ChannelState
from flashflow.backend.notifications.channel_test import ChannelTest
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.rules.service import Rules
from flashflow.backend.store.engine.writer import LoopWrites

FlowState = Literal["none", "ok", "errors"]
"""State of ``.flow`` files: none are given, they are in force, or the last version with errors is not."""


class BackendParts(Protocol):
    """The parts and operations of the composition root (``Backend``) that the server and its routes use."""

    config: Config
    data_dir: Path
    clock: Clock
    bus: Bus
    activity: UserActivityService
    notifications: NotificationService
    rules: Rules
    keys: KeyRing
    exports: Export
    erasing: Erasure
    retention: Retention
    alias_routes: Sequence[AliasRoute]
    """Other paths for built-in routes; replaced as a whole."""

    def flow_state(self) -> FlowState: ...
    def storage_fault(self) -> str | None: ...
    def damaged_rows(self) -> int: ...
    def failing_threads(self) -> tuple[str, ...]: ...
    def channel_states(self) -> tuple[ChannelState, ...]: ...
    def send_test(self, route: str, user_id: str | None = None) -> tuple[ChannelTest, ...]: ...
    def web_push_key(self) -> str | None: ...
    def attempts(self) -> dict[tuple[str, ...], int]: ...
    def routes(self) -> tuple[str, ...]: ...


class ReadThreads:
    """Thread pools for reads: two threads for short queries, one for queries that may take seconds."""

    def __init__(self) -> None:
        self.short = ThreadPoolExecutor(2, thread_name_prefix="flashflow-read")
        self.long = ThreadPoolExecutor(1, thread_name_prefix="flashflow-read-long")

    def shutdown(self) -> None:
        """Wait for running reads and cancel the queued ones."""
        for threads in (self.short, self.long):
            threads.shutdown(wait=True, cancel_futures=True)


class Services:
    """The services, keys and writers of one server. Belongs to its event loop."""

    def __init__(
        self, backend: BackendParts, readers: ReadThreads, new_launch_link: Callable[[], str], started_at: float
    ) -> None:
        self.backend = backend
        self.activity = backend.activity
        self.notifications = backend.notifications
        self.rules = backend.rules
        self.keys = backend.keys
        self.exports = backend.exports
        self.erasing = backend.erasing
        self.retention = backend.retention
        self.readers = readers
        self.new_launch_link = new_launch_link
        self.started_at = started_at
        self.started_time = time.time() - (time.monotonic() - started_at)
        self.activity_writes = LoopWrites(self.activity.store.writer)
        self.notification_writes = LoopWrites(self.notifications.store.writer)
        self.pages = NotificationPages()
        self.feed = EventFeed(self.activity.store, self.notifications.store, backend.bus)
        self.limits = Limits()
        self.watch = ConnectionWatch(self.limits)
        self.outgoing = Outgoing(self.watch)
        self.requests = RequestMetrics()
        self.stopping = asyncio.Event()
        backend.bus.subscribe(self._on_events)

    def _on_events(self, events: tuple[Event, ...]) -> None:
        """Drop cached rows after an erasure. Called on the thread that committed it."""
        if any(event.kind == "erasure" for event in events):
            self.pages = NotificationPages()
            self.feed.clear()
