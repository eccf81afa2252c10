"""Response bytes that clients have not read yet, bounded for each key.

A client that requests much and reads nothing must not fill the memory. The connections count the bytes in their write
buffers (``ConnectionWatch.unsent``); bytes held by a stream or a download in addition are counted here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flashflow.backend.api.http.connection_limits import ConnectionWatch

PER_KEY = 32 * 1024 * 1024
SMALL = 64 * 1024
"""A response up to this size is never refused, so errors can always be sent."""
WRITE_BYTES = 64 * 1024
"""Bytes of a stream or a download written at once: each write is copied per client."""
CHECK_S = 0.05
"""Seconds between two checks of a stream that waits for room: buffers send no event when they drain."""


class Outgoing:
    """Unread bytes by app. Belongs to the event loop."""

    def __init__(self, watch: ConnectionWatch, per_key: int = PER_KEY) -> None:
        self._watch = watch
        self._per_key = per_key
        self._held: Counter[str] = Counter()

    def has_room(self, app: str, size: int) -> bool:
        """Whether ``size`` more bytes may be held for this key; always true if it holds none."""
        if size <= SMALL:
            return True
        held = self._held[app] + self._watch.unsent(app)
        return held == 0 or held + size <= self._per_key

    @contextmanager
    def hold(self, app: str, size: int) -> Iterator[None]:
        """Count ``size`` bytes as held inside the ``with`` block."""
        self.change(app, size)
        try:
            yield
        finally:
            self.change(app, -size)

    def change(self, app: str, by: int) -> None:
        """Add ``by`` bytes, which may be negative, to the held ones."""
        self._held[app] += by
        if not self._held[app]:
            del self._held[app]

    async def room(self, app: str, size: int, ends: set[asyncio.Future[Any]]) -> None:
        """Wait until ``has_room``, or until one of ``ends`` is done."""
        while not self.has_room(app, size) and not any(end.done() for end in ends):
            await asyncio.wait(ends, timeout=CHECK_S, return_when=asyncio.FIRST_COMPLETED)
