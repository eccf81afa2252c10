"""Circuit breaker per server, for channels that send to many: a server that hangs must not take every connection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flashflow.backend.delivery.net.text import cut
from flashflow.backend.domain.channel import Transient

WAIT_S = 30.0
"""Seconds after which a refused try is repeated."""
MOST = 256
"""Most servers remembered as late. Callers choose the servers, so the number is bounded."""


class CircuitBreaker:
    """Allow one try at a time to a server whose last try timed out, until a try does not time out. Thread-safe.

    A server that hangs thus blocks connections for its first tries only (each up to the deadline), then a single one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._late: dict[str, bool] = {}
        """Server → whether a try to it is in progress."""

    @contextmanager
    def exchange(self, server: str) -> Iterator[None]:
        """Wrap one exchange. Raises Transient ``not_asked`` while another try waits for this late server."""
        alone, late = self._enter(server), False
        try:
            yield
        except Transient as error:
            late = error.code == "timeout"
            raise
        finally:
            self._leave(server, alone, late=late)

    def _enter(self, server: str) -> bool:
        """Return whether this is the single try to a late server."""
        with self._lock:
            if self._late.get(server):
                words = f"{cut(server, 80)} was late with its last answer; another try is waiting for the next."
                raise Transient("not_asked", words, WAIT_S)
            if server in self._late:
                self._late[server] = True
            return server in self._late

    def _leave(self, server: str, alone: bool, *, late: bool) -> None:
        with self._lock:
            if not late or alone:
                self._late.pop(server, None)
            if late:
                while len(self._late) >= MOST:
                    del self._late[next(iter(self._late))]
                self._late.setdefault(server, False)
