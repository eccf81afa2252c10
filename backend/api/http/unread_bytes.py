"""Bytes of answers that clients have not taken yet: bounded for each key.

A client that asks for much and reads nothing must not fill the memory. What waits in the connections' buffers is known
to the connections (``Watch.unsent``); what a stream or a download holds beside that is counted here while it is held.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flashflow.backend.api.http.connection_places import ConnectionWatch

PER_KEY = 32 * 1024 * 1024
SMALL = 64 * 1024
"""An answer up to this size is never refused: a client can always be told something."""
WRITE_BYTES = 64 * 1024
"""How much of a stream or a download is written at once: what is written is copied for each client."""
LOOK_S = 0.05
"""How often a stream that waits for room looks again: buffers empty without a word."""


class Outgoing:
    """Belongs to the server's loop."""

    def __init__(self, watch: ConnectionWatch, per_key: int = PER_KEY) -> None:
        self._watch = watch
        self._per_key = per_key
        self._held: Counter[str] = Counter()

    def has_room(self, app: str, size: int) -> bool:
        """Whether ``size`` more bytes may be held for this key; always where nothing is."""
        if size <= SMALL:
            return True
        held = self._held[app] + self._watch.unsent(app)
        return held == 0 or held + size <= self._per_key

    @contextmanager
    def hold(self, app: str, size: int) -> Iterator[None]:
        """Count ``size`` bytes as held."""
        self.change(app, size)
        try:
            yield
        finally:
            self.change(app, -size)

    def change(self, app: str, by: int) -> None:
        """Count ``by`` bytes more as held, or fewer."""
        self._held[app] += by
        if not self._held[app]:
            del self._held[app]

    async def room(self, app: str, size: int, ends: set[asyncio.Future[Any]]) -> None:
        """Wait until ``has_room``, or until one of ``ends`` is done."""
        while not self.has_room(app, size) and not any(end.done() for end in ends):
            await asyncio.wait(ends, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
